package calls

// polls counts the polls of each future.
type polls struct {
	n map[future]uint64
	// known are the futures in n, in a circle whose oldest is at next.
	known  []future
	oldest int
}

// future is told from others by its address, which it has from its first poll on, and by
// its function: what is awaited may lie where the one that awaits it begins.
type future struct {
	pid      uint32
	addr     uint64
	function string
}

// maxFutures bounds the futures that are counted; the polls of the oldest have no number
// then.
const maxFutures = 1 << 16

// next is which poll of its future, from 1 on, r is the entry of; 0 if that is not known.
func (p *polls) next(r *Record) uint64 {
	if r.Future == 0 {
		return 0
	}
	key := future{r.Thread.PID, r.Future, r.Site.Function}
	n, known := p.n[key]
	switch {
	case r.First:
		// Another future may have been there before.
		p.n[key] = 1
	case known:
		p.n[key] = n + 1
		return n + 1
	default:
		return 0 // it was polled before the trace began
	}
	if known {
		return 1
	}
	if len(p.known) < maxFutures {
		p.known = append(p.known, key)
		return 1
	}
	delete(p.n, p.known[p.oldest])
	p.known[p.oldest] = key
	p.oldest = (p.oldest + 1) % maxFutures
	return 1
}

// ForgetPolls says that entries have been lost: the polls of futures that are known now
// can't be counted on.
func (j *Joiner) ForgetPolls() { j.polls = polls{n: map[future]uint64{}} }
