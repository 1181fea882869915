package check

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
	"strconv"
	"strings"
)

// ident is a bare name: a builtin value or a constant.
func (c *checker) ident(x *ast.Ident) *operand {
	if k, ok := c.consts[x.Name]; ok {
		o := integerLit(k.value, x)
		if k.enum != nil {
			t := *o.t.Type
			t.Enum = k.enum
			o.t = &typ{Type: &t}
			o.x = &ir.Const{T: &t, V: k.value}
			o.known = false
		}
		return o
	}
	b := func(t *ir.Type, k ir.BuiltinKind) *operand { return of(t, &ir.Builtin{T: t, Kind: k}, x) }
	inProcess := func() bool {
		if c.h.site == nil {
			c.errorf(x, "", "%s is that of a process that hits a probe: there is none here", x.Name)
			return false
		}
		return true
	}
	name := strings.TrimPrefix(x.Name, builtinPrefix)
	switch name {
	case "pid":
		return b(ir.U32, ir.Pid)
	case "tid":
		return b(ir.U32, ir.Tid)
	case "uid":
		return b(ir.U32, ir.UID)
	case "gid":
		return b(ir.U32, ir.GID)
	case "cpu":
		return b(ir.U32, ir.CPU)
	case "rand":
		return b(ir.U32, ir.Rand)
	case "cgroup":
		return b(ir.U64, ir.Cgroup)
	case "numaid":
		return b(ir.U32, ir.NUMANode)
	case "username":
		t := &ir.Type{Kind: ir.User, Size: 8}
		return of(t, &ir.Cast{T: t, X: &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.UID}}}, x)
	case "leader_tid":
		return b(ir.U32, ir.Pid)
	case "config":
		return c.settingsRecord(x)
	case "has_cpid":
		return of(ir.BoolType, &ir.Const{T: ir.BoolType, V: truth(c.o.Child)}, x)
	case "ncpus":
		return integerLit(uint64(max(c.o.CPUs, 1)), x)
	case "comm":
		return b(ir.TextType(16), ir.Comm)
	case "nsecs":
		return b(ir.U64, ir.Now)
	case "elapsed":
		return of(ir.U64, &ir.Binary{T: ir.U64, Op: ir.Sub, X: now, Y: &ir.Const{T: ir.U64, V: c.o.Start}}, x)
	case "cpid":
		return c.child(x)
	case "usermode":
		return integerLit(1, x)
	case "func":
		if c.h.site == nil {
			c.errorf(x, "", "func is that of a uprobe")
			return nil
		}
		return b(ir.NameType, ir.FuncName)
	case "probe":
		if c.h.site == nil {
			return of(ir.NameType, &ir.Const{T: ir.NameType, V: c.name(pointName(c.h.point))}, x)
		}
		return b(ir.NameType, ir.ProbeName)
	case "probetype":
		return c.strLit(probeType(c.h.point.Provider), x)
	case "args":
		if c.h.site == nil {
			c.errorf(x, "", "args are those of a uprobe")
			return nil
		}
		return c.allArgs(x)
	case "retval":
		if c.h.site == nil || !c.h.ret {
			c.errorf(x, "", "retval is that of a uretprobe")
			return nil
		}
		if c.h.site.Result == nil && c.h.site.NoArgs != "" && c.h.site.C {
			return of(ir.U64, &ir.Register{Reg: location.RAX}, x) // as bpftrace has it
		}
		if c.h.site.Result == nil {
			c.errorf(x, "", "%s returns nothing that is known", c.h.site.Func)
			return nil
		}
		c.h.result = true
		if r := c.h.site.Result; r.Missing == "" && r.Led != nil {
			return &operand{place: &place{t: r.Type, addr: c.resultAddress(*r.Led), strict: !c.h.site.C, named: "retval"}, node: x}
		}
		return c.siteValue(Result, c.h.site.Result, "retval", x)
	case "duration":
		if c.h.site == nil || !c.h.ret {
			c.errorf(x, "", "duration is that of a uretprobe")
			return nil
		}
		return of(ir.U64, c.duration(), x)
	case "ustack":
		return c.stack(maxFrames, c.config.StackMode)
	}
	if n, ok := argNumber(name, "arg"); ok {
		if !inProcess() {
			return nil
		}
		if s := c.h.site; c.h.point.Provider == ast.Usdt {
			if n >= len(s.Args) {
				c.errorf(x, "", "%s has %d arguments: arg0 is the first", s.Probe, len(s.Args))
				return nil
			}
			return c.siteValue(n, &s.Args[n], x.Name, x)
		}
		if n >= len(argRegisters) {
			c.errorf(x, "sargN are those on the stack", "only %d arguments are in registers", len(argRegisters))
			return nil
		}
		c.h.registers = true
		return of(ir.U64, &ir.Register{Reg: argRegisters[n]}, x)
	}
	if n, ok := argNumber(name, "sarg"); ok && inProcess() {
		c.h.registers = true
		sp := &ir.Register{Reg: location.RSP}
		return of(ir.U64, &ir.Load{T: ir.U64, Addr: plus(sp, int64(8*(n+1)))}, x)
	}
	if v, ok := wellKnown()[name]; ok {
		return integerLit(v, x)
	}
	switch name {
	case "kstack", "curtask", "jiffies", "ppid", "pcomm", "leader_comm", "ctx":
		c.errorf(x, "", "%s is not there: ferrotrace looks at user space", x.Name)
	default:
		c.errorf(x, nearest(x.Name, builtinNames), "unknown identifier: %s", x.Name)
	}
	return nil
}

