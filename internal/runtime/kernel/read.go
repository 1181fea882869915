package kernel

import (
	"context"
	"errors"
	"ferrotrace/internal/runtime"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// idleEvery is how often idle is called while no records come.
const idleEvery = 100 * time.Millisecond

// Read implements runtime.Session. Only one may be under way.
func (s *session) Read(ctx context.Context, f func([]byte) error, idle func(uint64) error) error {
	if s.ring == nil {
		return waitIdle(ctx, idle)
	}
	// A flush wakes the reader up.
	stop := context.AfterFunc(ctx, func() { _ = s.ring.Flush() })
	defer stop()

	var rec ringbuf.Record
	for ctx.Err() == nil {
		if rec.Remaining == 0 {
			now := runtime.Monotonic()
			if s.ring.AvailableBytes() == 0 {
				if err := idle(now); err != nil {
					return err
				}
			}
			s.ring.SetDeadline(time.Now().Add(idleEvery))
		}
		switch err := s.ring.ReadInto(&rec); {
		case err == nil:
			if err := f(rec.RawSample); err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			rec.Remaining = 0
		default:
			return fmt.Errorf("kernel runtime: reading records: %w", err)
		}
	}
	return s.drain(f, idle)
}

// drain passes what is in the ring, and no more than that: probes that are still
// attached can fill it as fast as it is read.
func (s *session) drain(f func([]byte) error, idle func(uint64) error) error {
	now := runtime.Monotonic()
	left := s.ring.AvailableBytes()
	s.ring.SetDeadline(time.Unix(0, 1))
	var rec ringbuf.Record
	for left > 0 {
		err := s.ring.ReadInto(&rec)
		if errors.Is(err, ringbuf.ErrFlushed) {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return fmt.Errorf("kernel runtime: reading records: %w", err)
		}
		// A record takes a header of 8 bytes and is padded to 8 (kernel/bpf/ringbuf.c).
		left -= 8 + (len(rec.RawSample)+7)&^7
		if err := f(rec.RawSample); err != nil {
			return err
		}
	}
	return idle(now)
}

func waitIdle(ctx context.Context, idle func(uint64) error) error {
	tick := time.NewTicker(idleEvery)
	defer tick.Stop()
	for {
		if err := idle(runtime.Monotonic()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
