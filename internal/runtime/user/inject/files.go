package inject

import (
	"context"
	"slices"
	"time"

	"ferrotrace/internal/target"
)

// A File is code of a file that the process may unmap, as it may a library. What is
// there later may be another's: see Journal.AddFile.
type File struct {
	Range
	Inode  uint64
	Offset uint64 // in the file, of the beginning of Range
}

// In says whether the file is still where it was.
func (f File) In(ms []target.Mapping) bool {
	at := f.Start
	for _, m := range ms {
		if m.Start <= at && at < m.End && m.Inode == f.Inode && m.Offset+at-m.Start == f.Offset+at-f.Start {
			at = m.End
		}
	}
	return at >= f.End
}

// AddFile notes where patches are going to be that belong to a file. Once that is not
// mapped there any more, they are gone with it, and nothing of theirs is put back.
func (j *Journal) AddFile(ctx context.Context, f File) error {
	return j.t.call(ctx, func(context.Context, time.Time) error {
		_, err := j.add([]entry{{addr: f.Start, live: true, kind: kindFile, size: f.End - f.Start, inode: f.Inode, offset: f.Offset}})
		return err
	})
}

// Forget forgets a file with all patches in it, which the process has unmapped, or which
// have been put back.
func (j *Journal) Forget(ctx context.Context, f File) error {
	return j.t.call(ctx, func(context.Context, time.Time) error {
		for i := len(j.entries) - 1; i >= 0; i-- {
			e := j.entries[i]
			if e.live && (e.kind == kindPatch && f.has(e.addr) || e.kind == kindFile && e.addr == f.Start || e.kind == kindSema && e.inode == f.Inode) {
				if err := j.retire(i); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// gone is where files were that the process has unmapped since, in order.
func (j *Journal) gone() (rs []Range, err error) {
	var ms []target.Mapping
	for _, e := range j.entries {
		if !e.live || e.kind != kindFile {
			continue
		}
		if ms == nil {
			if ms, err = j.t.proc.Maps(); err != nil {
				return nil, ErrGone
			}
		}
		f := File{Range{e.addr, e.addr + e.size}, e.inode, e.offset}
		if !f.In(ms) {
			rs = append(rs, f.Range)
		}
	}
	rs = sorted(rs)
	// Of two at one place the later was mapped when the first had gone.
	return slices.CompactFunc(rs, func(a, b Range) bool { return b.Start < a.End }), nil
}
