package debugfmt_test

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/debugfmt"
	"ferrotrace/internal/rust/types"
)

// Rust itself says what {:?} prints: testdata/values.rs prints many values, which
// are then read from its memory as a tracer would.
func TestAgainstRust(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles programs")
	}
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("no rustc")
	}
	// For go test's cache, which does not see what rustc reads.
	if _, err := os.Stat("testdata/values.rs"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, toolchain string
		flags           []string
	}{
		{"debug", "", nil},
		{"release", "", []string{"-O", "-Cdwarf-version=5"}},
		{"nightly", "+nightly", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"--edition=2021", "-g", "-o", filepath.Join(t.TempDir(), "values")}, c.flags...)
			if c.toolchain != "" {
				if exec.Command(rustc, c.toolchain, "--version").Run() != nil {
					t.Skip("no toolchain " + c.toolchain)
				}
				args = append([]string{c.toolchain}, args...)
			}
			if out, err := exec.Command(rustc, append(args, "testdata/values.rs")...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			compareValues(t, args[len(args)-len(c.flags)-1])
		})
	}
}

func compareValues(t *testing.T, file string) {
	probes, bias := probesOf(t, file)
	cmd := exec.Command(file)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil {
		t.Skip(err) // ptrace is forbidden
	}
	defer mem.Close()
	var lines []string
	scan := bufio.NewScanner(stdout)
	for scan.Scan() && scan.Text() != "end" {
		lines = append(lines, scan.Text())
	}
	if len(lines) < 200 {
		t.Fatalf("%d values", len(lines))
	}
	slide := bias(cmd.Process.Pid)
	opts := debugfmt.Options{MaxStr: 256, MaxItems: 64, Depth: 8}
	missing, compared := 0, 0
	for _, line := range lines {
		part := strings.Split(line, "\t")
		fn, _ := strconv.ParseUint(part[0], 0, 64)
		addr, _ := strconv.ParseUint(part[1], 0, 64)
		ty := probes[fn-slide]
		if ty == nil {
			missing++
			t.Logf("no probe for %s", line)
			continue
		}
		bytes := make([]byte, ty.Size)
		if _, err := mem.ReadAt(bytes, int64(addr)); err != nil && ty.Size > 0 {
			t.Fatal(err)
		}
		m := captured{map[capturedKey][]byte{}, slide}
		m.follow(mem, ty, bytes, 0)
		got := debugfmt.Format(debugfmt.Value{Type: ty, Bytes: bytes}, m, opts)
		want := debugfmt.Result{Text: part[2], Partial: strings.Contains(part[2], "<unreadable>")}
		if got != want {
			t.Errorf("%s\n got %+v\nwant %+v", ty.Name, got, want)
		}
		if len(part) < 4 {
			continue
		}
		compared++
		pretty := opts
		pretty.Pretty = true
		got = debugfmt.Format(debugfmt.Value{Type: ty, Bytes: bytes}, m, pretty)
		if want.Text = strings.ReplaceAll(part[3], "\x01", "\n"); got != want {
			t.Errorf("%s, pretty\n got %+v\nwant %+v", ty.Name, got, want)
		}
	}
	if compared < 200 {
		t.Errorf("only %d values were compared as {:#?} has them", compared)
	}
	if missing > len(lines)/20 {
		t.Errorf("%d of %d values have no probe", missing, len(lines))
	}
}

// captured is memory as records hold it: only what edges lead to.
type captured struct {
	regions map[capturedKey][]byte
	slide   uint64
}

type capturedKey struct {
	elem *types.Type
	addr uint64
}

func (c captured) Region(t *types.Type, addr uint64) (debugfmt.Region, bool) {
	b, ok := c.regions[capturedKey{t, addr}]
	return debugfmt.Region{Bytes: b}, ok
}

func (c captured) Object(t *types.Type, vtable uint64) (*types.Type, bool) {
	for _, impl := range t.Impls() {
		if impl.VTable == vtable-c.slide {
			return impl.Type, true
		}
	}
	return nil, true
}

