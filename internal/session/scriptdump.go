package session

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime/user"
)

// dry shows a stage of the script, or compiles it, and attaches nothing.
func (s *scripted) dry() (int, error) {
	var b bytes.Buffer
	var err error
	switch s.sc.Dump {
	case "program":
		err = ir.Dump(&b, s.out.Script)
	case "sites":
		s.dumpSites(&b)
	default:
		// Of the runtime that would be taken, as far as that can be told without looking at
		// permissions: a dump is the same on every machine.
		o := codegen.Options{HaveLoop: true, XMM: user.XMM, Reserve: true}
		if s.r.o.Runtime == Kernel || s.r.notUser != nil || samples(s.out.Script) || mayUser(&s.r.o) != nil {
			o = codegen.Options{Sleepable: true, HaveLoop: true}
			s.r.b.prog.Filter = len(s.r.who.PIDs)+len(s.r.o.Command) > 0
		}
		var c *codegen.Compiled
		if c, err = s.r.compile(o); err == nil && s.sc.Dump == "bpf" {
			err = c.Dump(&b)
		}
		s.r.o.Doing("")
	}
	if err != nil {
		return failed, err
	}
	if b.Len() > 0 {
		s.sc.Out("%s", b.String())
	}
	return 0, nil
}

// dumpSites writes where handlers run: for each address the function, the handler, where what
// it looks at is, and how the runtimes would plant the probe.
func (s *scripted) dumpSites(w io.Writer) {
	script, b := s.out.Script, s.r.b
	for _, f := range s.r.files {
		var addrs []uint64
		var cookies []int
		for i := range b.prog.Probes {
			if b.prog.Probes[i].Path == f.path {
				addrs, cookies = append(addrs, b.prog.Probes[i].Addr), append(cookies, i)
			}
		}
		if len(addrs) == 0 {
			continue
		}
		fmt.Fprintf(w, "file %s\n", f.shown)
		ways := user.Explain(f.ix.Text(), addrs)
		for n, i := range cookies {
			p := &b.prog.Probes[i]
			fmt.Fprintf(w, "site %d at %#x: %s\n", i, p.Addr, script.Names[script.Words[i].Probe])
			fmt.Fprintf(w, "  function %s\n", script.Names[script.Words[i].Func])
			for _, it := range p.Items {
				s.dumpItem(w, &it)
			}
			if sema, ok := b.semaphores[uint64(i)]; ok {
				fmt.Fprintf(w, "  semaphore at %#x\n", p.Addr+uint64(sema.Ahead))
			}
			kernel := "none: " + errRefused.Error()
			if s.r.kernelCould(uint64(i)) {
				kernel = fmt.Sprintf("uprobe, %v", kernelCost(b.insts[i]))
			}
			way := ways[n].How
			if ways[n].Err != nil {
				way = "none: " + ways[n].Err.Error()
			}
			fmt.Fprintf(w, "  kernel %s\n  user %s\n", kernel, way)
		}
	}
	for _, t := range script.Timers {
		fmt.Fprintf(w, "timer %s: handler %d\n", t, t.Handler)
	}
}

func (s *scripted) dumpItem(w io.Writer, it *program.Item) {
	fmt.Fprintf(w, "  handler %d %s", it.Handler, s.out.Script.Handlers[it.Handler].Name)
	if it.Cond >= 0 {
		fmt.Fprintf(w, ", if the jump is taken")
	}
	fmt.Fprintln(w)
	for _, v := range it.Values {
		name := strings.TrimSpace(v.Name)
		if name == "" {
			name = "retval"
		}
		fmt.Fprintf(w, "    %s: %s in %s\n", name, v.Type.Display(), v.Place)
	}
}

func samples(s *ir.Script) bool {
	for _, t := range s.Timers {
		if t.Kind == ir.Profile {
			return true
		}
	}
	return false
}
