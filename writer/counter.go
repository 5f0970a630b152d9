package writer

import (
	"math"
	"sync/atomic"

	"github.com/shmts/shmts/internal/pin"
	"github.com/shmts/shmts/layout"
)

// A record call pins its goroutine to its P, loads the place of the series' cells,
// and adds plainly in the lane of that P: nobody else does until Unpin. A P
// whose number is beyond the lanes adds in the overflow lane, with atomic instructions.
//
// The place is loaded after Pin, not before: then a record that began before a Retire is
// over within instructions, and not whenever a preempted goroutine runs again.

// Counter is a cumulative count that never falls. All methods may be called
// from any goroutine, and on nil.
type Counter struct{ s *series }

// Counter registers, or finds, a counter of number u64.
func (w *Writer) Counter(name string, options ...SeriesOption) *Counter {
	return register(w, layout.Counter, layout.U64, name, options, func(s *series) *Counter { return &Counter{s} })
}

// Add adds n.
func (c *Counter) Add(n uint64) {
	if c != nil {
		c.s.addInt(n)
	}
}

// Inc adds 1.
func (c *Counter) Inc() {
	if c != nil {
		c.s.addInt(1)
	}
}

// Retire ends the series. It is in one more row; then its room is free for others. The handle
// records nowhere from now on.
func (c *Counter) Retire() {
	if c != nil {
		c.s.retire()
	}
}

func (s *series) addInt(n uint64) {
	p := pin.Pin()
	if at := s.place.Load(); at != nil {
		if p < at.procs {
			at.words[p*at.stride] += n
		} else {
			at.addShared(n)
		}
	}
	pin.Unpin()
}

func (at *place) addShared(n uint64) {
	at.useOverflow()
	atomic.AddUint64(&at.words[at.overflow], n)
}

// useOverflow tells the ticks that the overflow lane is not all zeros any more, before it is so, and
// counts the first time that a table came to that.
func (at *place) useOverflow() {
	if !at.overflowed.Load() && at.overflowed.CompareAndSwap(false, true) {
		at.w.count(layout.CtlOverflowThreads)
	}
}

// FloatCounter is a cumulative amount that never falls. All methods may be called from any
// goroutine, and on nil.
type FloatCounter struct{ s *series }

// FloatCounter registers, or finds, a counter of number f64.
func (w *Writer) FloatCounter(name string, options ...SeriesOption) *FloatCounter {
	return register(w, layout.Counter, layout.F64, name, options, func(s *series) *FloatCounter { return &FloatCounter{s} })
}

// Add adds v: finite and not negative, else it is rejected and counted.
func (c *FloatCounter) Add(v float64) {
	if c == nil {
		return
	}
	if !isAmount(v) {
		c.s.w.reject()
		return
	}
	p := pin.Pin()
	if at := c.s.place.Load(); at != nil {
		if p < at.procs {
			cell := &at.words[p*at.stride]
			*cell = math.Float64bits(math.Float64frombits(*cell) + v)
		} else {
			at.useOverflow()
			addFloat(&at.words[at.overflow], v)
		}
	}
	pin.Unpin()
}

// isAmount tells whether v may be added to what never falls: finite, and not negative.
func isAmount(v float64) bool { return v >= 0 && v <= math.MaxFloat64 }

// Inc adds 1.
func (c *FloatCounter) Inc() { c.Add(1) }

// Retire is Counter.Retire.
func (c *FloatCounter) Retire() {
	if c != nil {
		c.s.retire()
	}
}

// UpDownCounter is a sum that may fall: requests in flight, bytes in a queue. All
// methods may be called from any goroutine, and on nil.
type UpDownCounter struct{ s *series }

// UpDownCounter registers, or finds, an up-down counter of number i64.
func (w *Writer) UpDownCounter(name string, options ...SeriesOption) *UpDownCounter {
	return register(w, layout.UpDown, layout.I64, name, options, func(s *series) *UpDownCounter { return &UpDownCounter{s} })
}

// Add adds n, which may be negative.
func (c *UpDownCounter) Add(n int64) {
	if c != nil {
		c.s.addInt(uint64(n))
	}
}

// Inc adds 1.
func (c *UpDownCounter) Inc() { c.Add(1) }

// Dec takes 1 away.
func (c *UpDownCounter) Dec() { c.Add(-1) }

// Retire is Counter.Retire.
func (c *UpDownCounter) Retire() {
	if c != nil {
		c.s.retire()
	}
}
