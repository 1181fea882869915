package tracer

import (
	"container/list"
	"errors"
	"sync"
	"syscall"

	"ferrotrace/internal/runtime/user/vm"

	"github.com/cilium/ebpf"
)

// withoutLRU makes the maps of a collection that drop what has not been used for longest
// plain ones, and returns their names.
func withoutLRU(spec *ebpf.CollectionSpec) (names []string) {
	plain := map[ebpf.MapType]ebpf.MapType{ebpf.LRUHash: ebpf.Hash, ebpf.LRUCPUHash: ebpf.PerCPUHash}
	for name, m := range spec.Maps {
		if t, ok := plain[m.Type]; ok {
			m = m.Copy()
			m.Type = t
			spec.Maps[name] = m
			names = append(names, name)
		}
	}
	return names
}

// lru is a map in which an element finds room though it is full: the one goes that has not
// been used for longest. Only the interpreter can keep that order, so it is none of a process's.
type lru struct {
	vm.Map
	mu    sync.Mutex
	order *list.List // of keys, the one used last in front
	at    map[string]*list.Element
}

func newLRU(m vm.Map) *lru { return &lru{Map: m, order: list.New(), at: map[string]*list.Element{}} }

func (l *lru) touch(key []byte) {
	if e, ok := l.at[string(key)]; ok {
		l.order.MoveToFront(e)
		return
	}
	l.at[string(key)] = l.order.PushFront(string(key))
}

// Lookup implements vm.Map.
func (l *lru) Lookup(key []byte, cpu int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.Map.Lookup(key, cpu)
	if v != nil {
		l.touch(key)
	}
	return v
}

// Update implements vm.Map.
func (l *lru) Update(key, value []byte, flags uint64, cpu int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		err := l.Map.Update(key, value, flags, cpu)
		if err == nil {
			l.touch(key)
		}
		oldest := l.order.Back()
		if !errors.Is(err, syscall.E2BIG) || oldest == nil {
			return err
		}
		l.order.Remove(oldest)
		k := oldest.Value.(string)
		delete(l.at, k)
		_ = l.Map.Delete([]byte(k)) // gone already is fine
	}
}

// Delete implements vm.Map.
func (l *lru) Delete(key []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.at[string(key)]; ok {
		l.order.Remove(e)
		delete(l.at, string(key))
	}
	return l.Map.Delete(key)
}
