package demangle

import (
	"math/bits"
	"unicode/utf8"
)

// maxPunycode is how many characters an identifier with Punycode may have; a
// longer one is shown encoded, as rustc-demangle does.
const maxPunycode = 128

// decode decodes the identifier (RFC 3492, with 'A'–'Z' absent and the last
// '_' as delimiter, RFC 2603) into buf. It fails on text that is not Punycode
// or too long.
func (id ident) decode(buf *[maxPunycode]rune) ([]rune, bool) {
	const (
		base, tMin, tMax = 36, 1, 26
		skew             = 38
	)
	if len(id.ascii) > len(buf) {
		return nil, false
	}
	out := buf[:0]
	for _, c := range []byte(id.ascii) {
		out = append(out, rune(c))
	}
	var (
		damp, bias, i uint64 = 700, 72, 0
		n             uint64 = utf8.RuneSelf
	)
	for s := id.punycode; s != ""; {
		// One delta, a number of variable length.
		var delta, w uint64 = 0, 1
		for k := uint64(base); ; k += base {
			if s == "" {
				return nil, false
			}
			c := s[0]
			s = s[1:]
			var d uint64
			switch {
			case 'a' <= c && c <= 'z':
				d = uint64(c - 'a')
			case '0' <= c && c <= '9':
				d = uint64(c-'0') + 26
			default:
				return nil, false
			}
			hi, lo := bits.Mul64(d, w)
			sum, carry := bits.Add64(delta, lo, 0)
			if hi != 0 || carry != 0 {
				return nil, false
			}
			delta = sum
			t := uint64(tMin)
			if k > bias {
				t = min(max(k-bias, tMin), tMax)
			}
			if d < t {
				break
			}
			if hi, w = bits.Mul64(w, base-t); hi != 0 {
				return nil, false
			}
		}
		// It says which character comes next and where it goes.
		size := uint64(len(out)) + 1
		sum, carry := bits.Add64(i, delta, 0)
		if carry != 0 {
			return nil, false
		}
		if n, carry = bits.Add64(n, sum/size, 0); carry != 0 || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
			return nil, false
		}
		i = sum % size
		if len(out) == len(buf) {
			return nil, false
		}
		out = out[:len(out)+1]
		copy(out[i+1:], out[i:])
		out[i] = rune(n)
		i++
		// Bias adaptation, RFC 3492 §6.1.
		delta /= damp
		damp = 2
		delta += delta / size
		k := uint64(0)
		for delta > (base-tMin)*tMax/2 {
			delta /= base - tMin
			k += base
		}
		bias = k + (base-tMin+1)*delta/(delta+skew)
	}
	return out, true
}
