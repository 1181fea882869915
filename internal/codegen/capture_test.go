package codegen

import (
	"strings"
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
)

// TestCapture runs programs in the kernel over the target's values and compares
// what the records decode to.
func TestCapture(t *testing.T) {
	o := kernelOptions(t)
	strArg := value("s", tStr, inReg(0, 8, location.RDI), inReg(8, 8, location.RSI))
	tests := []struct {
		name   string
		args   []string
		limits program.Limits
		values []program.Value
		want   []string // by record
	}{
		{name: "scalars", values: []program.Value{
			value("a", tI32, inReg(0, 4, location.RDI)),
			value("b", tU8, inReg(0, 1, location.RSI)),
			value("c", tBool, inReg(0, 1, location.RDX)),
			value("d", tU16, inReg(0, 2, location.RCX)),
			value("e", tU64, computed(0, 8, reg(location.R8), location.Op{Kind: location.OpConst, Arg: 6}, location.Op{Kind: location.OpMul})),
			value("f", tI8, inReg(0, 1, location.R9)),
			value("unit", tUnit),
			value("gone", tU64, missing(0, 8, location.OptimizedOut)),
			value("known", tU32, constant(0, 1, 2, 0, 0)),
			value("xmm", tF64, inReg(0, 8, location.XMM0)),
			value("global", tU64, inMemory(0, 8, location.Op{Kind: location.OpStatic, Arg: -1})),
			value("bad", tU64, inMemory(0, 8, location.Op{Kind: location.OpConst, Arg: 16})),
			value("half", tPoint, inReg(0, 4, location.RDI), missing(4, 4, location.OptimizedOut)),
		}, want: []string{`a: -5
b: 255
c: true
d: 120
e: 42
f: -1
unit: ()
gone: (optimized out)
known: 513
xmm: (unsupported: in xmm0, which a kernel probe cannot see)
global: 1234605616436508552
bad: (unreadable)
half: Point { x: -5, y: <unreadable> } partial
`}},
		{name: "str", values: []program.Value{
			strArg,
			value("cut", tStr, inReg(0, 8, location.RDI), constant(8, 3, 0, 0, 0, 0, 0, 0, 0)),
			value("lost", tStr, inReg(0, 8, location.RDI), missing(8, 8, location.OptimizedOut)),
		}, want: []string{`s: "hello"
cut: "hel"
lost: (optimized out)
`}},
		{name: "str", limits: program.Limits{MaxStr: 4, MaxItems: 4, Depth: 1}, values: []program.Value{strArg}, want: []string{"s: \"hell…\" truncated\n"}},
		{name: "str", limits: program.Limits{MaxStr: 4, MaxItems: 4, Depth: 0}, values: []program.Value{strArg}, want: []string{"s: … truncated\n"}},
		{name: "point", values: []program.Value{
			value("p", refTo(tPoint), inReg(0, 8, location.RDI)),
			by("q", tPoint, location.RDI),
		}, want: []string{"p: Point { x: 3, y: -4 }\nq: Point { x: 3, y: -4 }\n"}},
		{name: "strings", args: []string{"3"}, values: []program.Value{by("v", vecOf(tString), location.RDI)},
			want: []string{"v: [\"string 0\", \"string 1\", \"string 2\"]\n"}},
		{name: "strings", args: []string{"0"}, values: []program.Value{by("v", vecOf(tString), location.RDI)}, want: []string{"v: []\n"}},
		{name: "strings", args: []string{"3"}, limits: program.Limits{MaxStr: 256, MaxItems: 2, Depth: 8},
			values: []program.Value{value("v", refTo(vecOf(tString)), inReg(0, 8, location.RDI))},
			want:   []string{"v: [\"string 0\", \"string 1\", …] truncated\n"}},
		{name: "matrix", values: []program.Value{by("m", vecOf(vecOf(tU32)), location.RDI)},
			want: []string{"m: [[1, 2, 3, 4], [5], []]\n"}},
		{name: "matrix", limits: program.Limits{MaxStr: 256, MaxItems: 64, Depth: 1}, values: []program.Value{by("m", vecOf(vecOf(tU32)), location.RDI)},
			want: []string{"m: […, …, []] truncated\n"}},
		{name: "list", limits: program.Limits{MaxStr: 256, MaxItems: 64, Depth: 2}, values: []program.Value{value("l", refTo(tNode), inReg(0, 8, location.RDI))},
			want: []string{"l: Node { next: Some(Node { next: Some(…), value: 1 }), value: 0 } truncated\n"}},
		{name: "cycle", limits: program.Limits{MaxStr: 256, MaxItems: 64, Depth: 3}, values: []program.Value{value("l", refTo(tNode), inReg(0, 8, location.RDI))},
			want: []string{"l: Node { next: Some(Node { next: Some(Node { next: Some(…), value: 1 }), value: 2 }), value: 1 } truncated\n"}},
		{name: "bad", values: []program.Value{
			by("v", vecOf(tStr), location.RDI),
			value("s", tStr, inReg(0, 8, location.RSI), inReg(8, 8, location.RDX)),
			value("p", refTo(tPoint), inReg(0, 8, location.RCX)),
			by("q", tPoint, location.RCX),
			value("w", vecOf(tU32), inMemory(0, 8, reg(location.RDI)), inMemory(8, 8, reg(location.RSI)), inReg(16, 8, location.RDX)),
		}, want: []string{`v: ["good", <unreadable>, "fine"] partial
s: (unreadable)
p: (unreadable)
q: (unreadable)
w: (unreadable)
`}},
		{name: "untouched", values: []program.Value{strArg}, want: []string{"s: \"far\"\n"}},
		{name: "choices", values: []program.Value{by("c", choice(), location.RDI)},
			want: []string{"c: Number(17)\n", "c: Text(\"text\")\n", "c: Boxed(\"boxed\")\n"}},
		{name: "containers", values: containers(), want: []string{`table: {"early", "late"}
ring: ["a", "b"]
chain: ["1", "2"]
tree: {"k", "l", "m", "n"}
shared: "shared"
`}},
		// The hops from node to node are no pointers that depth counts.
		{name: "containers", limits: program.Limits{MaxStr: 256, MaxItems: 64, Depth: 1}, values: containers(), want: []string{`table: {…, …} truncated
ring: […, …] truncated
chain: […, …] truncated
tree: {…, …, …, …} truncated
shared: … truncated
`}},
		{name: "containers", limits: program.Limits{MaxStr: 256, MaxItems: 1, Depth: 8}, values: containers(), want: []string{`table: {"early", …} truncated
ring: ["a", …] truncated
chain: ["1", …] truncated
tree: {"k", …} truncated
shared: "shared"
`}},
		{name: "large", limits: program.Limits{MaxStr: 256, MaxItems: 3, Depth: 8}, values: []program.Value{
			by("a", arrayOf(tU8, 10000), location.RDI),
			by("v", vecOf(arrayOf(tU8, 10000)), location.RSI),
		}, want: []string{"a: [7, 7, 7, …] truncated\nv: [[7, 7, 7, …], …] truncated\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			probe := targetAt(t, "hit", entry(tt.values...))
			global, _ := lookupSymbol(t, probe.Path, "global")
			for _, v := range tt.values {
				for _, q := range v.Place.Pieces {
					if q.Expr.Uses(location.OpStatic) {
						q.Expr[0].Arg = int64(global)
					}
				}
			}
			p := programOf(probe)
			if tt.limits != (program.Limits{}) {
				p.Limits = tt.limits
			}
			l := load(t, p, o)
			pid := l.run(t, append([]string{tt.name}, tt.args...)...)
			var got []string
			for _, r := range l.records(t) {
				got = append(got, texts(r))
				if int(r.PID) != pid || int(r.TID) != pid || r.Command() != "target" || r.CFA == 0 || r.Time == 0 {
					t.Errorf("header %+v, pid %d", r.Header, pid)
				}
			}
			if strings.Join(got, "---\n") != strings.Join(tt.want, "---\n") {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "---\n"), strings.Join(tt.want, "---\n"))
			}
			l.noLoss(t)
		})
	}
}
