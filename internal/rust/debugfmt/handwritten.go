package debugfmt

import (
	"math/bits"
	"strings"

	"ferrotrace/internal/rust/types"
)

// handWritten is what writes a type whose Debug impl is no derived one, nil if none is
// known. It finds the fields that it needs by their names; without them it writes nothing
// and is false.
func handWritten(path string) func(p *printer, t *types.Type, v view, nesting int) bool {
	if adaptors[path] {
		return (*printer).adaptor
	}
	switch path {
	case "core::iter::sources::empty::Empty", "core::hash::BuildHasherDefault":
		return (*printer).bare
	case "std::process::ExitStatus":
		return (*printer).exitStatus
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
		"std::sync::poison::PoisonError", "std::sync::mpsc::SendError", "std::thread::JoinHandle", "std::thread::join_handle::JoinHandle",
		"std::hash::random::RandomState", "std::collections::hash::map::RandomState":
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
		if mark == "" {
			p.missing("unsupported: how this compiler's locks say that they are locked")
		}
		p.str(mark)
	} else if ok {
		p.value(data, atData, nesting+1)
	}
	p.field(l, "poisoned")
	if n, ok := p.uint(poison, 0, 1); ok {
		// guard::Flag reads its byte as a bool, which is one if it is not 0.
		p.str([]string{"false", "true"}[min(n, 1)])
	}
	p.rest(l)
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
	// std::sys::sync::mutex::futex: 0 is unlocked. Since it is in std::sync::poison, or
	// some time later, its mark is written as a &str.
	mark := "<locked>"
	if strings.HasPrefix(t.Name, "std::sync::poison::") {
		if mark = `"<locked>"`; t.Era == types.Untested {
			mark = ""
		}
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
