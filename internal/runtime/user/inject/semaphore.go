package inject

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// A semaphore is a counter of two bytes among a program's data: while it is not zero the
// program makes what a static probe of its shows. Other tracers count in it too, so it is
// counted down in the end, not put back.

// Raise counts a semaphore up, and notes that: Restore counts it down again. It is noted once
// it is done: a tracer that is killed in between leaves a program that makes what nobody
// looks at, instead of another tracer that is blind.
//
// No lock of the processor can be had on another's memory: of two tracers that count at the
// same moment one may be lost.
func (j *Journal) Raise(ctx context.Context, addr uint64) error {
	return j.t.call(ctx, func(context.Context, time.Time) error {
		ms, err := j.t.proc.Maps()
		if err != nil {
			return ErrGone
		}
		e := entry{addr: addr, live: true, kind: kindSema}
		for _, m := range ms {
			if m.Start <= addr && addr+2 <= m.End && m.Inode != 0 {
				e.inode, e.offset = m.Inode, m.Offset+addr-m.Start
			}
		}
		if e.inode == 0 {
			return fmt.Errorf("the semaphore at %#x is not in a file's memory", addr)
		}
		if err := j.t.count(addr, 1); err != nil {
			return err
		}
		_, err = j.add([]entry{e})
		return err
	})
}

// count adds to the counter at an address, within its bounds.
func (t *Tracee) count(addr uint64, n int) error {
	var b [2]byte
	if err := t.readAt(b[:], addr); err != nil {
		return err
	}
	v := int(binary.LittleEndian.Uint16(b[:])) + n
	if v < 0 || v > 0xffff {
		return nil
	}
	binary.LittleEndian.PutUint16(b[:], uint16(v))
	return t.writeAt(b[:], addr)
}

// lower counts all semaphores down that are still where they were.
func (j *Journal) lower() error {
	var ms []target.Mapping
	for i, e := range j.entries {
		if !e.live || e.kind != kindSema {
			continue
		}
		if ms == nil {
			var err error
			if ms, err = j.t.proc.Maps(); err != nil {
				return ErrGone
			}
		}
		// Retired first: once too seldom is the lesser evil.
		if err := j.retire(i); err != nil {
			return err
		}
		for _, m := range ms {
			if m.Start > e.addr || e.addr+2 > m.End || m.Inode != e.inode || m.Offset+e.addr-m.Start != e.offset {
				continue
			}
			if err := j.t.count(e.addr, -1); err != nil && !errors.Is(err, unix.EFAULT) && !errors.Is(err, unix.EIO) {
				return err
			}
		}
	}
	return nil
}
