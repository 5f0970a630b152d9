package layout

import (
	"encoding/binary"
	"math"
	"sync/atomic"
)

// The ring of exemplars: both halves of its protocol stand in this file, so that their barriers are read in
// pairs. FORMAT.md 8.4 and 10.12.

// Exemplar is a slot of the ring: one recorded value, with the trace that it belongs to. FORMAT.md 8.4.
type Exemplar struct {
	Seq        uint64   // 0x00  number x 2; odd while its writer is inside, or died inside; 0: never used
	Check      uint64   // 0x08
	Series     uint32   // 0x10  index of the descriptor
	Generation uint32   // 0x14  of the descriptor
	Value      float64  // 0x18
	T          int64    // 0x20  unix ns
	TraceID    [16]byte // 0x28  in the order of W3C Trace Context
	SpanID     [8]byte  // 0x38
}

// Number of the exemplar in its slot: its position among all that the segment ever took, from 1.
func (x *Exemplar) Number() uint64 { return x.Seq >> 1 }

// Word numbers inside a slot.
const (
	exemplarSeq   = 0
	ExemplarWords = ExemplarSize / 8
)

// exemplarSeed seeds the sum over an exemplar.
const exemplarSeed = 0x10000

// ExemplarSlot is the number of the slot of exemplar n in the ring.
func (h *Header) ExemplarSlot(n uint64) uint64 { return (n - 1) & uint64(h.Exemplars.Count-1) }

// ExemplarOffset is the byte offset of the slot of exemplar n. The segment has a ring.
func (h *Header) ExemplarOffset(n uint64) uint64 {
	return h.Exemplars.Offset + h.ExemplarSlot(n)*uint64(h.Exemplars.ElementSize)
}

// ExemplarIdentity is what an exemplar's check is taken over beside its words, so that one of another
// segment is never taken for one of this.
type ExemplarIdentity struct{ id0, id1 uint64 }

// ExemplarIdentity of the segment.
func (s *Superblock) ExemplarIdentity() ExemplarIdentity {
	le := binary.LittleEndian
	return ExemplarIdentity{le.Uint64(s.SegmentID[:8]), le.Uint64(s.SegmentID[8:])}
}

func (id ExemplarIdentity) sum(n uint64, w *[ExemplarWords - 2]uint64) uint64 {
	s := NewSummer(exemplarSeed)
	s.Add(id.id0, id.id1, n, w[0])
	return s.Finish(w[1:])
}

// StoreExemplar is the writer's half: it puts x into slot, that of exemplar n, n being a ticket that nobody else
// has. It answers false, and has stored nothing, where another writer is inside, or a younger one was: it never waits. x.Seq
// and x.Check are not looked at. Any number of threads at once; it allocates nothing.
func StoreExemplar(slot []uint64, id ExemplarIdentity, n uint64, x *Exemplar) bool {
	slot = slot[:ExemplarWords]
	if !claimExemplar(slot, atomic.LoadUint64(&slot[exemplarSeq]), n) {
		return false
	}
	le := binary.LittleEndian
	words := [ExemplarWords - 1]uint64{0, uint64(x.Series) | uint64(x.Generation)<<32, math.Float64bits(x.Value), uint64(x.T),
		le.Uint64(x.TraceID[:8]), le.Uint64(x.TraceID[8:]), le.Uint64(x.SpanID[:])}
	words[0] = id.sum(n, (*[ExemplarWords - 2]uint64)(words[1:]))
	storeWords(slot[1:], words[:])
	atomic.StoreUint64(&slot[exemplarSeq], n<<1)
	return true
}

// claimExemplar makes the slot that of exemplar n, whose writer found seq there. However late it comes, of two writers one has it, and
// no younger exemplar is written over.
func claimExemplar(slot []uint64, seq, n uint64) bool {
	return seq&1 == 0 && seq>>1 < n && atomic.CompareAndSwapUint64(&slot[exemplarSeq], seq, n<<1|1)
}

// ExemplarVerdict is what became of an attempt to read an exemplar.
type ExemplarVerdict int

// The verdicts.
const (
	ExemplarOK      ExemplarVerdict = iota
	ExemplarAwaited                 // not there: its writer is at it, or has given up, or died
	ExemplarGone                    // a younger one is, or was, written over it
	ExemplarBad                     // the check is wrong: a copy that is torn, or broken bytes
)

// String names the verdict.
func (v ExemplarVerdict) String() string { return [...]string{"ok", "awaited", "gone", "bad"}[v] }

// LoadExemplar is the reader's half, for exemplars read in place: it copies exemplar n out of its slot and proves the
// copy. Words are loaded atomically, one by one, as CopyRow does it.
func LoadExemplar(slot []uint64, id ExemplarIdentity, n uint64) (Exemplar, ExemplarVerdict) {
	slot = slot[:ExemplarWords]
	var words [ExemplarWords]uint64
	v := ExemplarAwaited
	for range copyTries {
		for i := range words {
			words[i] = atomic.LoadUint64(&slot[i]) // seq first
		}
		var x Exemplar
		x, v = DecodeExemplar(words[:], id, n)
		if v == ExemplarAwaited || v == ExemplarGone || atomic.LoadUint64(&slot[exemplarSeq]) == words[exemplarSeq] {
			return x, v
		}
		v = ExemplarGone // it was whole before and is another now
	}
	return Exemplar{}, v
}

// DecodeExemplar proves exemplar n in slot, a private copy: there the check alone decides.
func DecodeExemplar(slot []uint64, id ExemplarIdentity, n uint64) (Exemplar, ExemplarVerdict) {
	x := *View[Exemplar](slot, 0)
	switch {
	case n == 0 || x.Number() > n:
		return Exemplar{}, ExemplarGone
	case x.Seq != n<<1:
		return Exemplar{}, ExemplarAwaited
	case id.sum(n, (*[ExemplarWords - 2]uint64)(slot[2:])) != x.Check:
		return Exemplar{}, ExemplarBad
	}
	return x, ExemplarOK
}
