package check_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
	"ferrotrace/internal/script/random"
	"ferrotrace/internal/script/show"
	"ferrotrace/internal/script/source"
)

// through takes a text through all stages before a runtime.
func through(text string) (*check.Output, source.Errors, error) {
	tree, errs := parse.File("script", text, "7", "text")
	if errs.Failed() {
		return nil, errs, nil
	}
	if errs := macro.Expand(tree, check.Builtin); errs.Failed() {
		return nil, errs, nil
	}
	out, errs := check.Check(tree, random.Symbols{}, check.Options{Params: []string{"7", "text"}, MaxStr: 64, CPUs: 4, Unsafe: true, Format: show.CheckFormat})
	if out == nil {
		return nil, errs, nil
	}
	_, err := codegen.Compile(random.Program(out), codegen.Options{HaveLoop: true, CPUs: 4})
	return out, errs, err
}

// seeds are what FuzzCheck begins with, beside random scripts.
var seeds = []string{
	`uprobe:app::f { $x = args.item; print($x.owner.name); @[$x.kind] = count(); }`,
	`uretprobe:app::f /is(retval, Err)/ { @e[retval.Err.0] = hist(duration); }`,
	`uprobe:app::f { for ($kv : @m) { print($kv); } @m[args.name, 1] = (args.n, "x"); }`,
	`struct s { int a; struct s *b; char c[4]; } uprobe:app::plain { $s = (struct s *)arg0; print($s->b->c); print(*$s); }`,
	`macro m($a, @b, c) { @b[c] += $a; c } begin { $a = 1; print(m($a, @x, 3)); }`,
	`uprobe:app::* { print(args); printf("%?", args.whole); print(args.words[args.u].len); }`,
	`begin { @t = tseries(1, 1s, 5); @l[1] = lhist(3, 0, 10, 2); $b = buf("abc", 2); print(strftime("%S", nsecs)); }`,
	`config = { max_strlen = 99 } let @a = lruhash(5); interval:ms:5 { @a[1] = str($1); unroll(3) { @b++ } exit(1) }`,
	`uprobe:app::f { $p = args.node; while ($p != 0) { $p = $p->next; } print((uint8[8])args.big); }`,
	`uprobe:app::f { if (args.opt.Some.0 in 5) {} } fn f($x : int64) : int64 { return $x; }`,
}

// FuzzCheck: nothing that is written makes the checker panic or take for ever, and what it
// accepts compiles.
func FuzzCheck(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, uint64(0))
	}
	for seed := range uint64(20) {
		f.Add("", seed)
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		if text == "" {
			text = random.Script(r)
		}
		if seed != 0 {
			text = random.Mutated(r, text)
		}
		began := time.Now()
		_, _, err := through(text)
		if err != nil && !tooLarge(err) {
			t.Errorf("%v\n%s", err, text)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("takes %v:\n%s", took, text)
		}
	})
}

// tooLarge: bounds that only the code generator knows.
func tooLarge(err error) bool {
	var n int
	for e := err; e != nil; {
		if _, scan := fmt.Sscanf(e.Error(), "its variables and strings take %d bytes", &n); scan == nil {
			return true
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		e = u.Unwrap()
	}
	return false
}

// TestMutated is FuzzCheck, a little of it.
func TestMutated(t *testing.T) {
	for i := range uint64(400) {
		r := rand.New(rand.NewPCG(i, 2))
		text := random.Script(r)
		if i%4 == 0 {
			text = seeds[i/4%uint64(len(seeds))]
		}
		text = random.Mutated(r, text)
		if _, _, err := through(text); err != nil && !tooLarge(err) {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
