package writer

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/pin"
	"github.com/shmts/shmts/layout"
)

// Exemplar says which trace a record belongs to. The ids are in the order of W3C Trace Context; OpenTelemetry's trace.TraceID and
// trace.SpanID are assignable to them:
//
//	latency.RecordExemplar(seconds, writer.Exemplar{TraceID: sc.TraceID(), SpanID: sc.SpanID()})
//
// It is no label: it adds no series. A few of them stay in a ring of the segment, which all series share: FORMAT.md 8.4.
type Exemplar struct {
	TraceID [16]byte  // zeros: no trace, and no exemplar
	SpanID  [8]byte   // zeros: none is known
	Time    time.Time // of the record; zero: that of the last tick, since a record call reads no clock
}

// DefaultExemplars is how many slots the ring has that all series of a segment leave their exemplars in: 4 kB.
const DefaultExemplars = 64

// exemplarRing is the ring of a segment, as long as its words are where they are.
type exemplarRing struct {
	slots   []uint64
	mask    uint64   // slots - 1
	stride  uint64   // words
	control []uint64 // the segment's
	id      layout.ExemplarIdentity
	birth   int64
	sampled bool
}

// ringOf is the ring in words, the segment's; nil if it has none.
func (g *segment) ringOf(words []uint64) *exemplarRing {
	s := &g.hdr.Exemplars
	if s.Count == 0 {
		return nil
	}
	return &exemplarRing{slots: words[s.Offset/8:][:s.Length/8], mask: uint64(s.Count) - 1, stride: uint64(s.ElementSize) / 8,
		control: words[g.ctl:][:layout.ControlSize/8], id: g.hdr.ExemplarIdentity(), birth: g.hdr.BirthUnix, sampled: g.w.opts.Sampled}
}

// exemplars is how many numbers were given to exemplars, and how many of them to ones that found no place. w.mu is held.
func (g *segment) exemplars() (given, dropped uint64) {
	if g.w.closed && g.given > 0 || g.ring == nil {
		return g.given, g.givenNowhere
	}
	return atomic.LoadUint64(&g.ring.control[layout.CtlExemplars]), atomic.LoadUint64(&g.ring.control[layout.CtlExemplarsDropped])
}

// offered is what a series' handle has taken of the exemplars offered to it: FORMAT.md 10.12. Records of several goroutines
// may meet here, and take one too many or too few. In a sampled segment it stays as it is.
type offered struct {
	row  atomic.Uint64 // the open row in which one was taken last; 0: none was
	most atomic.Uint64 // bits of the greatest value taken in it
}

// wants tells whether the exemplar of a record of v would be taken. It is small enough to be inlined, and says no to most.
func (s *series) wants(v float64) bool {
	at := s.place.Load()
	return at != nil && (atomic.LoadUint64(at.openRow) != s.offered.row.Load() || v > math.Float64frombits(s.offered.most.Load()))
}

// offer leaves an exemplar of a record of v, which was recorded, and wanted. It allocates nothing, waits for nobody and reads no clock.
func (s *series) offer(v float64, ex *Exemplar) {
	at := s.place.Load()
	if at == nil || at.ring == nil || ex.TraceID == [16]byte{} {
		return
	}
	if row := atomic.LoadUint64(at.openRow); !at.ring.sampled {
		s.offered.most.Store(math.Float64bits(v)) // first, or another would be held against the last row's
		if s.offered.row.Load() != row {
			s.offered.row.Store(row)
		}
	}
	x := layout.Exemplar{Series: at.index, Generation: at.generation, Value: v, TraceID: ex.TraceID, SpanID: ex.SpanID}
	if ex.Time.IsZero() {
		x.T = at.ring.lastTick()
	} else {
		x.T = ex.Time.UnixNano()
	}
	at.ring.store(&x)
}

// lastTick is the unix time of the last tick, that of birth before the first.
func (r *exemplarRing) lastTick() int64 {
	if beat := int64(atomic.LoadUint64(&r.control[layout.CtlHeartbeat])); beat != 0 {
		return beat + int64(atomic.LoadUint64(&r.control[layout.CtlClockOffset]))
	}
	return r.birth
}

// store is FORMAT.md 10.12. The goroutine is pinned so that one which is preempted does not hold its slot meanwhile.
func (r *exemplarRing) store(x *layout.Exemplar) {
	pin.Pin()
	n := atomic.AddUint64(&r.control[layout.CtlExemplars], 1)
	if !layout.StoreExemplar(r.slots[(n-1)&r.mask*r.stride:], r.id, n, x) {
		atomic.AddUint64(&r.control[layout.CtlExemplarsDropped], 1)
	}
	pin.Unpin()
}

