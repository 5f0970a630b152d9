package writer

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// Lane is a lane of the segment with one owner: handles made from it add
// plainly, without asking which P they run on. Whoever uses its handles, one
// goroutine at a time, is the owner; ownership may be handed on with the usual
// synchronisation (a channel, a mutex). FORMAT.md 7.
type Lane struct {
	w *Writer
	n int // among the owned lanes; -1: none was free
}

// Lane takes one of Options.OwnedLanes. Where none is free, err says so, and the handles of the Lane
// answered record like those that they were made from: right, but slower.
func (w *Writer) Lane() (*Lane, error) {
	if w == nil {
		return &Lane{n: -1}, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.opts.OwnedLanes {
		if w.lanes>>n&1 == 0 {
			w.lanes |= 1 << n
			w.lanesEver |= 1 << n
			return &Lane{w, n}, nil
		}
	}
	w.count(layout.CtlOverflowThreads)
	return &Lane{w, -1}, fmt.Errorf("shmts: lane: want one free of %d owned lanes, got all of them taken", w.opts.OwnedLanes)
}

// Close gives the lane back; the next owner goes on from its values. Handles made from it
// go on too, as slower ones. The owner calls it.
func (l *Lane) Close() {
	if l == nil || l.w == nil || l.n < 0 {
		return
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for _, g := range l.w.segments {
		for _, d := range g.descriptors {
			if d.series == nil {
				continue
			}
			kept := d.series.owned[:0]
			for _, o := range d.series.owned {
				if o.lane() == l {
					o.detach()
				} else {
					kept = append(kept, o)
				}
			}
			clear(d.series.owned[len(kept):])
			d.series.owned = kept
		}
	}
	l.w.lanes &^= 1 << l.n
	l.n = -1
}

// ownedHandle is a handle whose cells lie in an owned lane.
type ownedHandle interface {
	lane() *Lane
	attach() // to where the series' cells are now
	detach() // to nothing: the handle that it was made from records then, if it still does
}

// own makes o follow its series. Without a lane or cells it stays detached.
func (l *Lane) own(s *series, o ownedHandle) {
	if l == nil || l.w == nil || s == nil || s.w != l.w {
		return
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.n < 0 || s.place.Load() == nil {
		return
	}
	s.owned = append(s.owned, o)
	o.attach()
}

// cells are those of a series in the lane. w.mu is held.
func (l *Lane) cells(s *series) []uint64 {
	return s.t.laneCells(s.t.seg.words, s, s.t.procs+l.n)
}

// ownedCell is the one cell of a counter in an owned lane.
type ownedCell struct {
	cell atomic.Pointer[uint64]
	l    *Lane
	s    *series
}

func (o *ownedCell) lane() *Lane { return o.l }
func (o *ownedCell) attach()     { o.cell.Store(&o.l.cells(o.s)[0]) }
func (o *ownedCell) detach()     { o.cell.Store(nil) }

// ownedCells are those of a stat or histogram in an owned lane.
type ownedCells struct {
	place atomic.Pointer[ownedPlace]
	l     *Lane
	s     *series
}

type ownedPlace struct {
	cells   []uint64
	openRow *uint64
	shared  *uint64
}

func (o *ownedCells) lane() *Lane { return o.l }
func (o *ownedCells) detach()     { o.place.Store(nil) }
func (o *ownedCells) attach() {
	p := o.s.place.Load()
	o.place.Store(&ownedPlace{cells: o.l.cells(o.s), openRow: p.openRow, shared: p.shared})
}

// OwnedCounter is a Counter with one writer at a time. The zero value records nowhere.
type OwnedCounter struct {
	o *ownedCell
	c *Counter
}

// Counter makes a handle of c in the lane.
func (l *Lane) Counter(c *Counter) OwnedCounter {
	if c == nil {
		return OwnedCounter{}
	}
	h := OwnedCounter{&ownedCell{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Add adds n.
func (c OwnedCounter) Add(n uint64) {
	if c.o == nil {
		return
	}
	if cell := c.o.cell.Load(); cell != nil {
		*cell += n
		return
	}
	c.c.Add(n)
}

// Inc adds 1.
func (c OwnedCounter) Inc() { c.Add(1) }

// OwnedUpDownCounter is an UpDownCounter with one writer at a time. The zero value records nowhere.
type OwnedUpDownCounter struct {
	o *ownedCell
	c *UpDownCounter
}

// UpDownCounter makes a handle of c in the lane.
func (l *Lane) UpDownCounter(c *UpDownCounter) OwnedUpDownCounter {
	if c == nil {
		return OwnedUpDownCounter{}
	}
	h := OwnedUpDownCounter{&ownedCell{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Add adds n, which may be negative.
func (c OwnedUpDownCounter) Add(n int64) {
	if c.o == nil {
		return
	}
	if cell := c.o.cell.Load(); cell != nil {
		*cell += uint64(n)
		return
	}
	c.c.Add(n)
}

// OwnedFloatCounter is a FloatCounter with one writer at a time. The zero value records nowhere.
type OwnedFloatCounter struct {
	o *ownedCell
	c *FloatCounter
}

// FloatCounter makes a handle of c in the lane.
func (l *Lane) FloatCounter(c *FloatCounter) OwnedFloatCounter {
	if c == nil {
		return OwnedFloatCounter{}
	}
	h := OwnedFloatCounter{&ownedCell{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Add adds v: finite and not negative, else it is rejected and counted.
func (c OwnedFloatCounter) Add(v float64) {
	if c.o == nil {
		return
	}
	if cell := c.o.cell.Load(); cell != nil && v >= 0 && v <= math.MaxFloat64 {
		*cell = math.Float64bits(math.Float64frombits(*cell) + v)
		return
	}
	c.c.Add(v)
}

// OwnedStat is a Stat with one writer at a time. The zero value records nowhere.
type OwnedStat struct {
	o *ownedCells
	c *Stat
}

// Stat makes a handle of c in the lane.
func (l *Lane) Stat(c *Stat) OwnedStat {
	if c == nil {
		return OwnedStat{}
	}
	h := OwnedStat{&ownedCells{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Record takes one sample.
func (c OwnedStat) Record(v float64) {
	if c.o == nil {
		return
	}
	p := c.o.place.Load()
	if p == nil || !c.c.takes(v) {
		c.c.Record(v)
		return
	}
	recordStat(p.cells, atomic.LoadUint64(p.openRow), v)
	*p.shared = math.Float64bits(v)
}

// OwnedHistogram is a Histogram with one writer at a time. The zero value records nowhere.
type OwnedHistogram struct {
	o *ownedCells
	c *Histogram
}

// Histogram makes a handle of c in the lane.
func (l *Lane) Histogram(c *Histogram) OwnedHistogram {
	if c == nil {
		return OwnedHistogram{}
	}
	h := OwnedHistogram{&ownedCells{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Record counts v in its bucket.
func (c OwnedHistogram) Record(v float64) {
	if c.o == nil {
		return
	}
	p := c.o.place.Load()
	if p == nil || v-v != 0 {
		c.c.Record(v)
		return
	}
	p.cells[c.c.shape.cell(v)]++
	p.cells[layout.HistSum] = math.Float64bits(math.Float64frombits(p.cells[layout.HistSum]) + v)
}

// OwnedIntHistogram is an IntHistogram with one writer at a time. The zero value records nowhere.
type OwnedIntHistogram struct {
	o *ownedCells
	c *IntHistogram
}

// IntHistogram makes a handle of c in the lane.
func (l *Lane) IntHistogram(c *IntHistogram) OwnedIntHistogram {
	if c == nil {
		return OwnedIntHistogram{}
	}
	h := OwnedIntHistogram{&ownedCells{l: l, s: c.s}, c}
	l.own(c.s, h.o)
	return h
}

// Record counts v in its bucket.
func (c OwnedIntHistogram) Record(v uint64) {
	if c.o == nil {
		return
	}
	p := c.o.place.Load()
	if p == nil {
		c.c.Record(v)
		return
	}
	p.cells[c.c.shape.cell(float64(v))]++
	p.cells[layout.HistSum] += v
}
