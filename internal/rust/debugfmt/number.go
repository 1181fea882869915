package debugfmt

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
	"strings"
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
	if math.Signbit(v) {
		dst, v = append(dst, '-'), -v
	}
	digits, exp := shortest(v, bits)
	if v != 0 && v < low || v >= high {
		dst = append(dst, digits[0])
		if len(digits) > 1 {
			dst = append(append(dst, '.'), digits[1:]...)
		}
		return strconv.AppendInt(append(dst, 'e'), int64(exp), 10)
	}
	// The digits before the point are those up to exp.
	for i := min(exp, 0); i < len(digits) || i <= exp+1; i++ {
		if i == exp+1 {
			dst = append(dst, '.')
		}
		if i < 0 || i >= len(digits) {
			dst = append(dst, '0')
		} else {
			dst = append(dst, digits[i])
		}
	}
	return dst
}

// shortest is the shortest decimal that reads back as v, as digits of which the
// first has the weight 10^exp. Where two are equally near, core::num::flt2dec takes
// the greater, strconv the even one.
func shortest(v float64, bits int) (digits []byte, exp int) {
	digits, exp = split(strconv.FormatFloat(v, 'e', -1, bits))
	n := len(digits)
	// Equally near: v is the digits of the lesser, a 5 and nothing more.
	exact, _ := split(strconv.FormatFloat(v, 'e', n+32, 64))
	if exact[n] != '5' || len(bytes.TrimRight(exact[n+1:], "0")) > 0 {
		return digits, exp
	}
	up := bytes.Clone(exact[:n])
	if up[n-1]++; up[n-1] > '9' {
		return digits, exp // there would be a shorter one
	}
	s := string(up[:1]) + "." + string(up[1:]) + "e" + strconv.Itoa(exp)
	if w, err := strconv.ParseFloat(s, bits); err == nil && w == v {
		return up, exp
	}
	return digits, exp
}

// split takes "d.ddde±dd" apart.
func split(s string) (digits []byte, exp int) {
	mantissa, e, _ := strings.Cut(s, "e")
	exp, _ = strconv.Atoi(e)
	return []byte(strings.Replace(mantissa, ".", "", 1)), exp
}
