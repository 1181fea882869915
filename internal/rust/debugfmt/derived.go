package debugfmt

import (
	"strings"

	"ferrotrace/internal/rust/types"
)

// Which of std's types have a derived Debug impl, and so print as their fields, is not in
// debug info. Here are the modules whose types mostly have not, and those in them that
// have; it was gathered from the sources of std, 1.95 and nightly, and is held by the
// fixtures in 1.63 too. A type outside of them prints as its fields.

// handMade are the modules, and types, with impls by hand.
var handMade = []string{
	"alloc::boxed::thin::", "alloc::bstr::", "alloc::collections::", "alloc::rc::", "alloc::string::", "alloc::sync::", "alloc::vec::", "alloc::wtf8::",
	"core::array::iter::", "core::ascii::", "core::bstr::", "core::char::", "core::error::Request", "core::escape::", "core::ffi::", "core::field::",
	"core::fmt::", "core::future::", "core::io::", "core::iter::adapters::", "core::iter::sources::", "core::marker::variance::", "core::mem::drop_guard::",
	"core::mem::Discriminant", "core::panic::", "core::pin::unsafe_pinned::", "core::ptr::metadata::", "core::range::", "core::slice::", "core::str::",
	"core::sync::exclusive::", "core::sync::sync_view::", "core::task::wake::", "core::wtf8::",
	"std::backtrace::", "std::collections::", "std::env::", "std::error::", "std::ffi::", "std::fs::", "std::hash::", "std::io::", "std::net::", "std::os::",
	"std::path::", "std::process::", "std::sync::", "std::sys::", "std::thread::", "std::time::", "hashbrown::",
}

// derives are what has derived impls in these modules, all of a name or of a module.
var derives = []string{
	"core::fmt::Error", "core::iter::sources::once::Once", "core::iter::sources::repeat::Repeat",
	"core::iter::adapters::chain::Chain", "core::iter::adapters::cloned::Cloned", "core::iter::adapters::copied::Copied", "core::iter::adapters::cycle::Cycle",
	"core::iter::adapters::enumerate::Enumerate", "core::iter::adapters::fuse::Fuse", "core::iter::adapters::peekable::Peekable", "core::iter::adapters::rev::Rev",
	"core::iter::adapters::skip::Skip", "core::iter::adapters::step_by::StepBy", "core::iter::adapters::take::Take",
	"core::slice::iter::Chunks", "core::slice::iter::Windows",
	"core::io::cursor::Cursor", "std::io::cursor::Cursor", "std::io::error::Custom", "std::io::error::ErrorKind", "std::io::SeekFrom",
	"std::path::Component", "std::path::Prefix", "std::thread::id::ThreadId", "std::thread::ThreadId",
}

// unlikeTheirNames are errors with impls by hand: others of that name are derived.
var unlikeTheirNames = map[string]bool{
	"std::sync::poison::TryLockError": true, "std::sync::mpsc::TrySendError": true, "std::sync::mpmc::error::SendTimeoutError": true, "std::fs::TryLockError": true,
	"std::sync::oneshot::RecvTimeoutError": true, "std::sync::oneshot::TryRecvError": true, "std::collections::hash::map::OccupiedError": true,
	"alloc::collections::btree::map::entry::OccupiedError": true, "std::io::error::Error": true,
}

// unlikeFields says whether a type of std prints something else than its fields, or may.
func unlikeFields(t *types.Type, path string) bool {
	if unlikeTheirNames[path] {
		return true
	}
	if strings.HasSuffix(path, "Error") {
		return false
	}
	for _, d := range derives {
		if path == d {
			return false
		}
	}
	for _, m := range handMade {
		if strings.HasPrefix(path, m) {
			// Most enums are derived; those of maps' entries are not.
			return t.Kind == types.Struct || t.Kind == types.Union || strings.HasSuffix(path, "::Entry") || m == "hashbrown::" || m == "std::sys::" || m == "core::iter::adapters::"
		}
	}
	return false
}

// adaptors are iterators around another that show it, and what they know, without the
// function that they call.
var adaptors = map[string]bool{
	"core::iter::adapters::filter::Filter": true, "core::iter::adapters::filter_map::FilterMap": true, "core::iter::adapters::inspect::Inspect": true,
	"core::iter::adapters::map::Map": true, "core::iter::adapters::map_while::MapWhile": true, "core::iter::adapters::scan::Scan": true,
	"core::iter::adapters::skip_while::SkipWhile": true, "core::iter::adapters::take_while::TakeWhile": true,
}

func (p *printer) adaptor(t *types.Type, v view, nesting int) bool {
	l := p.open(Ident(t.Name), " {", " }")
	for _, name := range []string{"iter", "state", "flag"} {
		if f, at := at(t, v, name); f != nil {
			p.field(l, name)
			p.value(f, at, nesting+1)
		}
	}
	p.end(l)
	return true
}

// bare writes the name of what shows nothing else.
func (p *printer) bare(t *types.Type, _ view, _ int) bool {
	p.str(Ident(t.Name))
	p.known = true
	return true
}

// exitStatus writes what wait(2) gave.
func (p *printer) exitStatus(t *types.Type, v view, nesting int) bool {
	code, v := innermost(t, v)
	if code.Kind != types.Int || code.Size != 4 {
		return false
	}
	outer := p.open("ExitStatus", "(", ")")
	p.item(outer)
	inner := p.open("unix_wait_status", "(", ")")
	p.item(inner)
	p.value(code, v, nesting+2)
	p.end(inner)
	p.end(outer)
	return true
}
