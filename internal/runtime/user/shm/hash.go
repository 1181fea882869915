package shm

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"syscall"
)

// HashSeed and HashMult make the hash of a key: it starts as HashSeed plus the
// size of the key; for each 8 bytes w of the key, the last padded with zeros, it
// becomes hi ^ lo of the 128-bit product (h ^ w) * HashMult.
//
// A product waits for the one before it. So for a key of HashLong bytes or more there are
// HashLanes hashes at first, all starting like that, which take words in turns as long as
// there is one for each; then the first takes the others as if they were words of the key,
// and goes on.
const (
	HashLong  = 64
	HashLanes = 4

	HashSeed = 0x2d358dccaa6c78a5
	HashMult = 0x9e3779b97f4a7c15
)

// Spins is how often an operation looks again at a slot that stays busy before it
// gives up.
const Spins = 256

func hash(key []byte) uint64 {
	h := HashSeed + uint64(len(key))
	mix := func(h, w uint64) uint64 {
		hi, lo := bits.Mul64(h^w, HashMult)
		return hi ^ lo
	}
	if len(key) >= HashLong {
		lanes := [HashLanes]uint64{h, h, h, h}
		for len(key) >= 8*HashLanes {
			for i := range lanes {
				lanes[i] = mix(lanes[i], binary.LittleEndian.Uint64(key[8*i:]))
			}
			key = key[8*HashLanes:]
		}
		h = lanes[0]
		for _, lane := range lanes[1:] {
			h = mix(h, lane)
		}
	}
	for len(key) > 0 {
		var w uint64
		if len(key) >= 8 {
			w, key = binary.LittleEndian.Uint64(key), key[8:]
		} else {
			var last [8]byte
			copy(last[:], key)
			w, key = binary.LittleEndian.Uint64(last[:]), nil
		}
		h = mix(h, w)
	}
	return h
}

func (v *View) key(slot uint64) []byte {
	at := v.mp.Keys + slot*v.mp.KeyStride
	return v.m.mem[at : at+uint64(v.mp.KeySize) : at+uint64(v.mp.KeySize)]
}

func (v *View) tag(slot uint64) *uint64 {
	return v.m.u64(v.mp.Buckets + slot/BucketSlots*BucketSize + (1+slot%BucketSlots)*8)
}

// overflow is the word that says whether a bucket's chain goes on.
func (v *View) overflow(bucket uint64) *uint64 { return v.m.u64(v.mp.Buckets + bucket*BucketSize) }

// chain passes the slots where an element of hash h may be, bucket by bucket, until
// f returns false.
func (v *View) chain(h uint64, f func(slot, tag uint64) bool) {
	bucket := h & v.mp.Mask
	for range v.mp.Mask + 1 {
		for i := range uint64(BucketSlots) {
			slot := bucket*BucketSlots + i
			if !f(slot, atomic.LoadUint64(v.tag(slot))) {
				return
			}
		}
		if atomic.LoadUint64(v.overflow(bucket)) == 0 {
			return
		}
		bucket = (bucket + 1) & v.mp.Mask
	}
}

func (v *View) find(key []byte) (slot uint64, ok bool) {
	h := hash(key)
	live := h&^0xff | TagLive
	v.chain(h, func(s, tag uint64) bool {
		if tag == live && bytes.Equal(v.key(s), key) {
			slot, ok = s, true
		}
		return !ok
	})
	return slot, ok
}

// insert is the update of a hash; see the package's documentation.
func (v *View) insert(key, value []byte, flags uint64, cpu int) error {
	if v.value(0, cpu) == nil {
		return syscall.EINVAL
	}
	var (
		h          = hash(key)
		live, busy = h&^0xff | TagLive, h&^0xff | TagBusy
		desc       = v.mp.Desc
	)
	for range Spins {
		if slot, ok := v.find(key); ok {
			if flags == noExist {
				return syscall.EEXIST
			}
			copy(v.value(slot, cpu), value)
			return nil
		}
		if flags == exist {
			return syscall.ENOENT
		}
		slot, state := v.free(h, busy)
		switch state {
		case slotNone:
			atomic.AddUint64(v.m.u64(desc+DescFull), 1)
			return syscall.E2BIG
		case slotWait:
			continue
		}
		if !atomic.CompareAndSwapUint64(v.tag(slot), 0, busy) {
			continue
		}
		if v.claimedTwice(h, slot) {
			atomic.StoreUint64(v.tag(slot), 0)
			continue
		}
		if atomic.AddUint64(v.m.u64(desc+DescCount), 1) > uint64(v.mp.MaxEntries) {
			atomic.AddUint64(v.m.u64(desc+DescCount), ^uint64(0))
			atomic.StoreUint64(v.tag(slot), 0)
			atomic.AddUint64(v.m.u64(desc+DescFull), 1)
			return syscall.E2BIG
		}
		copy(v.key(slot), key)
		for c := range v.CPUs() {
			clear(v.value(slot, c))
		}
		copy(v.value(slot, cpu), value)
		atomic.StoreUint64(v.tag(slot), live)
		return nil
	}
	atomic.AddUint64(v.m.u64(desc+DescFailed), 1)
	return syscall.EBUSY
}

type slotState int

const (
	slotFree slotState = iota
	slotWait           // somebody is inserting this key
	slotNone
)

// free finds the first free slot of a chain, which it prolongs if need be.
func (v *View) free(h, busy uint64) (slot uint64, state slotState) {
	state = slotNone
	waiting := false
	bucket := h & v.mp.Mask
	for range v.mp.Mask + 1 {
		for i := range uint64(BucketSlots) {
			s := bucket*BucketSlots + i
			switch atomic.LoadUint64(v.tag(s)) {
			case busy:
				waiting = true
			case 0:
				if state == slotNone {
					slot, state = s, slotFree
				}
			}
		}
		if state == slotFree && atomic.LoadUint64(v.overflow(bucket)) == 0 {
			break
		}
		if state == slotNone {
			atomic.StoreUint64(v.overflow(bucket), 1)
		}
		bucket = (bucket + 1) & v.mp.Mask
	}
	if waiting {
		state = slotWait
	}
	return slot, state
}

// claimedTwice says whether another slot of the chain has the same tag.
func (v *View) claimedTwice(h, slot uint64) (twice bool) {
	v.chain(h, func(s, tag uint64) bool {
		twice = s != slot && tag != 0 && tag&^0xff == h&^0xff
		return !twice
	})
	return twice
}

func (v *View) remove(key []byte) error {
	live := hash(key)&^0xff | TagLive
	for {
		slot, ok := v.find(key)
		if !ok {
			return syscall.ENOENT
		}
		if atomic.CompareAndSwapUint64(v.tag(slot), live, 0) {
			atomic.AddUint64(v.m.u64(v.mp.Desc+DescCount), ^uint64(0))
			return nil
		}
	}
}

// each passes the live slots.
func (v *View) each(f func(slot uint64) bool) {
	for slot := range v.mp.slots() {
		if atomic.LoadUint64(v.tag(slot))&0xff == TagLive && !f(slot) {
			return
		}
	}
}

// Len is the number of elements of a hash.
func (v *View) Len() int {
	n := 0
	v.each(func(uint64) bool { n++; return true })
	return n
}