var builtinNames = []string{"pid", "tid", "uid", "gid", "cpu", "rand", "cgroup", "ncpus", "comm", "nsecs", "elapsed", "cpid", "func", "probe", "probetype", "args", "retval", "duration", "ustack", "numaid", "username", "leader_tid", "config", "has_cpid", "usermode"}

// builtinPrefix is what bpftrace's own macros put before names of the language.
const builtinPrefix = "__builtin_"

// probeType is the kind of a probe, as bpftrace names it.
func probeType(p ast.Provider) string {
	switch p {
	case ast.Begin, ast.End, ast.Self:
		return "special"
	}
	return string(p)
}

// argRegisters are those of the System V psABI, 3.2.3.
var argRegisters = []location.Reg{location.RDI, location.RSI, location.RDX, location.RCX, location.R8, location.R9}

func argNumber(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok || digits == "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n >= 0 && n < 256
}

const maxFrames = 127

func (c *checker) stack(n int, mode string) *operand {
	c.h.registers = true
	t := &ir.Type{Kind: ir.Stack, Size: ir.StackHead + 8*n, Count: n, Format: mode}
	return of(t, &ir.Builtin{T: t, Kind: ir.UserStack, N: n}, nil)
}

// pointName is what probe is for what belongs to no site.
func pointName(p *ast.AttachPoint) string {
	if p.Name != "" {
		return p.Name
	}
	return p.Raw
}

func (c *checker) reg(x *ast.Call) *operand {
	name, ok := c.literal(x.Args[0], "reg()")
	if !ok {
		return nil
	}
	if c.h.site == nil {
		c.errorf(x, "", "registers are those of a process that hits a probe: there is none here")
		return nil
	}
	r, ok := registers[strings.TrimPrefix(name, "r")]
	if !ok {
		r, ok = registers[name]
	}
	if !ok {
		c.errorf(x, "ax, bx, cx, dx, si, di, bp, sp, ip, r8 … r15", "'%s' is not a valid register on this architecture (x86-64)", name)
		return nil
	}
	c.h.registers = true
	return of(ir.U64, &ir.Register{Reg: r}, x)
}

