package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/script/show"
)

// event does what a handler asked for.
func (s *scripted) event(raw []byte) error {
	rec, err := s.compiled.Schema.Decode(raw)
	if err != nil {
		return err
	}
	if rec.Item != record.ScriptItem || rec.Cookie >= uint64(len(s.compiled.Events)) {
		return record.ErrMalformed
	}
	em := s.compiled.Events[rec.Cookie]
	ev := s.out.Script.Events[em.Event]
	var args []show.Arg
	rust := 0
	for i, t := range ev.Args {
		a := show.Arg{Type: t}
		if em.Offs[i] < 0 {
			a.Rust = &rec.Values[rust]
			rust++
		} else {
			off := record.HeaderSize + em.Offs[i]
			a.Bytes = raw[off:min(off+max(t.Size, 8), len(raw))]
		}
		args = append(args, a)
	}
	switch ev.Kind {
	case ir.Printf, ir.Errorf, ir.Warnf, ir.Debugf, ir.System, ir.Cat:
		return s.printf(ev, args)
	case ir.Helper:
		return s.helper(ev)
	case ir.Print:
		if ev.Names != nil {
			s.say("value", s.env.Record(ev.Names, args)+"\n", func() show.JSON { return s.env.RecordJSON(ev.Names, args) })
			return nil
		}
		s.say("value", s.env.Text(args[0])+"\n", func() show.JSON { return s.env.JSON(args[0]) })
	case ir.PrintMap:
		return s.printMap(ev.Map, ev.Top, ev.Div, true)
	case ir.PrintKey:
		return s.printKey(ev, args[0].Bytes)
	case ir.ClearMap, ir.ZeroMap:
		return s.table(ev.Map).empty(ev.Kind == ir.ZeroMap)
	case ir.Exit:
		if len(args) > 0 {
			s.status = int(int64(binary.LittleEndian.Uint64(args[0].Bytes))) & 0xff
		}
		s.muted = true
		s.finish()
	case ir.Join:
		var words []string
		for i := 0; i+1 < len(args); i += 2 {
			if binary.LittleEndian.Uint64(args[i].Bytes) == 0 {
				break
			}
			words = append(words, s.env.Text(args[i+1]))
		}
		text := strings.Join(words, ev.Format)
		s.say("join", text+"\n", func() show.JSON { return show.Quote(text) })
	case ir.Time:
		text := show.Strftime(ev.Format, time.Now())
		s.say("time", text, func() show.JSON { return show.Quote(text) })
	default:
		return fmt.Errorf("event of kind %d", ev.Kind)
	}
	return s.r.failed
}

// say passes on what a handler says.
func (s *scripted) say(kind, text string, data func() show.JSON) {
	e := event.Said{Kind: kind, Text: text}
	if s.sc.JSON {
		e.Data = data()
	}
	s.r.emit(e)
}

func (s *scripted) printf(ev *ir.Event, args []show.Arg) error {
	env := *s.env
	// The shell and the file system are given strings as they are.
	env.Raw = env.Raw || ev.Kind == ir.System || ev.Kind == ir.Cat
	text, err := env.Printf(ev.Format, args)
	if err != nil {
		return err
	}
	switch ev.Kind {
	case ir.Printf:
		s.say("printf", text, func() show.JSON { return show.Quote(text) })
	case ir.Debugf:
		s.sc.Errors("debug: " + strings.TrimSuffix(text, "\n"))
	case ir.Errorf, ir.Warnf:
		kind, typ := "ERROR", "errorf"
		if ev.Kind == ir.Warnf {
			if s.sc.NoWarnings {
				break
			}
			kind, typ = "WARNING", "warnf"
		}
		if s.sc.JSON {
			var b bytes.Buffer
			if err := show.MessageLine(&b, typ, text, s.sc.Name, ev.Line, ev.Col); err != nil {
				return err
			}
			s.r.emit(event.Said{Kind: typ, Lines: b.Bytes()})
			break
		}
		s.sc.Errors(fmt.Sprintf("%s:%d:%d-%d: %s: %s", s.sc.Name, ev.Line, ev.Col, ev.End, kind, text))
	case ir.System:
		ctx := s.ctx
		out, err := exec.CommandContext(ctx, "/bin/sh", "-c", text).CombinedOutput()
		if err != nil && len(out) == 0 {
			s.sc.Errors(fmt.Sprintf("system(%q): %v", text, err))
		}
		s.say("syscall", string(out), func() show.JSON { return show.Quote(string(out)) })
	case ir.Cat:
		f, err := os.Open(text)
		if err != nil {
			var why *os.PathError
			if errors.As(err, &why) {
				err = why.Err
			}
			s.sc.Errors(fmt.Sprintf("ERROR: failed to open file '%s' (%s)", text, capital(err.Error())))
			return nil
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, int64(s.out.Config.MaxCat)))
		if err != nil {
			s.sc.Errors(fmt.Sprintf("cat: %v", err))
		}
		s.say("cat", string(b), func() show.JSON { return show.Quote(string(b)) })
	}
	return s.r.failed
}