// take puts what is whole of another ring, private memory, into this one, which nobody else knows yet.
func (r *exemplarRing) take(from *exemplarRing) {
	for slot := uint64(0); slot <= r.mask; slot++ {
		words := from.slots[slot*from.stride:][:layout.ExemplarWords]
		n := atomic.LoadUint64(&words[0]) >> 1
		if x, v := layout.LoadExemplar(words, from.id, n); v == layout.ExemplarOK {
			layout.StoreExemplar(r.slots[slot*r.stride:], r.id, n, &x)
			// It may have come after the control block was copied; and no number is given twice.
			r.control[layout.CtlExemplars] = max(r.control[layout.CtlExemplars], n)
		}
	}
}

// AddExemplar is Add, and offers an exemplar: the amount with the trace that it belongs to. The amount is added in any case. Of the
// exemplars offered, the series takes the first one since its table's last row, and after that each one with a greater amount than all that
// it took before; a sampled segment takes every one. One that is not taken costs a nanosecond or two.
func (c *Counter) AddExemplar(n uint64, ex Exemplar) {
	if c == nil {
		return
	}
	c.s.addInt(n)
	if v := float64(n); c.s.wants(v) {
		c.s.offer(v, &ex)
	}
}

// AddExemplar is Add and Counter.AddExemplar. What is rejected leaves no exemplar.
func (c *FloatCounter) AddExemplar(v float64, ex Exemplar) {
	if c.Add(v); c != nil && isAmount(v) && c.s.wants(v) {
		c.s.offer(v, &ex)
	}
}

// RecordExemplar is Record, and offers an exemplar, as Counter.AddExemplar does: so the slowest of each row is there. What is
// rejected leaves none.
func (h *Histogram) RecordExemplar(v float64, ex Exemplar) {
	if h.Record(v); h != nil && isAmount(v) && h.s.wants(v) {
		h.s.offer(v, &ex)
	}
}

// RecordExemplar is Record, and offers an exemplar, as Histogram.RecordExemplar does.
func (h *IntHistogram) RecordExemplar(v uint64, ex Exemplar) {
	if h.Record(v); h != nil && h.s.wants(float64(v)) {
		h.s.offer(float64(v), &ex)
	}
}

// AddExemplar is Counter.AddExemplar.
func (c OwnedCounter) AddExemplar(n uint64, ex Exemplar) {
	if c.Add(n); c.o != nil && c.o.s.wants(float64(n)) {
		c.o.s.offer(float64(n), &ex)
	}
}

// AddExemplar is FloatCounter.AddExemplar.
func (c OwnedFloatCounter) AddExemplar(v float64, ex Exemplar) {
	if c.Add(v); c.o != nil && isAmount(v) && c.o.s.wants(v) {
		c.o.s.offer(v, &ex)
	}
}

// RecordExemplar is Histogram.RecordExemplar.
func (c OwnedHistogram) RecordExemplar(v float64, ex Exemplar) {
	if c.Record(v); c.o != nil && isAmount(v) && c.o.s.wants(v) {
		c.o.s.offer(v, &ex)
	}
}

// RecordExemplar is IntHistogram.RecordExemplar.
func (c OwnedIntHistogram) RecordExemplar(v uint64, ex Exemplar) {
	if c.Record(v); c.o != nil && c.o.s.wants(float64(v)) {
		c.o.s.offer(float64(v), &ex)
	}
}

// What was recorded elsewhere, and comes with Merge or Add, may have exemplars of its own: these methods offer them, and record
// nothing. v is the record's value: of a counter the amount, of a histogram what was observed; what is not finite, or negative, is passed over.

// MergeExemplar offers an exemplar of a record of v that was made elsewhere.
func (c *Counter) MergeExemplar(v float64, ex Exemplar) {
	if c != nil && isAmount(v) && c.s.wants(v) {
		c.s.offer(v, &ex)
	}
}

// MergeExemplar is Counter.MergeExemplar.
func (c *FloatCounter) MergeExemplar(v float64, ex Exemplar) {
	if c != nil && isAmount(v) && c.s.wants(v) {
		c.s.offer(v, &ex)
	}
}

// MergeExemplar is Counter.MergeExemplar.
func (h *Histogram) MergeExemplar(v float64, ex Exemplar) {
	if h != nil && isAmount(v) && h.s.wants(v) {
		h.s.offer(v, &ex)
	}
}

// MergeExemplar is Counter.MergeExemplar.
func (h *IntHistogram) MergeExemplar(v float64, ex Exemplar) {
	if h != nil && isAmount(v) && h.s.wants(v) {
		h.s.offer(v, &ex)
	}
}
