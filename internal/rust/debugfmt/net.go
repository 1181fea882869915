package debugfmt

import (
	"math/bits"
	"net/netip"
	"strconv"

	"ferrotrace/internal/rust/types"
)

// addr reads an Ipv4Addr or Ipv6Addr. If its bytes are not known the text says why.
func (p *printer) addr(t *types.Type, v view) (a netip.Addr, known, is bool) {
	// Before 1.69 or so they were those of C.
	octets, v := firstAt(t, v, "octets", "inner", "s6_addr", "s_addr")
	octets, v = firstAt(octets, v, "s6_addr", "s_addr")
	if octets == nil || octets.Size != 4 && octets.Size != 16 {
		return a, false, false
	}
	if s, why := v.state(octets.Size); s != whole {
		p.missing(why)
		return a, false, true
	}
	a, known = netip.AddrFromSlice(v.bytes[:octets.Size])
	p.known = true
	return a, known, true
}

func (p *printer) ip(t *types.Type, v view, _ int) bool {
	a, known, is := p.addr(t, v)
	if known {
		p.str(a.String())
	}
	return is
}

// firstAt is the first of the fields of t that is there; t itself if none is.
func firstAt(t *types.Type, v view, names ...string) (*types.Type, view) {
	for _, name := range names {
		if f, at := at(t, v, name); f != nil {
			return f, at
		}
	}
	return t, v
}

func (p *printer) socket(t *types.Type, v view, _ int) bool {
	fields := []string{"ip", "port", "scope_id"}
	if c, atC := at(t, v, "inner"); c != nil { // C's, where the port is big endian
		t, v = c, atC
		fields = []string{"sin_addr", "sin_port", "sin6_scope_id"}
		if six, _ := at(t, v, "sin6_addr"); six != nil {
			fields = []string{"sin6_addr", "sin6_port", "sin6_scope_id"}
		}
	}
	ip, atIP := at(t, v, fields[0])
	port, ok := inner(t, v, 2, fields[1])
	if ip == nil || !ok || ip.Size != 4 && ip.Size != 16 {
		return false
	}
	scope, six := inner(t, v, 4, fields[2])
	if six != (ip.Size == 16) {
		return false
	}
	if six {
		p.str("[")
	}
	if a, known, _ := p.addr(ip, atIP); known {
		p.str(a.String())
	}
	if six {
		if n, ok := p.uint(scope, 0, 4); ok && n != 0 {
			p.str("%")
			p.out = appendInt(p.out, scope.bytes[:4], false)
		}
		p.str("]")
	}
	p.str(":")
	if n, ok := p.uint(port, 0, 2); ok {
		if fields[1] != "port" {
			n = uint64(bits.ReverseBytes16(uint16(n)))
		}
		p.out = strconv.AppendUint(p.out, n, 10)
	}
	return true
}
