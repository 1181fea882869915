package x86

import (
	"bufio"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestObjdump compares the length of every instruction, and the kind and target
// of every branch, with what GNU objdump says, over the executable sections of
// the files named in X86_OBJDUMP_FILES (separated by spaces), by default of the C
// library.
func TestObjdump(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump is missing: instruction lengths are not compared with it")
	}
	files := strings.Fields(os.Getenv("X86_OBJDUMP_FILES"))
	if len(files) == 0 {
		if testing.Short() {
			t.Skip("-short")
		}
		for _, pattern := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"} {
			m, _ := filepath.Glob(pattern)
			files = append(files, m...)
		}
		if len(files) == 0 {
			t.Skip("no C library found to compare with objdump")
		}
		files = files[:1]
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { compareObjdump(t, objdump, f) })
	}
}

func compareObjdump(t *testing.T, objdump, file string) {
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_EXECINSTR == 0 {
			continue
		}
		code, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(objdump, "-d", "-w", "-z", "--no-show-raw-insn", "-j", s.Name, file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 1<<20)
		var prev uint64
		var text string
		have, n, bad, failures := false, 0, 0, 0
		check := func(next uint64) {
			if strings.Contains(text, "(bad)") || strings.HasPrefix(text, ".byte") { // data, or a symbol inside an instruction
				bad++
				return
			}
			n++
			if msg := compareOne(code[prev-s.Addr:], prev, int(next-prev), text); msg != "" {
				failures++
				if failures < 60 {
					t.Errorf("%s %#x: %s; objdump: %s; bytes % x", s.Name, prev, msg, text, code[prev-s.Addr:min(next+2-s.Addr, uint64(len(code)))])
				}
			}
		}
		for sc.Scan() {
			line := sc.Text()
			a, rest, ok := strings.Cut(line, ":\t")
			if !ok {
				continue
			}
			addr, err := strconv.ParseUint(strings.TrimSpace(a), 16, 64)
			if err != nil || addr < s.Addr || addr >= s.Addr+s.Size {
				continue
			}
			if have {
				check(addr)
			}
			prev, text, have = addr, rest, true
		}
		if have {
			check(s.Addr + s.Size)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes, %d instructions, %d differ, %d (bad)", s.Name, len(code), n, failures, bad)
	}
}

// compareOne returns how Decode differs from objdump's text, "" if it does not.
func compareOne(code []byte, addr uint64, size int, text string) string {
	in, err := Decode(code, addr)
	if err != nil {
		if code[0] == 0x8f && code[1]&0x38 != 0 {
			return "" // XOP, refused
		}
		return err.Error()
	}
	if in.Len != size {
		// objdump folds fwait into the instruction after it, and prints
		// prefixes that it finds useless as instructions of their own.
		if code[0] == 0x9b && in.Len == 1 {
			return ""
		}
		return "length " + strconv.Itoa(in.Len) + ", want " + strconv.Itoa(size)
	}
	words := strings.Fields(text)
	for len(words) > 1 {
		switch w := words[0]; {
		case w == "bnd", w == "notrack", w == "data16", w == "repz", w == "repnz", w == "cs", w == "ds", w == "addr32", strings.HasPrefix(w, "rex"), w == "lock", w == "es", w == "ss", w == "fs", w == "gs", w == "xacquire", w == "xrelease":
			words = words[1:]
			continue
		}
		break
	}
	mn := strings.TrimSuffix(strings.TrimSuffix(words[0], ",pn"), ",pt")
	kind, target := Other, uint64(0)
	operand := ""
	if len(words) > 1 {
		operand = words[1]
	}
	indirect := strings.HasPrefix(operand, "*")
	switch {
	case mn == "ret" || mn == "retq" || mn == "iret" || mn == "lret" || mn == "iretq":
		kind = Ret
	case mn == "jmp" && indirect, mn == "ljmp":
		kind = JmpIndirect
	case mn == "jmp":
		kind = Jmp
	case mn == "call" && indirect, mn == "lcall":
		kind = CallIndirect
	case mn == "call":
		kind = Call
	case mn[0] == 'j' || strings.HasPrefix(mn, "loop") || mn == "xbegin":
		kind = Jcc
	case mn == "push" || mn == "pushf":
		kind = Push
	case mn == "pop" || mn == "popf":
		kind = Pop
	case mn == "ud2" || mn == "int3" || mn == "hlt" || mn == "ud0" || mn == "ud1" || mn == "int1":
		kind = Trap
	case mn == "leave":
		kind = Leave
	}
	switch in.Kind {
	case Ret, Jmp, Jcc, JmpIndirect, Call, CallIndirect, Push, Pop, Trap, Leave:
		if in.Kind != kind {
			return "kind " + in.Kind.String()
		}
	default:
		if kind != Other {
			return "kind " + in.Kind.String() + ", want " + kind.String()
		}
	}
	switch kind {
	case Jmp, Jcc, Call:
		target, _ = strconv.ParseUint(operand, 16, 64)
		if target != in.Target {
			return "target " + strconv.FormatUint(in.Target, 16)
		}
	}
	if i := strings.Index(text, "# "); i >= 0 && strings.Contains(text, "(%rip)") {
		v, _, _ := strings.Cut(text[i+2:], " ")
		if target, err := strconv.ParseUint(v, 16, 64); err == nil && target != in.Mem.Target {
			return "rip-relative " + strconv.FormatUint(in.Mem.Target, 16)
		}
	}
	return ""
}
