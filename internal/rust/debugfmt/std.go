package debugfmt

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"ferrotrace/internal/rust/types"
)

// Containers of std: what hangs on their pointers.

func (p *printer) std(t *types.Type, v view, nesting int) {
	s := t.Std
	switch s.Kind {
	case types.Uninit:
		name := t.Name
		if !s.Path {
			name = name[max(0, strings.Index(name, "MaybeUninit")):]
		}
		p.str(printable(name))
		p.known = true
		return
	case types.Once:
		state, ok := p.uint(v, s.State, 4)
		if ok {
			p.cell(Ident(t.Name), state == s.Done, s.Item, v, nesting)
		}
		return
	}
	addr, ok := p.word(v, s.Ptr)
	if !ok {
		return
	}
	n := uint64(1)
	if s.Len >= 0 {
		if n, ok = p.word(v, s.Len); !ok {
			return
		}
	}
	switch s.Kind {
	case types.String:
		p.text(s.Elem, addr, n)
	case types.Vec:
		p.sequence(s.Elem, addr, n, nesting)
	case types.IOError:
		p.ioError(t, addr, nesting)
	case types.Shared:
		p.shared(s, addr+uint64(s.Add), n, nesting)
	case types.Ring:
		p.ring(s, v, addr, n, nesting)
	case types.Table:
		p.table(s, v, addr, n, nesting)
	case types.Tree:
		p.tree(s, v, addr, n, nesting)
	case types.Chain:
		p.chain(s, addr, n, nesting)
	default:
		p.missing("unsupported: " + printable(Ident(t.Name)))
	}
}

// uint reads the size bytes at off, at most 8; if they are not known the text says why.
func (p *printer) uint(v view, off, size int64) (n uint64, ok bool) {
	at := v.at(off)
	if s, why := at.state(size); s != whole {
		p.missing(why)
		return 0, false
	}
	p.known = true
	return uintOf(at.bytes[:size]), true
}

// cell writes what cells that are filled once print.
func (p *printer) cell(name string, full bool, f types.Field, v view, nesting int) {
	l := p.open(name, "(", ")")
	p.item(l)
	if full {
		p.value(f.Type, v.at(f.Offset), nesting+1)
	} else {
		p.str("<uninit>")
	}
	p.end(l)
}

func (p *printer) shared(s *types.StdInfo, addr, n uint64, nesting int) {
	switch {
	case s.Elem.Object():
		p.sharedObject(s.Elem, addr, n, nesting)
	case s.Elem.Kind == types.Str:
		p.text(s.Elem, addr, n)
	case s.Len >= 0:
		p.sequence(s.Elem, addr, n, nesting)
	default:
		p.behind(s.Elem, addr, nesting)
	}
}

// ioError writes an io::Error from its word.
func (p *printer) ioError(t *types.Type, word uint64, nesting int) {
	s := t.Std
	code := []byte{byte(word >> 32), byte(word >> 40), byte(word >> 48), byte(word >> 56)}
	switch word & 3 {
	case types.TagMessage:
		r, ok := p.region(s.Elem, word)
		if !ok {
			return
		}
		kind, atKind := at(s.Elem, r, "kind")
		message, atMessage := at(s.Elem, r, "message")
		p.depth++
		l := p.open("Error", " {", " }")
		p.field(l, "kind")
		p.value(kind, atKind, nesting+1)
		p.field(l, "message")
		p.value(message, atMessage, nesting+1)
		p.end(l)
		p.depth--
	case types.TagCustom:
		p.behind(s.Child, word-types.TagCustom, nesting)
	case types.TagKind:
		l := p.open("Kind", "(", ")")
		p.item(l)
		p.value(s.Item.Type, view{bytes: code}, nesting+1)
		p.end(l)
	default:
		l := p.open("Os", " {", " }")
		p.field(l, "code")
		p.known = true
		p.out = appendInt(p.out, code, true)
		p.field(l, "kind")
		number := int32(word >> 32)
		if kind := errorKind(number, t.Era); kind != "" {
			p.str(kind)
		} else {
			p.missing("unsupported: kind of a system's error")
		}
		p.field(l, "message")
		if s.GNU {
			p.str(strconv.Quote(gnuMessage(number))) // plain ASCII
		} else {
			p.missing("unsupported: message of this C library")
		}
		p.end(l)
	}
}

// behind writes the value at addr.
func (p *printer) behind(t *types.Type, addr uint64, nesting int) {
	if t.Size == 0 {
		p.value(t, view{}, nesting+1)
		return
	}
	if r, ok := p.region(t, addr); ok {
		p.depth++
		p.value(t, r, nesting+1)
		p.depth--
	}
}

// ring writes the elements from head to the end of the buffer, and those that are at
// its beginning.
func (p *printer) ring(s *types.StdInfo, v view, addr, n uint64, nesting int) {
	head, ok1 := p.word(v, s.Head)
	if !ok1 {
		return
	}
	capacity, ok2 := p.word(v, s.Cap)
	if !ok2 {
		return
	}
	if s.Ends {
		end := n
		if s.Elem.Size == 0 {
			capacity = 1 << 63 // MAXIMUM_ZST_CAPACITY
		}
		if n -= head; end < head {
			n += capacity
		}
	}
	if n == 0 || s.Elem.Size == 0 {
		p.sequence(s.Elem, addr, n, nesting)
		return
	}
	if head >= capacity || n > capacity || capacity > math.MaxInt64/uint64(s.Elem.Size) {
		p.invalidLength(n)
		return
	}
	first := min(n, capacity-head)
	r, ok := p.region(s.Elem, addr+head*uint64(s.Elem.Size))
	if !ok {
		return
	}
	p.depth++
	defer func() { p.depth-- }()
	l := p.open("", "[", "]")
	if p.items(l, s.Elem, r, int64(first), nesting) && first < n {
		switch r, found := p.lookup(s.Elem, addr); {
		case l.n < p.opt.MaxItems && found:
			p.items(l, s.Elem, r, int64(n-first), nesting)
		default:
			p.item(l)
			p.ellipsis()
		}
	}
	p.end(l)
}

