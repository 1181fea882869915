package jit_test

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/runtime/user/vm/vmtest"
)

// machine is an image in this process.
type machine struct {
	*native.Code
	im      *jit.Image
	shared  []byte
	process []byte
	memory  *shm.Memory
}

// options are those of this machine.
func options(l *shm.Layout) jit.Options {
	return jit.Options{Layout: l, RDPID: native.HasRDPID()}
}

func load(t testing.TB, o jit.Options, shared []byte, progs ...*insn.Program) *machine {
	t.Helper()
	m, err := tryLoad(o, shared, progs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func tryLoad(o jit.Options, shared []byte, progs ...*insn.Program) (*machine, error) {
	im, err := jit.Compile(progs, o)
	if err != nil {
		return nil, err
	}
	if shared == nil {
		shared = make([]byte, shm.OffSeeds+64*4096)
	}
	m := &machine{im: im, shared: shared, process: make([]byte, shm.ProcSize)}
	m.Code, err = native.New(len(im.Code), func(uint64) ([]byte, error) {
		return im.Link(addr(m.shared), addr(m.process)), nil
	})
	return m, err
}

func addr(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// run calls a program with r1 = the memory and r2 = its length.
func (m *machine) run(name string, mem []byte) uint64 {
	r := m.Call(m.im.Entries[name].Offset, addr(mem), uint64(len(mem)))
	runtime.KeepAlive(mem)
	runtime.KeepAlive(m)
	return r
}

func TestConformance(t *testing.T) {
	passed := 0
	for _, v := range vmtest.Vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			if v.Name == "tests/callx" {
				t.Skip("a call through a register is not part of RFC 9669")
			}
			p, err := insn.Decode(v.Code, nil)
			if v.Error {
				if !errors.Is(err, insn.ErrRefused) {
					t.Fatalf("not refused: %v", err)
				}
				passed++
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r0 := load(t, options(nil), nil, p).run("", v.Mem); r0 != v.R0 {
				t.Errorf("r0 = %#x, want %#x", r0, v.R0)
				return
			}
			passed++
		})
	}
	t.Logf("%d vectors", passed)
}