var registers = map[string]location.Reg{
	"ax": location.RAX, "bx": location.RBX, "cx": location.RCX, "dx": location.RDX, "si": location.RSI, "di": location.RDI, "bp": location.RBP, "sp": location.RSP, "ip": location.RA, "pc": location.RA,
	"r8": location.R8, "r9": location.R9, "r10": location.R10, "r11": location.R11, "r12": location.R12, "r13": location.R13, "r14": location.R14, "r15": location.R15,
}

func (c *checker) nsecs(x *ast.Call) *operand {
	clock := ir.Monotonic
	if len(x.Args) == 1 {
		id, ok := x.Args[0].(*ast.Ident)
		if !ok {
			c.errorf(x, "monotonic, boot, tai, sw_tai", "nsecs() wants the name of a clock")
			return nil
		}
		switch id.Name {
		case "monotonic":
		case "boot":
			clock = ir.Boot
		case "tai", "sw_tai":
			clock = ir.TAI
		default:
			c.errorf(x, "monotonic, boot, tai, sw_tai", "no clock is called %s", id.Name)
			return nil
		}
	}
	return of(ir.U64, &ir.Builtin{T: ir.U64, Kind: ir.Now, N: int(clock)}, x)
}

func (c *checker) ustack(x *ast.Call) *operand {
	n, mode := uint64(maxFrames), c.config.StackMode
	for i, a := range x.Args {
		if id, ok := a.(*ast.Ident); ok && i == 0 {
			if m, ok := stackModes[id.Name]; ok {
				mode = m
				continue
			}
			c.errorf(a, "bpftrace, perf, raw, build_id", "invalid stack mode: '%s'", id.Name)
			return nil
		}
		if i != len(x.Args)-1 {
			c.errorf(a, "ustack(perf, 3)", "the mode of a stack stands first")
			return nil
		}
		v, ok := c.constant(a)
		if !ok || v == 0 || v > maxFrames {
			c.errorf(a, "", "how many frames: 1 to %d", maxFrames)
			return nil
		}
		n = v
	}
	o := c.stack(int(n), mode)
	o.node = x
	return o
}

// stackModes are the Formats of stacks, by their names in the language.
var stackModes = map[string]string{"bpftrace": "", "perf": "perf", "raw": "raw", "build_id": "build_id"}

func (c *checker) usym(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	words := ir.TupleOf(nil, []*ir.Type{ir.U64, ir.U64, ir.U64})
	t := &ir.Type{Kind: ir.Symbol, Size: ir.SymbolSize}
	bias := ir.Expr(&ir.Const{T: ir.U64})
	if c.h.site != nil {
		bias = &ir.Builtin{T: ir.U64, Kind: ir.Bias}
	}
	m := &ir.MakeTuple{T: words, Elems: []ir.Expr{convert(o, ir.U64), &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.Pid}}, bias}}
	return of(t, &ir.Cast{T: t, X: m}, x)
}

// allArgs are a function's arguments as a record.
func (c *checker) allArgs(x *ast.Ident) *operand {
	s := c.h.site
	if s.Args == nil && s.NoArgs != "" {
		c.errorf(x, s.NoArgs, "the arguments of %s are not known", s.Func)
		return nil
	}
	m := &ir.MakeTuple{}
	var names []string
	var ts []*ir.Type
	for i := range s.Args {
		whole := c.siteValue(i, &s.Args[i], "args."+s.Args[i].Name, x)
		o := c.value(whole, x)
		if o == nil {
			if whole != nil && whole.place != nil {
				c.errs[len(c.errs)-1].Hint = "print(args) shows all of them, and %? one: args." + s.Args[i].Name
			}
			return nil
		}
		names, ts, m.Elems = append(names, s.Args[i].Name), append(ts, o.t.Type), append(m.Elems, o.x)
	}
	m.T = ir.TupleOf(names, ts)
	return of(m.T, m, x)
}
