package dwarf

import "fmt"

// Str is a string that has not been looked at: where it stands in the sections of Data, the
// linked file's or a split one's. 0 is no string.
type Str uint64

// A Str is the kind of the section in the highest two bits, the number of the Sections in
// the next 20, and an offset in the section.
const (
	strNone = iota
	strStr
	strLine
	strInfo

	strOffsetBits = 42
	strFileBits   = 20
)

func (u *Unit) makeStr(kind, off uint64) Str {
	if off >= 1<<strOffsetBits || u.key.file >= 1<<strFileBits {
		return 0
	}
	return Str(kind<<62 | uint64(u.key.file)<<strOffsetBits | off)
}

// Str is the text of a string, "" if it is none or does not end. It shares the section's
// memory.
func (d *Data) Str(s Str) string { return text(d.str(s)) }

func (d *Data) str(s Str) []byte {
	if s == 0 {
		return nil
	}
	off, file := uint64(s)&(1<<strOffsetBits-1), int(s>>strOffsetBits)&(1<<strFileBits-1)
	if file >= len(d.sections) {
		return nil
	}
	switch in := d.sections[file]; s >> 62 {
	case strStr:
		return cstring(in.Str, off)
	case strLine:
		return cstring(in.LineStr, off)
	case strInfo:
		return cstring(in.Info, off)
	}
	return nil
}

// Num is a value of which all is a number: U as in Val, but of a string its Str, and what
// stands there of a value of unknown class. Blocks have only their class.
type Num struct {
	Class Class
	U     uint64
}

// number decodes a value at pos, which is within the unit.
func (u *Unit) number(f Form, implicit int64, size int8, pos uint64) Num {
	if size >= 0 && uint64(size) > uint64(len(u.info))-pos {
		return Num{}
	}
	rest := u.info[pos:]
	var n uint64
	if size > 0 && size <= 8 {
		n = word(rest[:size])
	}
	switch f {
	case FormAddr:
		return Num{ClassAddress, n}
	case FormData1, FormData2, FormData4, FormData8:
		return Num{ClassConst, n}
	case FormData16:
		return Num{ClassConst, word(rest[:8])}
	case FormImplicitConst:
		return Num{ClassConst, uint64(implicit)}
	case FormSdata:
		s, _ := sleb(rest)
		return Num{ClassConst, uint64(s)}
	case FormUdata:
		n, _ := uleb(rest)
		return Num{ClassConst, n}
	case FormFlag:
		return Num{ClassFlag, min(n, 1)}
	case FormFlagPresent:
		return Num{ClassFlag, 1}
	case FormBlock1, FormBlock2, FormBlock4, FormBlock:
		return Num{Class: ClassBlock}
	case FormExprloc:
		return Num{Class: ClassExpr}
	case FormRef1, FormRef2, FormRef4, FormRef8:
		return u.ref(n)
	case FormRefUdata:
		n, _ := uleb(rest)
		return u.ref(n)
	case FormRefAddr:
		// In a package it is not said from where the offset counts.
		if n < uint64(len(u.s.Info)) && !u.packaged {
			return Num{ClassRef, n + uint64(u.shift)}
		}
	case FormRefSig8:
		if off, ok := u.data.types[n]; ok {
			return Num{ClassRef, uint64(off)}
		}
	case FormSecOffset:
		return Num{ClassSecOffset, n}
	case FormLoclistx, FormRnglistx:
		n, _ := uleb(rest)
		return Num{ClassIndex, n}
	case FormString:
		return Num{ClassString, uint64(u.makeStr(strInfo, pos))}
	case FormStrp:
		return Num{ClassString, uint64(u.makeStr(strStr, n))}
	case FormLineStrp:
		return Num{ClassString, uint64(u.makeStr(strLine, n))}
	case FormStrx1, FormStrx2, FormStrx3, FormStrx4:
		return u.strX(n)
	case FormStrx, FormGNUStrIndex:
		n, _ := uleb(rest)
		return u.strX(n)
	case FormAddrx1, FormAddrx2, FormAddrx3, FormAddrx4:
		return u.addrX(n)
	case FormAddrx, FormGNUAddrIndex:
		n, _ := uleb(rest)
		return u.addrX(n)
	case FormIndirect:
		if real, size, at, ok := u.indirect(pos); ok {
			return u.number(real, 0, size, at)
		}
	}
	return Num{U: n}
}

// indirect reads the form that stands before its value.
func (u *Unit) indirect(pos uint64) (real Form, size int8, at uint64, ok bool) {
	n, k := uleb(u.info[pos:])
	real = Form(n)
	size, ok = formSize(real, u.key)
	return real, size, pos + uint64(k), ok && k > 0 && n <= 0xffff && real != FormIndirect && real != FormImplicitConst
}

func (u *Unit) ref(off uint64) Num {
	if off < uint64(u.End-u.Offset) {
		return Num{ClassRef, uint64(u.Offset) + off}
	}
	return Num{}
}

func (u *Unit) addrX(index uint64) Num {
	if a, err := u.AddrX(index); err == nil {
		return Num{ClassAddress, a}
	}
	return Num{}
}

// strX is the string with the given index in .debug_str_offsets.
func (u *Unit) strX(index uint64) Num {
	b := u.bases()
	if !b.strOK {
		return Num{}
	}
	size := 4
	if u.Format64 {
		size = 8
	}
	s := element(u.s.StrOffsets, b.str, index, size)
	if s == nil {
		return Num{}
	}
	return Num{ClassString, uint64(u.makeStr(strStr, word(s)))}
}

// AttrSet is a set of attributes of the standard, and of DW_AT_MIPS_linkage_name.
type AttrSet [3]uint64

// Attrs makes a set of attributes, of the standard's below 0xbf.
func Attrs(attrs ...Attr) (s AttrSet) {
	for _, a := range attrs {
		i := a
		if a == AttrMIPSLinkageName {
			i = attrMIPS
		} else if a >= attrMIPS {
			panic(fmt.Sprintf("dwarf: %v in a set", a))
		}
		s[i>>6] |= 1 << (i & 63)
	}
	return s
}

// attrMIPS stands for DW_AT_MIPS_linkage_name in a set.
const attrMIPS = 0xbf

// Has reports whether a is in the set.
func (s *AttrSet) Has(a Attr) bool {
	if a >= attrMIPS {
		if a != AttrMIPSLinkageName {
			return false
		}
		a = attrMIPS
	}
	return s[a>>6]>>(a&63)&1 != 0
}

// Pick calls f with the attributes of a set that the entry has, in the order of the file.
// It is for those who go through many entries: no string is read.
func (e *Entry) Pick(set *AttrSet, f func(Attr, Num)) {
	pos := e.pos
	for i := range e.ab.specs {
		s := &e.ab.specs[i]
		if set.Has(s.attr) {
			f(s.attr, e.Unit.number(s.form, s.implicit, s.size, pos))
		}
		if s.size >= 0 {
			pos += uint64(s.size)
			continue
		}
		next, ok := skipForm(e.Unit.info, pos, s.form, e.Unit.key)
		if !ok { // read has been over it
			return
		}
		pos = next
	}
}
