package abi

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

// What a running program finds in its registers is compared with what is
// predicted from its debug info.
func TestRegisters(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles programs")
	}
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("no rustc")
	}
	// For go test's cache, which does not see what rustc reads.
	if _, err := os.Stat("testdata/registers.rs"); err != nil {
		t.Fatal(err)
	}
	for _, toolchain := range []string{"", "+nightly"} {
		t.Run("rustc"+toolchain, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "registers")
			args := []string{"--edition=2021", "-g", "-o", file, "testdata/registers.rs"}
			if toolchain != "" {
				if exec.Command(rustc, toolchain, "--version").Run() != nil {
					t.Skip("no toolchain " + toolchain)
				}
				args = append([]string{toolchain}, args...)
			}
			if out, err := exec.Command(rustc, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			sigs := signatures(t, file)
			out, err := exec.Command(file).Output()
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) < 40 {
				t.Fatalf("%d lines", len(lines))
			}
			for _, line := range lines {
				part := strings.Split(line, "\t")
				sig, ok := sigs[part[1]]
				if !ok {
					t.Fatalf("%s is not in the debug info", part[1])
				}
				if part[0] == "args" {
					checkArgs(t, part[1], sig, part[2:])
				} else {
					checkResult(t, part[1], sig, part[2:])
				}
			}
		})
	}
}

type signature struct {
	params []*types.Type
	result *types.Type
}

func signatures(t *testing.T, file string) map[string]*signature {
	t.Helper()
	d := open(t, file)
	r := types.NewReader(d, types.Image{})
	sigs := map[string]*signature{}
	for _, u := range d.Units() {
		c := u.Cursor(0)
		var sig *signature
		for c.Next() {
			e := c.Entry()
			switch e.Tag {
			case dwarf.TagSubprogram:
				sig = nil
				if e.Flag(dwarf.AttrExternal) && e.Has(dwarf.AttrLowPC) {
					off, _ := e.Ref(dwarf.AttrType)
					ty, err := r.Type(off)
					if err != nil {
						t.Fatal(err)
					}
					sig = &signature{result: ty}
					sigs[strings.Clone(e.Name())] = sig
				}
			case dwarf.TagFormalParameter:
				if sig == nil {
					continue
				}
				off, _ := e.Ref(dwarf.AttrType)
				ty, err := r.Type(off)
				if err != nil {
					t.Fatal(err)
				}
				sig.params = append(sig.params, ty)
			}
		}
	}
	return sigs
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSuffix(s, "."))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wordsOf(t *testing.T, s string) (ws []uint64) {
	t.Helper()
	for _, f := range strings.Fields(s) {
		w, err := strconv.ParseUint(f, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	return ws
}

func checkArgs(t *testing.T, name string, sig *signature, part []string) {
	t.Helper()
	values, regs, targets := strings.Fields(part[0]), wordsOf(t, part[1]), strings.Fields(part[2])
	// The index in regs of a register or stack slot.
	index := func(p location.Piece) int {
		if p.Kind == location.Register && p.Reg.IsXMM() {
			return 6 + int(p.Reg-location.XMM0)
		}
		if p.Kind == location.Register {
			return slices.Index(intRegs, p.Reg)
		}
		return 14 + int(p.Expr[0].Arg)/8
	}
	for i, place := range Params(sig.params, sig.result) {
		want := unhex(t, values[i])
		switch place.Kind {
		case Unclear:
			t.Errorf("%s: argument %d: %s", name, i, place.Why)
		case Nowhere:
			if len(want) > 0 {
				t.Errorf("%s: argument %d: nowhere, has %d bytes", name, i, len(want))
			}
		case Indirect:
			e := place.Location.Pieces[0].Expr
			at := 14 + int(e[0].Arg)/8
			if e[0].Kind == location.OpRegister {
				at = slices.Index(intRegs, e[0].Reg)
			}
			if got := unhex(t, targets[at]); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("%s: argument %d: %v leads to %x, want %x", name, i, e, got, want)
			}
		case Direct:
			for _, p := range place.Location.Pieces {
				if p.Kind == location.Constant { // padding
					continue
				}
				got := binary.LittleEndian.AppendUint64(nil, regs[index(p)])[:p.Size]
				if w := want[p.Offset:][:p.Size]; !slices.Equal(got, w) {
					t.Errorf("%s: argument %d: %v has %x, want %x", name, i, p, got, w)
				}
			}
		}
	}
}

func checkResult(t *testing.T, name string, sig *signature, part []string) {
	t.Helper()
	want, regs := unhex(t, part[0]), wordsOf(t, part[1])
	place := Result(sig.result)
	switch place.Kind {
	case Unclear:
		t.Errorf("%s: result: %s", name, place.Why)
	case Nowhere:
		if len(want) > 0 {
			t.Errorf("%s: result: nowhere, has %d bytes", name, len(want))
		}
	case Indirect:
		// The program shows memory if rax has the address that it passed in rdi. A
		// String's address is another's than that which is shown.
		if part[2] == "." {
			t.Errorf("%s: result: rax has not its address", name)
		} else if got := unhex(t, part[2])[:len(want)]; !strings.Contains(sig.result.Name, "String") && !slices.Equal(got, want) {
			t.Errorf("%s: result: %x, want %x", name, got, want)
		}
	case Direct:
		order := []location.Reg{location.RAX, location.RDX, location.XMM0, location.XMM1}
		for _, p := range place.Location.Pieces {
			if p.Kind == location.Constant {
				continue
			}
			got := binary.LittleEndian.AppendUint64(nil, regs[slices.Index(order, p.Reg)])[:p.Size]
			if w := want[p.Offset:][:p.Size]; !slices.Equal(got, w) {
				t.Errorf("%s: result: %v has %x, want %x", name, p, got, w)
			}
		}
	}
}