func (c captured) follow(mem io.ReaderAt, t *types.Type, b []byte, depth int) {
	edges, _ := t.Edges()
	for _, e := range edges {
		if !holds(e.Guards, b) || depth > 200 {
			continue
		}
		word := func(off int64) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
		addr, n := word(e.Ptr)+uint64(e.Add), uint64(1)
		elem := e.Elem
		switch {
		case elem.Object():
			if elem, _ = c.Object(elem, word(e.Len)); elem == nil {
				continue
			}
		case e.Len >= 0:
			n = word(e.Len)
		}
		size := uint64(elem.Size)
		switch room := uint64(0); e.Part {
		case types.RingFirst:
			room = word(e.Cap) - word(e.Head)
			addr, n = addr+word(e.Head)*size, min(n, room)
		case types.RingRest:
			room = word(e.Cap) - word(e.Head)
			n -= min(n, room)
		}
		if n == 0 || n > 1<<16 {
			continue
		}
		key, start, total := capturedKey{elem, addr}, addr, n*size
		table := elem.Std != nil && elem.Std.Kind == types.Bucket
		if table {
			n++
			start, total = addr-n*size, n*(size+1)
		}
		target := make([]byte, total)
		if _, err := mem.ReadAt(target, int64(start)); err != nil || len(c.regions[key]) >= len(target) {
			continue
		}
		c.regions[key] = target
		for i := range n {
			if table && target[total-1-i] > 0x7f {
				continue
			}
			c.follow(mem, elem, target[i*size:][:size], depth+1)
		}
	}
}

func holds(guards []types.Guard, b []byte) bool {
	for _, g := range guards {
		var full [16]byte
		copy(full[:], b[g.Off:][:g.Size])
		v := types.U128{Lo: binary.LittleEndian.Uint64(full[:]), Hi: binary.LittleEndian.Uint64(full[8:])}
		if g.Mask != 0 {
			v.Lo &= uint64(g.Mask)
		}
		in := false
		for _, w := range g.Want {
			in = in || w.Contains(v)
		}
		if in == g.Not {
			return false
		}
	}
	return true
}

// image is the memory of a file as linked.
func image(f *elf.File) func(addr uint64) []byte {
	var loaded []elf.ProgHeader
	var contents [][]byte
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			b, _ := io.ReadAll(p.Open())
			loaded, contents = append(loaded, p.ProgHeader), append(contents, b)
		}
	}
	return func(addr uint64) []byte {
		for i, p := range loaded {
			if p.Vaddr <= addr && addr < p.Vaddr+p.Filesz {
				return contents[i][addr-p.Vaddr:]
			}
		}
		return nil
	}
}

// probesOf finds the instances of probe in a program, and the type of value that
// each is for; bias is the distance between addresses in the file and in a process.
func probesOf(t *testing.T, file string) (probes map[uint64]*types.Type, bias func(pid int) uint64) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := func(name string) []byte {
		if s := f.Section(name); s != nil {
			b, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		return nil
	}
	d, err := dwarf.New(dwarf.Sections{
		Info: section(".debug_info"), Abbrev: section(".debug_abbrev"), Str: section(".debug_str"), LineStr: section(".debug_line_str"),
		StrOffsets: section(".debug_str_offsets"), Addr: section(".debug_addr"), Line: section(".debug_line"),
	})
	if err != nil {
		t.Fatal(err)
	}
	probes = map[uint64]*types.Type{}
	r := types.NewReader(d, types.Image{Bytes: image(f), GNU: func() bool { return true }})
	for _, u := range d.Units() {
		c := u.Cursor(0)
		var fn uint64
		for c.Next() {
			e := c.Entry()
			switch e.Tag {
			case dwarf.TagSubprogram:
				fn, _ = e.Addr(dwarf.AttrLowPC)
				if !strings.HasPrefix(e.Name(), "probe<") && !strings.HasPrefix(e.Name(), "probe_as<") {
					fn = 0
				}
			case dwarf.TagFormalParameter:
				if fn == 0 {
					continue
				}
				off, _ := e.Ref(dwarf.AttrType)
				ty, err := r.Type(off)
				if err != nil {
					t.Fatal(err)
				}
				if ty.Kind != types.Pointer {
					t.Fatalf("%s is no pointer", ty.Name)
				}
				probes[fn] = ty.Pointer.Target
				fn = 0
			}
		}
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return probes, func(pid int) uint64 {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			t.Fatal(err)
		}
		// The first mapping is the file's first segment, which is linked at 0.
		start, _, _ := strings.Cut(string(maps), "-")
		v, err := strconv.ParseUint(start, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
