package inject

import (
	"encoding/binary"
	"slices"
	"testing"

	"ferrotrace/internal/target"
)

// A semaphore is counted up once for each tracer, also in memory that the process can't write,
// and who finds the journal of a tracer that was killed counts it down.
func TestSemaphore(t *testing.T) {
	p := start(t, "sum")
	tr := attachTo(t, p)
	ms, err := tr.proc.Maps()
	must(t, err)
	i := slices.IndexFunc(ms, func(m target.Mapping) bool { return m.Inode != 0 && m.Offset == 0 && m.Path == tr.proc.Exe })
	if i < 0 {
		t.Fatal("the program's first page is not mapped")
	}
	addr := ms[i].Start + 10 // of e_ident's padding: nobody reads it
	value := func(tr *Tracee) uint16 {
		var b [2]byte
		must(t, tr.ReadMem(t.Context(), b[:], addr))
		return binary.LittleEndian.Uint16(b[:])
	}
	j, err := tr.CreateJournal(t.Context(), 16)
	must(t, err)
	must(t, j.Raise(t.Context(), addr))
	must(t, j.Raise(t.Context(), addr))
	if n := value(tr); n != 2 {
		t.Errorf("it is %d after two", n)
	}
	stack := slices.IndexFunc(ms, func(m target.Mapping) bool { return m.Path == "[stack]" })
	if err := j.Raise(t.Context(), ms[stack].Start); err == nil {
		t.Error("what is in no file was counted in")
	}
	must(t, tr.Detach()) // as if it had been killed

	tr = attachTo(t, p)
	js, err := tr.FindJournals(t.Context())
	must(t, err)
	if len(js) != 1 {
		t.Fatalf("%d journals", len(js))
	}
	_, conflicts, err := js[0].Restore(t.Context())
	must(t, err)
	if n := value(tr); n != 0 || len(conflicts) > 0 {
		t.Errorf("it is %d afterwards; conflicts: %v", n, conflicts)
	}
	// Once is enough.
	_, _, err = js[0].Restore(t.Context())
	must(t, err)
	if n := value(tr); n != 0 {
		t.Errorf("it is %d after a second time", n)
	}
	// What was another's count meanwhile stays.
	must(t, js[0].Raise(t.Context(), addr))
	must(t, tr.WriteMem(t.Context(), []byte{5, 0}, addr))
	_, _, err = js[0].Restore(t.Context())
	must(t, err)
	if n := value(tr); n != 4 {
		t.Errorf("of 5 it is %d afterwards", n)
	}
	// A file that was unmapped has taken its semaphores with it.
	must(t, js[0].Raise(t.Context(), addr))
	must(t, js[0].Forget(t.Context(), File{Range{ms[i].Start, ms[i].End}, ms[i].Inode, 0}))
	_, _, err = js[0].Restore(t.Context())
	must(t, err)
	if n := value(tr); n != 5 {
		t.Errorf("of a file that is forgotten it is %d", n)
	}
	must(t, js[0].Close(t.Context()))
}
