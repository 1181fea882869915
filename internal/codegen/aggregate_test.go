package codegen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"testing"
	"time"

	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
)

// firstValues runs the script's begin everywhere, and hands over the first value of each
// of its maps, which have no keys: what each CPU has.
func firstValues(t *testing.T, s *ir.Script, check func(how string, m int, cpus [][]byte)) {
	t.Helper()
	p := &program.Program{Script: s, Limits: program.DefaultLimits}
	key := make([]byte, 4)
	inner := check
	check = func(how string, m int, cpus [][]byte) {
		there := uint64(0)
		for i, v := range cpus {
			n := len(v) - SingleSet
			there |= binary.LittleEndian.Uint64(v[n:])
			cpus[i] = v[:n]
		}
		if there != 1 {
			t.Errorf("%s: map %d has no value", how, m)
		}
		inner(how, m, cpus)
	}
	if os.Geteuid() == 0 {
		o := kernelOptions(t)
		o.CPUs = ebpf.MustPossibleCPU()
		l := load(t, p, o, func(spec *ebpf.CollectionSpec) { sizeFrames(spec, ebpf.MustPossibleCPU()) })
		for _, name := range l.Timers {
			if _, err := l.coll.Programs[name].Run(&ebpf.RunOptions{Context: make([]byte, 96)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range s.Maps {
			var cpus [][]byte
			if err := l.coll.Maps[mapName(i)].Lookup(key, &cpus); err != nil {
				t.Fatalf("map %d: %v", i, err)
			}
			check("kernel", i, cpus)
		}
	}
	o := byReserve
	o.CPUs = userCPUs
	for _, how := range []string{"jit", "interpreter"} {
		u := loadUser(t, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
		r := newRegisters(0)
		for i, name := range u.Timers {
			u.Probes = append(u.Probes, runtime.Probe{Program: name, Cookie: uint64(i)})
			if how == "jit" {
				u.hit(r, i)
			} else {
				u.interpret(t, r, i)
			}
		}
		for i := range s.Maps {
			view, ok := u.memory.View(mapName(i))
			if !ok {
				t.Fatalf("no map %d", i)
			}
			var cpus [][]byte
			for cpu := range view.CPUs() {
				cpus = append(cpus, bytes.Clone(view.Lookup(key, cpu)))
			}
			check(how, i, cpus)
		}
	}
}

// What programs add up is what ir reads.
func TestAggregatesRead(t *testing.T) {
	numbers := []int64{5, -7, 100, 3, 0, 1, 2, 1 << 40, -1 << 63, 1<<63 - 1, 7, 7}
	s := &scripting{}
	var want []any
	table := func(typ *ir.Type, w any) {
		m := s.table(nil, typ)
		for _, n := range numbers {
			s.add(&ir.Aggregate{Map: m, X: num64(n)})
		}
		want = append(want, w)
	}
	var sum uint64
	for _, n := range numbers {
		sum += uint64(n)
	}
	count := uint64(len(numbers))
	table(&ir.Type{Kind: ir.Count}, ir.Total{Number: count})
	table(&ir.Type{Kind: ir.Sum, Signed: true}, ir.Total{Number: sum})
	table(&ir.Type{Kind: ir.Avg, Signed: true}, ir.Total{Number: uint64(int64(sum) / int64(count)), Sum: sum, Count: count})
	table(&ir.Type{Kind: ir.Stats}, ir.Total{Number: sum / count, Sum: sum, Count: count})
	table(&ir.Type{Kind: ir.Min, Signed: true}, ir.Total{Number: 1 << 63, Count: 1})
	table(&ir.Type{Kind: ir.Max, Signed: true}, ir.Total{Number: 1<<63 - 1, Count: 1})
	table(&ir.Type{Kind: ir.Min}, ir.Total{Number: 0, Count: 1})
	table(&ir.Type{Kind: ir.Max}, ir.Total{Number: 1<<64 - 7, Count: 1})
	for k := range 6 {
		for _, signed := range []bool{false, true} {
			typ := &ir.Type{Kind: ir.Hist, Signed: signed, Bits: k}
			counters := make([]uint64, typ.Buckets())
			for _, n := range numbers {
				// What ir.Type.Buckets says of their order.
				at := int(n) + 1
				if signed && n < 0 {
					at = 0
				} else if p := bits.Len64(uint64(n)) - 1; p > k {
					at = 1 + 2<<k + (p-k-1)<<k + int(uint64(n)>>(p-k))&(1<<k-1)
				}
				counters[at]++
			}
			table(typ, counters)
		}
	}
	table(&ir.Type{Kind: ir.LHist, Signed: true, From: -10, To: 8, Step: 5}, []uint64{1, 1, 0, 4, 3, 3})
	const every = 1000 * time.Hour
	for _, c := range []struct {
		agg    ir.TypeKind
		number int64
	}{{ir.Void, 7}, {ir.Count, int64(count)}, {ir.Sum, int64(sum)}, {ir.Avg, int64(sum) / int64(count)}, {ir.Min, -1 << 63}, {ir.Max, 1<<63 - 1}} {
		table(&ir.Type{Kind: ir.Series, Signed: true, Count: 3, Every: every, Agg: c.agg}, c.number)
	}
	s.Handlers = []*ir.Handler{&s.h}
	s.Timers = []ir.Timer{{Kind: ir.Begin}}
	firstValues(t, &s.Script, func(how string, m int, cpus [][]byte) {
		typ := s.Maps[m].Value
		ok, got := false, any(nil)
		switch w := want[m].(type) {
		case ir.Total:
			total := typ.Total(cpus)
			ok, got = total == w, total
		case []uint64:
			counters := typ.Counters(cpus)
			ok, got = slices.Equal(counters, w), counters
		case int64:
			// Time may have reached the next interval once, in 1000 hours.
			points := typ.Points(cpus)
			now := uint64(time.Now().UnixNano()) / uint64(every)
			ok, got = len(points) == 2 || len(points) == 1 && points[0].Number == uint64(w) && now-points[0].Interval < 2, points
		}
		if !ok {
			t.Errorf("%s: map %d, %s of %d bits: %s, want %s", how, m, typ, typ.Bits, fmt.Sprint(got), fmt.Sprint(want[m]))
		}
	})
}
