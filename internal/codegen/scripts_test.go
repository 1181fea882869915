package codegen

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strings"
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
	"ferrotrace/internal/script/random"

	"github.com/cilium/ebpf"
)

// TestRandomScripts: what random scripts print is the same by the kernel, the JIT and the
// interpreter, and the verifier accepts whatever was compiled.
func TestRandomScripts(t *testing.T) {
	n := 24
	if testing.Short() {
		n = 6
	}
	good := 0
	for seed := range uint64(n) {
		if randomScript(t, seed) {
			good++
		}
	}
	if good < n/2 {
		t.Errorf("only %d of %d scripts are good ones", good, n)
	}
}

// FuzzScripts is TestRandomScripts without an end.
func FuzzScripts(f *testing.F) {
	f.Fuzz(func(t *testing.T, seed uint64) { randomScript(t, seed) })
}

func randomScript(t *testing.T, seed uint64) (good bool) {
	goruntime.LockOSThread() // tid is that of the thread
	defer goruntime.UnlockOSThread()
	text := random.Script(rand.New(rand.NewPCG(seed, 0)))
	tree, errs := parse.File("script", text)
	if errs.Failed() {
		t.Fatalf("%v\n%s", errs, text)
	}
	if errs := macro.Expand(tree, check.Builtin); errs.Failed() {
		t.Fatalf("%v\n%s", errs, text)
	}
	out, errs := check.Check(tree, random.Symbols{}, check.Options{MaxStr: 64, CPUs: 4})
	if out == nil {
		t.Logf("seed %d: %v", seed, errs[0])
		return false
	}
	p := random.Program(out)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, text)
		}
	}()
	s := p.Script
	o := byReserve
	o.CPUs = userCPUs
	sites := len(p.Probes)
	said := map[string]string{}
	at := newRegisters(len(arguments(0)))
	copy(at.data(), arguments(at64(at.data())))
	at.set(location.RDI, at64(at.data()))
	at.set(location.RAX, at64(at.data())+12*random.Slot)
	at.set(location.RSI, at64(at.data())+text0)
	user := func(how string, hit func(u *inUser, cookie int)) {
		u := loadUser(t, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
		for i, name := range u.Timers {
			u.Probes = append(u.Probes, runtime.Probe{Program: name, Cookie: uint64(sites + i)})
			hit(u, sites+i)
		}
		said[how] = heard(t, u.Compiled, s, u.raw(t))
		for i := range sites {
			hit(u, i)
		}
		said[how+" at sites"] = heard(t, u.Compiled, s, u.raw(t))
	}
	user("the JIT", func(u *inUser, i int) { u.hit(at, i) })
	user("the interpreter", func(u *inUser, i int) { u.interpret(t, at, i) })
	if a, b := said["the JIT at sites"], said["the interpreter at sites"]; a != b && !strings.Contains(text, "duration") {
		t.Errorf("at sites, the JIT:\n%sthe interpreter:\n%s", a, b)
	}
	if a, b := said["the JIT"], said["the interpreter"]; a != b {
		t.Errorf("the JIT:\n%sthe interpreter:\n%s", a, b)
	}
	if os.Geteuid() != 0 {
		return true
	}
	o = kernelOptions(t)
	o.CPUs = ebpf.MustPossibleCPU()
	l := load(t, p, o, func(spec *ebpf.CollectionSpec) { sizeFrames(spec, ebpf.MustPossibleCPU()) })
	for _, name := range l.Timers {
		if _, err := l.coll.Programs[name].Run(&ebpf.RunOptions{Context: make([]byte, 96)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := l.coll.Maps[runtime.MapEvents]; ok {
		if got := heard(t, l.Compiled, s, l.raw(t)); got != said["the JIT"] {
			t.Errorf("the kernel:\n%sthe JIT:\n%s", got, said["the JIT"])
		}
	}
	return true
}

// Where things are behind the arguments of random.Symbols' functions.
const (
	text0 = 20 * random.Slot // "pear", ended by a zero
	item0 = text0 + 64       // an app::Item
	node0 = item0 + 256      // an app::Node that leads to itself
	vec0  = node0 + 64       // a Vec of three Strings
	strs0 = vec0 + 64        // they
	end   = strs0 + 128
)

// arguments are all arguments of random.Symbols' functions, at an address.
func arguments(base uint64) []byte {
	b := make([]byte, end)
	word := func(off int, vs ...uint64) {
		for i, v := range vs {
			binary.LittleEndian.PutUint64(b[off+8*i:], v)
		}
	}
	text := func(off int) { word(off, 4, base+text0, 4) } // of a String
	arg := func(i int) int { return i * random.Slot }
	copy(b[text0:], "pear\x00")
	item := func(off int) {
		// id, price, name, dims, kind, owner, tags, fresh
		word(off, 7, ^uint64(0)-99)
		text(off + 16)
		word(off+40, 5|0xfff0<<16, 1)
		text(off + 56)
		word(off+80, 33)
		word(off+88, 3, base+strs0, 3)
		word(off+112, 1)
	}
	for i := range 3 {
		text(strs0 + 24*i)
	}
	word(vec0, 3, base+strs0, 3)
	word(node0, 9, base+node0)
	item(item0)
	word(arg(0), uint64(1<<32-5)) // n
	word(arg(1), 200)
	word(arg(2), 1<<40)
	word(arg(3), 1)
	word(arg(4), 'x')
	word(arg(5), 0x3ff8000000000000)
	word(arg(6), base+text0, 3)
	text(arg(7))
	word(arg(8), 1)
	word(arg(9), base+item0)
	item(arg(10))
	word(arg(11), 1, 77)
	word(arg(12), 1, base+text0, 2)
	word(arg(13), base+vec0)
	word(arg(14), base+text0, 4)
	word(arg(15), 1|2<<32, 3|4<<32)
	word(arg(16), base+node0)
	return b
}
