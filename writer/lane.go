package writer

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"weak"

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

// Lane takes one of Options.OwnedLanes. Where none is free, err says so, and the handles of the Lane answered
// lose nothing either: integer counters reach the segment with the next tick, others record like those that they
// were made from.
func (w *Writer) Lane() (*Lane, error) {
	if w == nil {
		return &Lane{n: -1}, errors.New("shmts: lane: want a writer, got nil")
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
// count on, but in ways that are slower, or reach the segment only with the next tick. The owner calls it.
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

// own answers the lane's handle of a series: the one that it has, or one that fresh makes, which
// follows the series' cells. Without a lane or cells it stays detached.
func own[H ownedHandle](l *Lane, s *series, fresh H) H {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for _, o := range s.owned {
		if h, ok := o.(H); ok && o.lane() == l {
			return h
		}
	}
	if l.n < 0 || s.place.Load() == nil {
		fresh.detach()
		return fresh
	}
	s.owned = append(s.owned, fresh)
	fresh.attach()
	return fresh
}

// mayOwn tells whether handles of s can be made in the lane: both are of one writer.
func (l *Lane) mayOwn(s *series) bool { return l != nil && l.w != nil && s.w == l.w }

// cells are those of a series in the lane. w.mu is held.
func (l *Lane) cells(s *series) []uint64 {
	return s.t.laneCells(s.t.seg.words, s, s.t.procs+l.n)
}

// ownedCell is the one cell of an integer counter in an owned lane. cell is never
// nil, so that Add is small enough to be inlined: detached, it is a spare word that no reader
// sees, and ticks move what was added there into the overflow lane.
type ownedCell struct {
	cell    atomic.Pointer[uint64]
	spareAt *uint64
	l       *Lane
	s       *series
}

func (o *ownedCell) lane() *Lane { return o.l }
func (o *ownedCell) attach()     { o.cell.Store(&o.l.cells(o.s)[0]) }
func (o *ownedCell) detach() {
	if o.spareAt == nil {
		o.spareAt = o.l.w.spareWord()
		o.l.w.spares = append(o.l.w.spares, spare{o.spareAt, 0, o.s, weak.Make(o)})
	}
	o.cell.Store(o.spareAt)
}

// spare is the word of a detached handle.
type spare struct {
	word  *uint64
	moved uint64
	s     *series
	o     weak.Pointer[ownedCell]
}

// spareWord is a word on a cache line of its own. It is not Go memory, so that the race
// detector does not see the one owner's plain adds meet the tick's load. w.mu is held.
func (w *Writer) spareWord() *uint64 {
	if n := len(w.freeSpares); n > 0 {
		word := w.freeSpares[n-1]
		w.freeSpares = w.freeSpares[:n-1]
		return word
	}
	const line = 8 // words
	if len(w.spareWords) < line {
		words, err := privateWords(4096)
		if err != nil {
			return new(uint64)
		}
		w.spareWords = words
	}
	word := &w.spareWords[0]
	w.spareWords = w.spareWords[line:]
	return word
}

// moveSpares adds to the overflow lane what detached handles counted, and takes back the words of
// those that nobody holds any more. w.mu is held.
func (w *Writer) moveSpares() {
	kept := w.spares[:0]
	for _, p := range w.spares {
		gone := p.o.Value() == nil // before the load: then nothing is added after it
		now := atomic.LoadUint64(p.word)
		if at := p.s.place.Load(); at != nil && now != p.moved {
			at.overflowed.Store(true)
			at.addShared(now - p.moved)
		}
		p.moved = now
		if gone {
			atomic.StoreUint64(p.word, 0)
			w.freeSpares = append(w.freeSpares, p.word)
			continue
		}
		kept = append(kept, p)
	}
	clear(w.spares[len(kept):])
	w.spares = kept
}

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
type OwnedCounter struct{ o *ownedCell }

// Counter makes a handle of c in the lane.
func (l *Lane) Counter(c *Counter) OwnedCounter {
	if c == nil || !l.mayOwn(c.s) {
		return OwnedCounter{}
	}
	return OwnedCounter{own(l, c.s, &ownedCell{l: l, s: c.s})}
}

// Add adds n.
func (c OwnedCounter) Add(n uint64) {
	if c.o != nil {
		*c.o.cell.Load() += n
	}
}

// Inc adds 1.
func (c OwnedCounter) Inc() { c.Add(1) }

// OwnedUpDownCounter is an UpDownCounter with one writer at a time. The zero value records nowhere.
type OwnedUpDownCounter struct{ o *ownedCell }

// UpDownCounter makes a handle of c in the lane.
func (l *Lane) UpDownCounter(c *UpDownCounter) OwnedUpDownCounter {
	if c == nil || !l.mayOwn(c.s) {
		return OwnedUpDownCounter{}
	}
	return OwnedUpDownCounter{own(l, c.s, &ownedCell{l: l, s: c.s})}
}

// Add adds n, which may be negative.
func (c OwnedUpDownCounter) Add(n int64) {
	if c.o != nil {
		*c.o.cell.Load() += uint64(n)
	}
}

// OwnedFloatCounter is a FloatCounter with one writer at a time. The zero value records nowhere.
type OwnedFloatCounter struct {
	o *ownedCells
	c *FloatCounter
}

// FloatCounter makes a handle of c in the lane.
func (l *Lane) FloatCounter(c *FloatCounter) OwnedFloatCounter {
	if c == nil || !l.mayOwn(c.s) {
		return OwnedFloatCounter{}
	}
	return OwnedFloatCounter{own(l, c.s, &ownedCells{l: l, s: c.s}), c}
}

// Add adds v: finite and not negative, else it is rejected and counted.
func (c OwnedFloatCounter) Add(v float64) {
	if c.o == nil {
		return
	}
	p := c.o.place.Load()
	if p == nil || !isAmount(v) {
		c.c.Add(v)
		return
	}
	p.cells[0] = math.Float64bits(math.Float64frombits(p.cells[0]) + v)
}

// OwnedStat is a Stat with one writer at a time. The zero value records nowhere.
type OwnedStat struct {
	o *ownedCells
	c *Stat
}

// Stat makes a handle of c in the lane.
func (l *Lane) Stat(c *Stat) OwnedStat {
	if c == nil || !l.mayOwn(c.s) {
		return OwnedStat{}
	}
	return OwnedStat{own(l, c.s, &ownedCells{l: l, s: c.s}), c}
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
	if c == nil || !l.mayOwn(c.s) {
		return OwnedHistogram{}
	}
	return OwnedHistogram{own(l, c.s, &ownedCells{l: l, s: c.s}), c}
}

// Record counts v in its bucket.
func (c OwnedHistogram) Record(v float64) {
	if c.o == nil {
		return
	}
	p := c.o.place.Load()
	if p == nil || !isAmount(v) {
		c.c.Record(v)
		return
	}
	h := &c.c.shape
	cell := layout.BucketIndex(h.scale, v) - h.min
	if uint(cell) < uint(h.count) {
		cell += layout.HistBuckets
	} else {
		cell = h.outside(v, cell)
	}
	p.cells[cell]++
	p.cells[layout.HistSum] = math.Float64bits(math.Float64frombits(p.cells[layout.HistSum]) + v)
}

// OwnedIntHistogram is an IntHistogram with one writer at a time. The zero value records nowhere.
type OwnedIntHistogram struct {
	o *ownedCells
	c *IntHistogram
}

// IntHistogram makes a handle of c in the lane.
func (l *Lane) IntHistogram(c *IntHistogram) OwnedIntHistogram {
	if c == nil || !l.mayOwn(c.s) {
		return OwnedIntHistogram{}
	}
	return OwnedIntHistogram{own(l, c.s, &ownedCells{l: l, s: c.s}), c}
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
	h := &c.c.shape
	cell := layout.BucketIndex(h.scale, float64(v)) - h.min
	if uint(cell) < uint(h.count) {
		cell += layout.HistBuckets
	} else {
		cell = h.outside(float64(v), cell)
	}
	p.cells[cell]++
	p.cells[layout.HistSum] += v
}
