package inject

import (
	"bytes"
	"errors"
	"testing"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// A file is where it was as long as the same part of it is mapped there without a gap.
func TestFileIn(t *testing.T) {
	f := File{Range{0x2000, 0x5000}, 7, 0x1000}
	for _, c := range []struct {
		ms   []target.Mapping
		want bool
	}{
		{nil, false},
		{[]target.Mapping{{Start: 0x1000, End: 0x6000, Inode: 7, Offset: 0}}, true},
		{[]target.Mapping{{Start: 0x2000, End: 0x5000, Inode: 7, Offset: 0x1000}}, true},
		{[]target.Mapping{{Start: 0x2000, End: 0x3000, Inode: 7, Offset: 0x1000}, {Start: 0x3000, End: 0x5000, Inode: 7, Offset: 0x2000}}, true},
		{[]target.Mapping{{Start: 0x2000, End: 0x3000, Inode: 7, Offset: 0x1000}, {Start: 0x4000, End: 0x5000, Inode: 7, Offset: 0x3000}}, false},
		{[]target.Mapping{{Start: 0x2000, End: 0x5000, Inode: 8, Offset: 0x1000}}, false},
		{[]target.Mapping{{Start: 0x2000, End: 0x5000, Inode: 7, Offset: 0}}, false},
		{[]target.Mapping{{Start: 0x2000, End: 0x4000, Inode: 7, Offset: 0x1000}}, false},
	} {
		if got := f.In(c.ms); got != c.want {
			t.Errorf("%+v: %v", c.ms, got)
		}
	}
}

// Entries survive their encoding, those of files too.
func TestFileEntry(t *testing.T) {
	e := entry{addr: 0x1000, live: true, kind: kindFile, size: 0x3000, inode: 1 << 40, offset: 0x2000}
	got, err := decodeEntry(e.encode())
	if err != nil || got.addr != e.addr || !got.live || got.kind != e.kind || got.size != e.size || got.inode != e.inode || got.offset != e.offset {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestFileGone: what is noted to be in a file that is not mapped there any more is not put
// back, whatever is there now; and a journal has room for files that come and go.
func TestFileGone(t *testing.T) {
	ctx := t.Context()
	p := start(t, "sum")
	tr, err := Attach(ctx, p.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Detach()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at, err := tr.Mmap(ctx, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0)
	must(err)
	j, err := tr.CreateJournal(ctx, 10)
	must(err)
	old, patched := []byte{1, 2, 3, 4, 5}, []byte{6, 7, 8, 9, 10}
	f := File{Range{at, at + 4096}, 12345, 0}
	for i := range 50 {
		must(tr.WriteMem(ctx, old, at+16))
		must(j.AddFile(ctx, f))
		errs, err := j.Apply(ctx, Patch{Addr: at + 16, Old: old, New: patched})
		must(errors.Join(err, errs[0]))
		if i%2 == 0 {
			must(j.Forget(ctx, f))
			continue
		}
		restored, conflicts, err := j.Restore(ctx)
		must(err)
		have := make([]byte, 5)
		must(tr.ReadMem(ctx, have, at+16))
		if restored != 0 || len(conflicts) > 0 || !bytes.Equal(have, patched) {
			t.Fatalf("%d restored, %v, % x", restored, conflicts, have)
		}
		must(j.Forget(ctx, f))
	}
	js, err := tr.FindJournals(ctx)
	must(err)
	if len(js) != 1 || len(js[0].Patches()) > 0 {
		t.Errorf("%+v", js)
	}
	must(tr.Munmap(ctx, at, 4096))
	must(j.Close(ctx))
	must(tr.Detach())
	p.finish()
}
