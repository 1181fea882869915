// Package jit compiles eBPF to x86-64 machine code that can be placed at any
// address of any process.
//
// # Registers
//
// As in the kernel's JIT, eBPF's registers live in machine registers throughout:
//
//	r0  rax    result, as in the System V ABI
//	r1  rdi    arguments, as in the System V ABI, so that calls of helpers and
//	r2  rsi    functions move nothing
//	r3  rdx
//	r4  rcx
//	r5  r8
//	r6  rbx    callee-saved in eBPF and in the System V ABI
//	r7  r13
//	r8  r14
//	r9  r15
//	r10 rbp    the frame's top
//
// r9, r10 and r11 are scratch; r12 is not used. So a program is a System V function
// of the context: callee-saved registers it restores itself, and the trampoline has
// to save those of Entry.Clobbers only. xmm registers are never touched.
//
// # What the image needs
//
// The code refers to two pieces of memory by absolute address, which Link fills in:
// the memory shared with the tracer (package shm), and the process block
// (shm.Process), which is private to the traced process. Nothing else is referred
// to; the code holds no data and needs no write access to itself.
//
// Loads and stores of a program are not checked: it is the verifier's business, or
// the code generator's, that they are right. Helpers that read foreign memory do so
// by plain instructions that are listed in Image.Fixups.
package jit

import (
	"encoding/binary"
	"fmt"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"
)

// Symbols of relocations.
const (
	Shared  = iota // the base of the shared memory
	Process        // the process block
)

// Options of a compilation.
type Options struct {
	// Layout says where the maps are; nil if there are none.
	Layout *shm.Layout
	// RDPID says that the processor has this instruction.
	RDPID bool
}

// Image is the machine code of some programs with the routines they share.
type Image struct {
	// Code has zero-based addresses; see Link.
	Code []byte
	// Relocs are the words that take the address of Shared or Process.
	Relocs []asm.Reloc
	// Fixups are the loads and stores that may fault, by Start.
	Fixups []Fixup
	// Entries are the programs by their names.
	Entries map[string]Entry
}

// Fixup says that a fault of an instruction in [Start, End) is to be continued at
// Target with all registers as they are. All are offsets in Code.
type Fixup struct{ Start, End, Target int }

// Entry is where a program begins, and what it needs and leaves.
type Entry struct {
	// Offset in Code. The function takes the address of the context in rdi and
	// returns in rax.
	Offset int
	// Clobbers are the registers that it does not restore. Flags are lost too.
	Clobbers asm.RegSet
	// Stack is the number of bytes below the return address that it may use.
	Stack int
	// Context is what it reads of its context.
	Context Context
}

// Compile compiles programs. What is not supported is refused, by name.
func Compile(progs []*insn.Program, o Options) (*Image, error) {
	c := &compiler{o: o, routines: make(map[routine]asm.Label)}
	im := &Image{Entries: make(map[string]Entry)}
	for _, p := range progs {
		if _, ok := im.Entries[p.Name]; ok {
			return nil, fmt.Errorf("%w: two programs are called %q", insn.ErrRefused, p.Name)
		}
		e, err := c.program(p)
		if err != nil {
			if p.Name != "" {
				err = fmt.Errorf("%s: %w", p.Name, err)
			}
			return nil, err
		}
		im.Entries[p.Name] = e
	}
	c.emitRoutines()
	var err error
	if im.Code, im.Relocs, err = c.a.Finish(); err != nil {
		return nil, err
	}
	for _, f := range c.fixups {
		im.Fixups = append(im.Fixups, Fixup{c.a.Offset(f.start), c.a.Offset(f.end), c.a.Offset(f.target)})
	}
	return im, nil
}

// Link returns the code with the absolute addresses filled in. It may be placed at
// any address: what it refers to of itself is relative.
func (im *Image) Link(shared, process uint64) []byte {
	code := append([]byte(nil), im.Code...)
	for _, r := range im.Relocs {
		base := shared
		if r.Symbol == Process {
			base = process
		}
		word := code[r.Offset:]
		binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)+base)
	}
	return code
}