// entry writes a key and its value, or a key alone.
func (p *printer) entry(l *list, set bool, key, value *types.Type, k, v view, nesting int) {
	p.item(l)
	p.value(key, k, nesting+1)
	if !set {
		p.str(": ")
		p.value(value, v, nesting+1)
	}
}

// full says whether l has as many items as there may be, and ends it if so.
func (p *printer) full(l *list) bool {
	if l.n < p.opt.MaxItems && len(p.out) <= maxText {
		return false
	}
	p.item(l)
	p.ellipsis()
	return true
}

// gone ends a list whose further items were changed while they were read.
func (p *printer) gone(l *list) {
	p.item(l)
	p.missing("unreadable")
}

// table writes the entries of a hash table in the order of their buckets, which is
// that of its iterator. Bucket i is the i-th below the control bytes.
func (p *printer) table(s *types.StdInfo, v view, addr, n uint64, nesting int) {
	if n == 0 {
		p.known = true
		p.str("{}")
		return
	}
	mask, ok := p.word(v, s.Cap)
	if !ok {
		return
	}
	pair := s.Elem.Std.Item.Type
	size, r, buckets := pair.Size, view{}, uint64(0)
	if size > 0 {
		if r, ok = p.region(s.Elem, addr); !ok {
			return
		}
		buckets = uint64(len(r.bytes)) / uint64(size+1)
		p.depth++
		defer func() { p.depth-- }()
	} else if n > 1 {
		p.invalidLength(n) // all of its keys would be equal
		return
	}
	p.known = true
	l := p.open("", "{", "}")
	defer p.end(l)
	key, value := pair.Fields[0], pair.Fields[1]
	put := func(at view) {
		p.entry(l, s.Set, key.Type, value.Type, at.at(key.Offset), at.at(value.Offset), nesting+1)
	}
	if size == 0 {
		put(view{})
		return
	}
	for i := uint64(0); i < buckets && uint64(l.n) < n; i++ {
		if r.bytes[buckets*uint64(size)+i] > 0x7f {
			continue
		}
		if p.full(l) {
			return
		}
		put(r.at(int64(buckets-1-i) * size))
	}
	switch {
	case uint64(l.n) == n:
	case buckets <= mask:
		p.item(l)
		p.ellipsis()
	default:
		p.gone(l)
	}
}

// tree writes the entries of a B-tree in order.
func (p *printer) tree(s *types.StdInfo, v view, addr, n uint64, nesting int) {
	if n == 0 {
		p.known = true
		p.str("{}")
		return
	}
	height, ok := p.word(v, s.Height)
	if !ok {
		return
	}
	if height >= uint64(len(s.Nodes)) {
		p.ellipsis()
		p.known = true
		return
	}
	// The root says by itself why it is not there.
	if _, ok := p.region(s.Nodes[height], addr); !ok {
		return
	}
	p.known = true
	p.depth++
	l := p.open("", "{", "}")
	if p.treeNode(s, s.Nodes[height], addr, l, nesting) && uint64(l.n) != n {
		p.gone(l)
	}
	p.end(l)
	p.depth--
}

// treeNode writes what is in and below a node. It is false if l has been ended.
func (p *printer) treeNode(s *types.StdInfo, node *types.Type, addr uint64, l *list, nesting int) bool {
	r, ok := p.lookup(node, addr)
	if !ok || len(r.bytes) == 0 {
		if p.full(l) {
			return false
		}
		p.item(l)
		p.missing(r.after)
		return false
	}
	info := node.Std
	if st, _ := r.at(info.Len).state(2); st != whole {
		p.gone(l)
		return false
	}
	n := int64(binary.LittleEndian.Uint16(r.at(info.Len).bytes))
	if n > types.NodeCap {
		p.gone(l)
		return false
	}
	for i := range n + 1 {
		if info.Child != nil {
			child := r.at(info.Children + 8*i)
			if st, _ := child.state(8); st != whole {
				p.gone(l)
				return false
			}
			if !p.treeNode(s, info.Child, uintOf(child.bytes[:8]), l, nesting) {
				return false
			}
		}
		if i == n {
			break
		}
		if p.full(l) {
			return false
		}
		p.entry(l, s.Set, info.Keys.Type, info.Vals.Type, r.at(info.Keys.Offset+i*info.Keys.Type.Size), r.at(info.Vals.Offset+i*info.Vals.Type.Size), nesting)
	}
	return true
}

func (p *printer) chain(s *types.StdInfo, addr, n uint64, nesting int) {
	if n == 0 {
		p.known = true
		p.str("[]")
		return
	}
	r, ok := p.region(s.Elem, addr)
	if !ok {
		return
	}
	p.known = true
	p.depth++
	l := p.open("", "[", "]")
	link := s.Elem.Std
	for !p.full(l) {
		p.item(l)
		p.value(link.Item.Type, r.at(link.Item.Offset), nesting+1)
		if uint64(l.n) == n {
			break
		}
		next := r.at(link.Ptr)
		if st, _ := next.state(8); st != whole {
			p.gone(l)
			break
		}
		if r, ok = p.lookup(s.Elem, uintOf(next.bytes[:8])); !ok || len(r.bytes) == 0 {
			if !p.full(l) {
				p.item(l)
				p.missing(r.after)
			}
			break
		}
	}
	p.end(l)
	p.depth--
}