// helper warns of what a helper has answered.
func (s *scripted) helper(ev *ir.Event) error {
	if s.sc.JSON {
		var b bytes.Buffer
		if err := show.HelperLine(&b, ev.Format, ev.Helper, ev.Code, s.sc.Name, ev.Line, ev.Col); err != nil {
			return err
		}
		s.r.emit(event.Said{Kind: "helper_error", Lines: b.Bytes()})
		return s.r.failed
	}
	s.sc.Errors(fmt.Sprintf("%s:%d:%d-%d: WARNING: %s\nAdditional Info - helper: %s, retcode: %d", s.sc.Name, ev.Line, ev.Col, ev.End, ev.Format, ev.Helper, ev.Code))
	return nil
}

// capital makes the text of an error number C's, which begins with a capital letter.
func capital(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] }

// printMap shows a map. One of one value that has none yet is shown as zeros if the script
// asked for it.
func (s *scripted) printMap(n int, top, div int64, asked bool) error {
	all, err := s.elements(n)
	m := s.out.Script.Maps[n]
	if asked && len(all) == 0 && m.Key == nil {
		switch m.Value.Kind {
		case ir.Hist, ir.LHist, ir.Series:
		default:
			all = append(all, show.Zero())
		}
	}
	if err != nil || len(all) == 0 {
		return err
	}
	return s.view(s.env.Map(m, all, top, div))
}

func (s *scripted) view(v *show.MapView) error {
	var b bytes.Buffer
	if s.sc.JSON {
		if err := v.JSON(&b); err != nil {
			return err
		}
		s.r.emit(event.Said{Kind: v.Type(), Lines: b.Bytes()})
		return s.r.failed
	}
	if err := v.Text(&b); err != nil {
		return err
	}
	s.r.emit(event.Said{Kind: v.Type(), Text: b.String()})
	return s.r.failed
}

// printKey shows one element.
func (s *scripted) printKey(ev *ir.Event, key []byte) error {
	values, err := s.table(ev.Map).Lookup(key)
	if err != nil || values == nil {
		return err
	}
	v := s.env.Map(s.out.Script.Maps[ev.Map], []show.Entry{{Key: key, Values: values}}, ev.Top, ev.Div)
	s.say("value", v.Value()+"\n", v.ValueJSON)
	return s.r.failed
}

// last says what is left to say: as bpftrace, after an empty line.
func (s *scripted) last() error {
	if !s.sc.JSON {
		s.say("", "\n", nil)
	}
	if !s.out.Config.PrintMapsOnExit || s.sc.NoMaps {
		return s.r.failed
	}
	return s.printMaps()
}

// printMaps shows what the maps hold at the end, by name.
func (s *scripted) printMaps() error {
	order := make([]int, 0, len(s.out.Script.Maps))
	for i, m := range s.out.Script.Maps {
		if !m.Hidden {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return strings.Compare(s.out.Script.Maps[a].Name, s.out.Script.Maps[b].Name)
	})
	for _, i := range order {
		if err := s.printMap(i, 0, 0, false); err != nil {
			return err
		}
	}
	return nil
}

// ahead is what a clock is ahead of CLOCK_MONOTONIC, in ns.
func ahead(clock int32) uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano()) - runtime.Monotonic()
}
