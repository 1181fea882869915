package location

import "strconv"

// Reg is a register by its DWARF number (psABI x86-64, figure 3.36).
type Reg uint8

const (
	RAX Reg = iota
	RDX
	RCX
	RBX
	RSI
	RDI
	RBP
	RSP
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	RA // the return address column of call frame information
	XMM0
	XMM1
	XMM2
	XMM3
	XMM4
	XMM5
	XMM6
	XMM7
	XMM8
	XMM9
	XMM10
	XMM11
	XMM12
	XMM13
	XMM14
	XMM15

	regEnd
)

// IsGeneral reports whether r is one of the 16 general registers.
func (r Reg) IsGeneral() bool { return r <= R15 }

// IsXMM reports whether r is a vector register.
func (r Reg) IsXMM() bool { return r >= XMM0 && r < regEnd }

// size is the number of bytes that can be had from r.
func (r Reg) size() int {
	if r.IsXMM() {
		return 16
	}
	return 8
}

var regNames = [16][4]string{
	{"al", "ax", "eax", "rax"}, {"dl", "dx", "edx", "rdx"},
	{"cl", "cx", "ecx", "rcx"}, {"bl", "bx", "ebx", "rbx"},
	{"sil", "si", "esi", "rsi"}, {"dil", "di", "edi", "rdi"},
	{"bpl", "bp", "ebp", "rbp"}, {"spl", "sp", "esp", "rsp"},
	{"r8b", "r8w", "r8d", "r8"}, {"r9b", "r9w", "r9d", "r9"},
	{"r10b", "r10w", "r10d", "r10"}, {"r11b", "r11w", "r11d", "r11"},
	{"r12b", "r12w", "r12d", "r12"}, {"r13b", "r13w", "r13d", "r13"},
	{"r14b", "r14w", "r14d", "r14"}, {"r15b", "r15w", "r15d", "r15"},
}

// String is the register's full name: "rdi", "xmm0".
func (r Reg) String() string { return r.Name(8) }

// Name is the name of the smallest part of r that holds size bytes: "dil", "di",
// "edi", "rdi", and "xmm0" for any size.
func (r Reg) Name(size int) string {
	switch {
	case r.IsXMM():
		return "xmm" + strconv.Itoa(int(r-XMM0))
	case r == RA:
		return "ra"
	case r > RA:
		return "reg" + strconv.Itoa(int(r))
	case size <= 1:
		return regNames[r][0]
	case size == 2:
		return regNames[r][1]
	case size <= 4:
		return regNames[r][2]
	}
	return regNames[r][3]
}
