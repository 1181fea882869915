package debugfmt

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

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
		p.ioError(s, addr, nesting)
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
	case s.Elem.Kind == types.Str:
		p.text(s.Elem, addr, n)
	case s.Len >= 0:
		p.sequence(s.Elem, addr, n, nesting)
	default:
		p.behind(s.Elem, addr, nesting)
	}
}

// ioError writes an io::Error from its word. A system's message is that of its C
// library, which is not known here.
func (p *printer) ioError(s *types.StdInfo, word uint64, nesting int) {
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
		if kind := errorKinds[syscall.Errno(word>>32)]; kind != "" {
			p.str(kind)
		} else {
			p.missing("unsupported: kind of a system's error")
		}
		p.field(l, "message")
		p.missing("unsupported: message of a system's error")
		p.end(l)
	}
}

// errorKinds are the kinds of the system's errors that have been the same since 1.63
// (std::sys::…::decode_error_kind).
var errorKinds = map[syscall.Errno]string{
	syscall.EADDRINUSE: "AddrInUse", syscall.EADDRNOTAVAIL: "AddrNotAvailable", syscall.ECONNABORTED: "ConnectionAborted",
	syscall.ECONNREFUSED: "ConnectionRefused", syscall.ECONNRESET: "ConnectionReset", syscall.EEXIST: "AlreadyExists",
	syscall.EINTR: "Interrupted", syscall.EINVAL: "InvalidInput", syscall.ENOENT: "NotFound", syscall.ENOTCONN: "NotConnected",
	syscall.EPIPE: "BrokenPipe", syscall.ETIMEDOUT: "TimedOut", syscall.EACCES: "PermissionDenied", syscall.EPERM: "PermissionDenied",
	syscall.EAGAIN: "WouldBlock", syscall.ENOMEM: "OutOfMemory", syscall.EISDIR: "IsADirectory", syscall.ENOTDIR: "NotADirectory",
	syscall.ENOTEMPTY: "DirectoryNotEmpty", syscall.EBUSY: "ResourceBusy",
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

// handWritten is what writes a type whose Debug impl is no derived one, nil if none is
// known. It finds the fields that it needs by their names; without them it writes nothing
// and is false.
func handWritten(path string) func(p *printer, t *types.Type, v view, nesting int) bool {
	switch path {
	case "core::cell::RefCell":
		return (*printer).refCell
	case "core::cell::once::OnceCell",
		"core::cell::lazy::LazyCell":
		return (*printer).onceCell
	case "std::sync::mutex::Mutex",
		"std::sync::poison::mutex::Mutex":
		return (*printer).mutex
	case "std::sync::rwlock::RwLock",
		"std::sync::poison::rwlock::RwLock":
		return (*printer).rwLock
	case "std::time::Instant",
		"std::time::SystemTime":
		return (*printer).clock
	case "core::alloc::layout::Layout":
		return (*printer).layout
	case "core::ptr::alignment::Alignment", "core::mem::alignment::Alignment":
		return (*printer).alignment
	case "core::task::wake::Waker":
		return (*printer).waker
	case "core::task::wake::Context":
		return (*printer).context
	case "std::sync::once::Once", "std::sync::poison::once::Once", "std::sync::condvar::Condvar", "std::sync::poison::condvar::Condvar",
		"std::sync::barrier::Barrier", "std::sync::mpsc::Sender", "std::sync::mpsc::SyncSender", "std::sync::mpsc::Receiver",
		"std::sync::poison::PoisonError", "std::sync::mpsc::SendError", "std::thread::JoinHandle", "std::thread::join_handle::JoinHandle":
		return (*printer).closed
	case "core::any::TypeId":
		return (*printer).typeID
	case "alloc::rc::Weak",
		"alloc::sync::Weak":
		return (*printer).weak
	case "core::net::ip_addr::Ipv4Addr", "core::net::ip_addr::Ipv6Addr",
		"std::net::ip::Ipv4Addr", "std::net::ip::Ipv6Addr":
		return (*printer).ip
	case "core::net::ip_addr::IpAddr", "std::net::ip::IpAddr", "std::net::addr::SocketAddr",
		"core::net::socket_addr::SocketAddr":
		return (*printer).only
	case "std::net::addr::SocketAddrV4", "std::net::addr::SocketAddrV6", "core::net::socket_addr::SocketAddrV4",
		"core::net::socket_addr::SocketAddrV6":
		return (*printer).socket
	case "alloc::collections::binary_heap::BinaryHeap":
		return (*printer).heap
	}
	return nil
}

// at finds a field of t by its path; nil if it is not there.
func at(t *types.Type, v view, path ...string) (*types.Type, view) {
	for _, name := range path {
		var f *types.Field
		for i := range t.Fields {
			if t.Fields[i].Name == name {
				f = &t.Fields[i]
			}
		}
		if f == nil {
			return nil, v
		}
		t, v = f.Type, v.at(f.Offset)
	}
	return t, v
}

// inner is at, and then what is in wrappers there, if that is a number of size bytes.
func inner(t *types.Type, v view, size int64, path ...string) (view, bool) {
	t, v = at(t, v, path...)
	if t == nil {
		return v, false
	}
	t, v = innermost(t, v)
	return v, (t.Kind == types.Uint || t.Kind == types.Int || t.Kind == types.Bool || t.Kind == types.Enum) && t.Size == size
}

func (p *printer) refCell(t *types.Type, v view, nesting int) bool {
	flag, ok := inner(t, v, 8, "borrow")
	cell, atValue := at(t, v, "value", "value")
	if !ok || cell == nil {
		return false
	}
	l := p.open("RefCell", " {", " }")
	p.field(l, "value")
	// The flag is negative while the value is mutably borrowed.
	if n, ok := p.uint(flag, 0, 8); ok && int64(n) < 0 {
		p.str("<borrowed>")
	} else if ok {
		p.value(cell, atValue, nesting+1)
	}
	p.end(l)
	return true
}

// onceCell writes a OnceCell, in which there is an Option, or a LazyCell.
func (p *printer) onceCell(t *types.Type, v view, nesting int) bool {
	state, v := innermost(t, v)
	if state.Enum == nil {
		return false
	}
	i := p.variant(state, v)
	if i < 0 {
		return true
	}
	variant := state.Enum.Variants[i]
	full := variant.Name == "Some" || variant.Name == "Init"
	if full && len(variant.Fields) != 1 {
		return false
	}
	var f types.Field
	if full {
		f = variant.Fields[0]
	}
	p.cell(Ident(t.Name), full, f, v, nesting)
	return true
}

// locked writes what Mutex and RwLock print.
func (p *printer) locked(t *types.Type, v view, state view, locked func(uint64) bool, mark string, nesting int) bool {
	data, atData := at(t, v, "data", "value")
	poison, ok := inner(t, v, 1, "poison")
	if data == nil || !ok {
		return false
	}
	l := p.open(Ident(t.Name), " {", " }")
	p.field(l, "data")
	if n, ok := p.uint(state, 0, 4); ok && locked(n) {
		p.str(mark)
	} else if ok {
		p.value(data, atData, nesting+1)
	}
	p.field(l, "poisoned")
	if n, ok := p.uint(poison, 0, 1); ok {
		// guard::Flag reads its byte as a bool, which is one if it is not 0.
		p.str([]string{"false", "true"}[min(n, 1)])
	}
	p.item(l)
	p.str("..")
	p.end(l)
	return true
}

// futex says whether a lock, or what it wraps, is made of futexes.
func futex(t *types.Type) bool {
	for range 8 {
		if strings.Contains(t.Name, "::futex::") || strings.HasPrefix(t.Name, "std::sys::unix::locks::futex_rwlock::") {
			return true
		}
		if len(t.Fields) != 1 {
			break
		}
		t = t.Fields[0].Type
	}
	return false
}

func (p *printer) mutex(t *types.Type, v view, nesting int) bool {
	in, _ := at(t, v, "inner")
	state, ok := inner(t, v, 4, "inner")
	if !ok || !futex(in) {
		return false
	}
	// std::sys::sync::mutex::futex: 0 is unlocked. Std writes the mark as a &str where it
	// has been in this module.
	mark := "<locked>"
	if strings.HasPrefix(t.Name, "std::sync::poison::") {
		mark = `"<locked>"`
	}
	return p.locked(t, v, state, func(n uint64) bool { return n != 0 }, mark, nesting)
}

func (p *printer) rwLock(t *types.Type, v view, nesting int) bool {
	in, atIn := at(t, v, "inner")
	for in != nil && len(in.Fields) == 1 {
		in, atIn = in.Fields[0].Type, atIn.at(in.Fields[0].Offset)
	}
	if in == nil {
		return false
	}
	state, ok := inner(in, atIn, 4, "state")
	if !ok || !futex(in) {
		return false
	}
	// std::sys::sync::rwlock::futex::is_read_lockable: the lower 30 bits count readers
	// or say that there is a writer, those above say who waits.
	return p.locked(t, v, state, func(n uint64) bool { return n >= 1<<30-2 }, "<locked>", nesting)
}

// clock writes an Instant or a SystemTime.
func (p *printer) clock(t *types.Type, v view, nesting int) bool {
	spec, v2 := at(t, v, "__0", "t")
	if spec == nil {
		return false
	}
	secs, ok1 := inner(spec, v2, 8, "tv_sec")
	nanos, ok2 := inner(spec, v2, 4, "tv_nsec")
	nanosType := u32Type
	if !ok2 { // before 1.67
		nanos, ok2 = inner(spec, v2, 8, "tv_nsec")
		nanosType = i64Type
	}
	if !ok1 || !ok2 {
		return false
	}
	l := p.open(Ident(t.Name), " {", " }")
	p.field(l, "tv_sec")
	p.value(i64Type, secs, nesting+1)
	p.field(l, "tv_nsec")
	p.value(nanosType, nanos, nesting+1)
	p.end(l)
	return true
}

var (
	i64Type   = &types.Type{Name: "i64", Kind: types.Int, Size: 8, Align: 8}
	u32Type   = &types.Type{Name: "u32", Kind: types.Uint, Size: 4, Align: 4}
	usizeType = &types.Type{Name: "usize", Kind: types.Uint, Size: 8, Align: 8}
)

func (p *printer) layout(t *types.Type, v view, nesting int) bool {
	size, ok := inner(t, v, 8, "size")
	align, atAlign := at(t, v, "align")
	if !ok || align == nil || !strings.HasSuffix(align.Name, "::Alignment") && !strings.HasSuffix(align.Name, "::ValidAlign") || align.Size != 8 {
		return false
	}
	l := p.open("Layout", " {", " }")
	p.field(l, "size")
	p.value(usizeType, size, nesting+1)
	p.field(l, "align")
	p.alignment(align, atAlign, nesting)
	p.end(l)
	return true
}

func (p *printer) alignment(t *types.Type, v view, nesting int) bool {
	if t.Size != 8 {
		return false
	}
	n, ok := p.uint(v, 0, 8)
	switch {
	case !ok:
	case bits.OnesCount64(n) != 1:
		p.invalid(v.bytes[:8])
	default:
		p.value(usizeType, v, nesting+1)
		p.str(" (1 << ")
		p.out = appendInt(p.out, []byte{byte(bits.TrailingZeros64(n))}, false)
		p.str(")")
	}
	return true
}

func (p *printer) typeID(t *types.Type, v view, nesting int) bool {
	if old, _ := at(t, v, "t"); old != nil && old.Kind == types.Uint && old.Size == 8 {
		p.fields("TypeId", t.Fields, v, nesting)
		return true
	}
	data, v := at(t, v, "data")
	if data == nil || data.Size != 16 {
		return false
	}
	if s, why := v.state(16); s != whole {
		p.missing(why)
		return true
	}
	p.str("TypeId(0x")
	for i := 15; i >= 0; i-- {
		const hex = "0123456789abcdef"
		p.out = append(p.out, hex[v.bytes[i]>>4], hex[v.bytes[i]&15])
	}
	p.str(")")
	p.known = true
	return true
}

// closed writes what shows nothing of itself.
func (p *printer) closed(t *types.Type, _ view, _ int) bool {
	p.str(Ident(t.Name) + " { .. }")
	p.known = true
	return true
}

func (p *printer) waker(t *types.Type, v view, _ int) bool {
	raw, v := at(t, v, "waker")
	if raw == nil {
		return false
	}
	l := p.open("Waker", " {", " }")
	for _, name := range []string{"data", "vtable"} {
		f, at := at(raw, v, name)
		if f == nil || f.Size != 8 {
			return false
		}
		p.field(l, name)
		if addr, ok := p.word(at, 0); ok {
			p.known = true
			p.address(addr)
		}
	}
	p.end(l)
	return true
}

func (p *printer) context(t *types.Type, v view, nesting int) bool {
	waker, v := at(t, v, "waker")
	if waker == nil {
		return false
	}
	l := p.open("Context", " {", " }")
	p.field(l, "waker")
	p.value(waker, v, nesting+1)
	p.end(l)
	return true
}

func (p *printer) weak(*types.Type, view, int) bool {
	p.str("(Weak)")
	p.known = true
	return true
}

func (p *printer) heap(t *types.Type, v view, nesting int) bool {
	data, v := at(t, v, "data")
	if data == nil {
		return false
	}
	p.value(data, v, nesting+1)
	return true
}

// only writes an enum as what is in its variant.
func (p *printer) only(t *types.Type, v view, nesting int) bool {
	if t.Enum == nil {
		return false
	}
	if i := p.variant(t, v); i >= 0 {
		for _, f := range t.Enum.Variants[i].Fields { // there is one
			p.value(f.Type, v.at(f.Offset), nesting+1)
		}
	}
	return true
}

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
