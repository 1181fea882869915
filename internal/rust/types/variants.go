package types

import (
	"encoding/binary"
	"fmt"
	"strings"

	"ferrotrace/internal/dwarf"
)

// variants reads the DW_TAG_variant_part of an enum or coroutine, if e has one.
func (r *Reader) variants(t *Type, e *dwarf.Entry) error {
	return r.children(e, func(part *dwarf.Entry) error {
		if part.Tag != dwarf.TagVariantPart {
			return nil
		}
		if t.Enum != nil {
			return fmt.Errorf("%w: a type with two variant parts", dwarf.ErrDWARF)
		}
		t.Kind, t.Enum = Enum, &EnumInfo{}
		if off, ok := part.Ref(dwarf.AttrDiscr); ok {
			tag, err := r.discriminant(off)
			if err != nil {
				return err
			}
			t.Enum.Tag = tag
		}
		return r.children(part, func(v *dwarf.Entry) error {
			if v.Tag != dwarf.TagVariant {
				return nil
			}
			return r.variant(t, v, isCoroutine(e.Name()))
		})
	})
}

// discriminant is the artificial member that holds the tag.
func (r *Reader) discriminant(off dwarf.Offset) (*Discr, error) {
	m, err := r.d.Entry(off)
	if err != nil {
		return nil, err
	}
	at, err := memberOffset(m)
	if err != nil {
		return nil, err
	}
	ref, _ := m.Ref(dwarf.AttrType)
	return r.tag(at, ref)
}

// tag is a discriminant of the integer type at off.
func (r *Reader) tag(at int64, off dwarf.Offset) (*Discr, error) {
	e, err := r.d.Entry(off)
	if err != nil {
		return nil, err
	}
	n, err := size(e)
	if err != nil {
		return nil, err
	}
	if e.Tag != dwarf.TagBaseType {
		return nil, fmt.Errorf("%w: a discriminant of a type that is %v", dwarf.ErrDWARF, e.Tag)
	}
	switch n {
	case 1, 2, 4, 8, 16:
	default:
		return nil, fmt.Errorf("%w: a discriminant of %d bytes", dwarf.ErrDWARF, n)
	}
	enc, _ := e.Uint(dwarf.AttrEncoding)
	return &Discr{at, int(n), enc == dwarf.EncSigned || enc == dwarf.EncSignedChar}, nil
}

func (r *Reader) variant(t *Type, v *dwarf.Entry, state bool) error {
	variant := Variant{}
	if t.Enum.Tag != nil {
		values, err := discrValues(v, t.Enum.Tag)
		if err != nil {
			return err
		}
		variant.Values = values
	}
	err := r.children(v, func(m *dwarf.Entry) error {
		if m.Tag != dwarf.TagMember || variant.Type != nil {
			return nil
		}
		off, err := memberOffset(m)
		if err != nil {
			return err
		}
		// A coroutine's variants are named by numbers; their types by what they are.
		variant.Name = strings.Clone(m.String(dwarf.AttrName))
		variant.Type = r.ref(m)
		if state {
			variant.File, variant.Line = decl(m)
		}
		variant.Fields = []Field{{Offset: off}} // until finish knows the type's
		return nil
	})
	if err != nil {
		return err
	}
	if variant.Type == nil {
		return fmt.Errorf("%w: a variant without a type", dwarf.ErrDWARF)
	}
	t.Enum.Variants = append(t.Enum.Variants, variant)
	return nil
}

// discrValues are the values of the tag that select a variant: DW_AT_discr_value,
// or DW_AT_discr_list (DWARF 5 §5.7.10).
func discrValues(v *dwarf.Entry, tag *Discr) ([]Interval, error) {
	if v.Has(dwarf.AttrDiscrList) {
		return nil, fmt.Errorf("%w: a list of discriminants", dwarf.ErrDWARF)
	}
	if !v.Has(dwarf.AttrDiscrValue) {
		return nil, nil
	}
	value, err := constant(v, dwarf.AttrDiscrValue, tag)
	if err != nil {
		return nil, err
	}
	return []Interval{{value, value}}, nil
}

// constant is a value of the tag's type, masked to its width. rustc writes what
// exceeds 64 bits as a block. LLVM writes others in the shortest form in which
// they fit as the type's numbers do, so that 0xfe is -2 of an i16.
func constant(e *dwarf.Entry, attr dwarf.Attr, tag *Discr) (U128, error) {
	v, _ := e.Val(attr)
	if b := v.B; v.Class == dwarf.ClassBlock || v.Class == dwarf.ClassConst && b != nil {
		if len(b) > 16 {
			return U128{}, fmt.Errorf("%w: a discriminant of %d bytes", dwarf.ErrDWARF, len(b))
		}
		var full [16]byte
		copy(full[:], b)
		return U128{binary.LittleEndian.Uint64(full[8:]), binary.LittleEndian.Uint64(full[:])}.mask(tag.Size), nil
	}
	var u U128
	if tag.Signed {
		n, ok := e.Int(attr)
		if !ok {
			return U128{}, fmt.Errorf("%w: a discriminant that is no constant", dwarf.ErrDWARF)
		}
		u = U128{uint64(n >> 63), uint64(n)}
	} else {
		n, ok := e.Uint(attr)
		if !ok {
			return U128{}, fmt.Errorf("%w: a discriminant that is no constant", dwarf.ErrDWARF)
		}
		u = U128{0, n}
	}
	return u.mask(tag.Size), nil
}

// enumeration reads a C-like enum.
func (r *Reader) enumeration(t *Type, e *dwarf.Entry) error {
	t.Kind = Enum
	t.Enum = &EnumInfo{CLike: true}
	ref, ok := e.Ref(dwarf.AttrType)
	if !ok {
		return fmt.Errorf("%w: an enumeration without a type", dwarf.ErrDWARF)
	}
	tag, err := r.tag(0, ref)
	if err != nil {
		return err
	}
	t.Enum.Tag = tag
	return r.children(e, func(v *dwarf.Entry) error {
		if v.Tag != dwarf.TagEnumerator {
			return nil
		}
		value, err := constant(v, dwarf.AttrConstValue, tag)
		if err != nil {
			return err
		}
		t.Enum.Variants = append(t.Enum.Variants, Variant{
			Name: strings.Clone(v.String(dwarf.AttrName)), Values: []Interval{{value, value}}})
		return nil
	})
}
