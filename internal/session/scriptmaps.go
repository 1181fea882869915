package session

import (
	"bytes"
	"encoding/binary"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/script/show"
)

// table is a map of the script as its handlers see it.
type table struct {
	runtime.Map
	single bool // as codegen.Compiled has it
}

// table is map n of the script, whose maps are all there once it is loaded.
func (s *scripted) table(n int) table {
	m, _ := s.r.sess.Map(s.compiled.Maps[n])
	return table{m, s.compiled.Single[n]}
}

// elements are those that the script has made of map n.
func (s *scripted) elements(n int) ([]show.Entry, error) { return s.table(n).elements() }

// raw are the elements as the runtime has them.
func (t table) raw() (all []show.Entry, err error) {
	err = t.Each(func(key []byte, values [][]byte) bool {
		e := show.Entry{Key: bytes.Clone(key)}
		there := !t.single
		for _, v := range values {
			there = there || binary.LittleEndian.Uint64(v[len(v)-codegen.SingleSet:]) != 0
			e.Values = append(e.Values, bytes.Clone(v))
		}
		if there {
			all = append(all, e)
		}
		return true
	})
	return all, err
}

// value is what of an element's value the script knows of.
func (t table) value(v []byte) []byte {
	if t.single {
		return v[:len(v)-codegen.SingleSet]
	}
	return v
}

// elements are those that the script has made.
func (t table) elements() ([]show.Entry, error) {
	all, err := t.raw()
	for _, e := range all {
		for i, v := range e.Values {
			e.Values[i] = t.value(v)
		}
	}
	return all, err
}

// empty removes the elements, or makes their values zero.
func (t table) empty(zero bool) error {
	all, err := t.raw()
	if err != nil {
		return err
	}
	for _, e := range all {
		if !zero && !t.single {
			_ = t.Delete(e.Key) // gone already is fine
			continue
		}
		for _, v := range e.Values {
			if zero {
				v = t.value(v)
			}
			clear(v)
		}
		if err := t.Update(e.Key, e.Values); err != nil {
			return err
		}
	}
	return nil
}

// set gives a map without keys, which is no aggregate, its value.
func (t table) set(value []byte) error {
	if t.single {
		return t.Update(make([]byte, 4), [][]byte{binary.LittleEndian.AppendUint64(value, 1)})
	}
	return t.Update(make([]byte, 8), [][]byte{value})
}
