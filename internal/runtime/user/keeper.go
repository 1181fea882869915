package user

import (
	"context"
	"errors"
	"sync"
	"time"

	"ferrotrace/internal/runtime/user/inject"
)

const (
	// tick is how often the keeper looks after the processes: thread names that programs
	// remember are no older.
	tick = 20 * time.Millisecond
	// clockEvery is how often the clock is set right.
	clockEvery = time.Second
)

// keeper looks after the traced processes while their probes are in: it keeps their
// clock right and their threads' names fresh.
type keeper struct {
	cancel    context.CancelFunc
	done      sync.WaitGroup
	processes []*process
}

// keep starts a keeper. It must be stopped without s.mu being held by anyone who waits
// for it.
func keep(s *session) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	processes := append([]*process(nil), s.order...)
	k := &keeper{cancel: cancel, processes: processes}
	rung := make(chan *process)
	for _, p := range processes {
		if p.loader {
			k.done.Go(func() { p.listen(ctx, rung) })
			k.done.Go(func() { p.beat(ctx) })
		}
	}
	k.done.Go(func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		published := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case p := <-rung:
				p.heed(ctx, s.tell)
				continue
			case <-t.C:
			}
			clock := time.Since(published) >= clockEvery
			if clock {
				published = time.Now()
			}
			for _, p := range processes {
				p.memory.ExpireComms()
				if clock {
					s.clock.Publish(p.memory)
				}
				p.look(ctx)
				if len(p.modules) > 0 && (clock || !p.loader) {
					p.heed(ctx, s.tell)
				}
			}
		}
	})
	return k
}

// listen passes on that a thread of the process, or of one forked from it, has rung.
func (p *process) listen(ctx context.Context, rung chan<- *process) {
	loads := p.memory.Loads()
	for last := uint32(0); ctx.Err() == nil; {
		now := loads.Await(last, listenWait)
		if now == last {
			continue
		}
		last = now
		select {
		case rung <- p:
		case <-ctx.Done():
		}
	}
}

// beat shows threads that wait that it is not in vain.
func (p *process) beat(ctx context.Context) {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		p.memory.Loads().Beat()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// listenWait bounds how long a listener sleeps.
const listenWait = time.Second

func (k *keeper) stop() {
	k.cancel()
	for _, p := range k.processes {
		p.memory.Loads().Ring() // for those who listen
	}
	k.done.Wait()
}

// look is the keeper's look at one process.
func (p *process) look(ctx context.Context) {
	p.stops.Lock()
	defer p.stops.Unlock()
	if p.hold {
		return
	}
	p.lookForExec(ctx)
	if p.guard != nil {
		_ = p.guard.Check(ctx) // a process that is gone is noticed elsewhere
	}
	if !p.hasTID && p.leader.TID != 0 {
		// A static program had not set it when its probes were planted.
		p.findThreadID(ctx, []inject.ThreadState{p.leader})
	}
	p.remember(ctx)
}

// lookForExec notes whether the process has executed another program. One that ends
// before anybody looks is not noticed.
func (p *process) lookForExec(ctx context.Context) {
	if p.executed != nil && !p.executed.Load() && errors.Is(p.t.Same(ctx), inject.ErrExec) {
		p.executed.Store(true)
	}
}
