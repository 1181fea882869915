package debugfmt

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
)

// appendInt appends the little-endian integer in b, of 1, 2, 4, 8 or 16 bytes.
func appendInt(dst, b []byte, signed bool) []byte {
	if len(b) == 16 {
		v := new(big.Int).SetUint64(binary.LittleEndian.Uint64(b[8:]))
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(binary.LittleEndian.Uint64(b)))
		if signed && b[15]&0x80 != 0 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), 128))
		}
		return v.Append(dst, 10)
	}
	v := uintOf(b)
	if signed {
		shift := 64 - 8*len(b)
		return strconv.AppendInt(dst, int64(v<<shift)>>shift, 10)
	}
	return strconv.AppendUint(dst, v, 10)
}

// uintOf is the little-endian integer in the first 8 bytes of b at most.
func uintOf(b []byte) uint64 {
	var v uint64
	for i := min(len(b), 8) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

// appendFloat appends a float as {:?} does: the shortest digits that read back
// as the same value, with at least one decimal, and as mantissa and exponent
// from 1e16 on and below 1e-4 (core::fmt::float, float_to_general_debug).
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "inf"...)
	case math.IsInf(v, -1):
		return append(dst, "-inf"...)
	}
	low, high := 1e-4, 1e16
	if bits == 32 {
		low, high = float64(float32(low)), float64(float32(high))
	}
	if a := math.Abs(v); a != 0 && a < low || a >= high {
		s := strconv.FormatFloat(v, 'e', -1, bits)
		for i := range s {
			if s[i] == 'e' {
				exp, _ := strconv.Atoi(s[i+1:])
				return strconv.AppendInt(append(dst, s[:i+1]...), int64(exp), 10)
			}
		}
	}
	s := strconv.FormatFloat(v, 'f', -1, bits)
	dst = append(dst, s...)
	for i := range s {
		if s[i] == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}
