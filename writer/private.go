package writer

import (
	"math"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// Where a segment's file can't be had, the segment is private memory of the
// same shape, which publishes nothing: its open row stays 1. When a later
// attempt succeeds, the file is born with the same ids, birth time and
// series, and what the private memory holds is added into its overflow lane, so
// that its first row covers everything since Open.
//
// A record may be on its way into the old memory while its handle is pointed
// to the new one; it holds a place that it loaded a few instructions ago. So the
// old memory stays mapped, and for pastTicks ticks what still arrived there is moved
// over too. Nothing waits for anybody, and no record is lost, unless the process is killed within the
// microseconds between the birth of the file and the new places: then what was recorded meanwhile is.
type past struct {
	words  []uint64
	series []*series
	moved  [][]uint64 // by table: of each lane cell, the sum that was moved already
	shared [][]uint64 // by table: of each shared cell, the value that was moved
	counts [layout.ControlSize / 8]uint64
	ticks  int
	first  bool
}

const (
	firstRetry = int64(1e9)  // ns
	mostRetry  = int64(60e9) // each attempt that fails doubles the time to the next
	pastTicks  = 60
)

// adopt tries to have a file for a segment that is private memory. w.mu is held.
func (g *segment) adopt(unixNow, mono int64, now bool) bool {
	if mono < g.retryAt && !now {
		return false
	}
	var p *past
	words, path, err := giveBirth(&g.w.opts, g.hdr, func(words []uint64) {
		g.hdr.Encode(words)
		from := g.hdr.Control.Offset / 8
		for i := from; i < g.hdr.Lanes.Offset/8; i++ { // control, series and heap
			words[i] = atomic.LoadUint64(&g.words[i])
		}
		clear(words[g.hdr.Lanes.Offset/8:][:g.hdr.Lanes.Length/8])
		p = g.newPast()
		copy(p.counts[:], words[from:])
		for _, s := range p.series {
			s.t.zero(words, s)
		}
		p.move(g, words)
		if g.ring != nil {
			g.ringOf(words).take(g.ring)
			p.counts[layout.CtlExemplars] = atomic.LoadUint64(&words[g.ctl+layout.CtlExemplars])
		}
	})
	if err != nil {
		g.backoff = min(2*g.backoff, mostRetry)
		g.retryAt = mono + g.backoff
		return false
	}
	g.words, g.path, g.past, g.ring = words, path, p, g.ringOf(words)
	for _, s := range p.series {
		if s.place.Load() == nil {
			continue // retired
		}
		s.place.Store(s.t.placeOf(s))
		for _, o := range s.owned {
			o.attach()
		}
	}
	if g == g.w.segments[0] {
		g.w.useControl(words[g.ctl:][:layout.ControlSize/8])
	}
	g.reconcile()
	return true
}

func (g *segment) newPast() *past {
	p := &past{words: g.words, ticks: pastTicks, first: true}
	for _, t := range g.tables {
		p.moved = append(p.moved, make([]uint64, t.lane.used))
		p.shared = append(p.shared, make([]uint64, t.shared.used))
	}
	for _, d := range g.descriptors {
		if d.series != nil {
			p.series = append(p.series, d.series)
		}
	}
	return p
}

// reconcile moves what arrived in the private memory since the last time.
func (g *segment) reconcile() {
	p := g.past
	if p == nil {
		return
	}
	p.move(g, g.words)
	if p.ticks--; p.ticks <= 0 {
		g.past = nil
	}
}

// move adds what the private memory holds, and was not moved yet, to words.
func (p *past) move(g *segment, words []uint64) {
	for _, s := range p.series {
		if !s.cellsFree {
			p.moveSeries(s, words)
		}
	}
	for _, n := range []int{layout.CtlDroppedSeries, layout.CtlOverflowThreads, layout.CtlRejectedRecords, layout.CtlForkLosses} {
		now := atomic.LoadUint64(&p.words[g.ctl+n])
		if now != p.counts[n] {
			atomic.AddUint64(&words[g.ctl+n], now-p.counts[n])
			p.counts[n] = now
		}
	}
	// Exemplars that still came to the old ring are lost, and no number there is one here.
	if now := atomic.LoadUint64(&p.words[g.ctl+layout.CtlExemplars]); now > p.counts[layout.CtlExemplars] && !p.first {
		late := now - p.counts[layout.CtlExemplars]
		atomic.AddUint64(&words[g.ctl+layout.CtlExemplars], late)
		atomic.AddUint64(&words[g.ctl+layout.CtlExemplarsDropped], late)
		p.counts[layout.CtlExemplars] = now
	}
	p.first = false
}

func (p *past) moveSeries(s *series, words []uint64) {
	t := s.t
	moved, overflow := p.moved[t.n][s.info.LaneCell:], t.laneCells(words, s, int(t.d.Lanes))
	lanes := make([][]uint64, t.d.Lanes+1)
	for k := range lanes {
		lanes[k] = t.laneCells(p.words, s, k)
	}
	ints := func(i int) {
		sum := uint64(0)
		for _, lane := range lanes {
			sum += atomic.LoadUint64(&lane[i])
		}
		if sum != moved[i] {
			t.overflowed.Store(true)
			atomic.AddUint64(&overflow[i], sum-moved[i])
			moved[i] = sum
		}
	}
	floats := func(i int) {
		sum := sumFloat(lanes, i)
		if before := math.Float64frombits(moved[i]); sum != before {
			t.overflowed.Store(true)
			addFloat(&overflow[i], sum-before)
			moved[i] = math.Float64bits(sum)
		}
	}
	number := func(i int) {
		if s.info.Number == layout.F64 {
			floats(i)
		} else {
			ints(i)
		}
	}
	switch s.info.Kind {
	case layout.Counter, layout.UpDown:
		number(0)
	case layout.Stat:
		ints(layout.StatCount)
		floats(layout.StatSum)
		if p.first {
			if e := windowExtremes(lanes, 0, t.openRow); e.any {
				t.overflowed.Store(true)
				moveExtremes(overflow, t.openRow, e.min)
				moveExtremes(overflow, t.openRow, e.max)
			}
		}
	case layout.Histogram:
		number(layout.HistSum)
		for i := range int(s.info.Buckets) + 2 {
			ints(layout.HistZero + i)
		}
	}
	if s.info.Kind.Cells(0).Shared > 0 {
		was := &p.shared[t.n][s.info.SharedCell]
		now := atomic.LoadUint64(t.sharedCell(p.words, s))
		cell := t.sharedCell(words, s)
		if p.first {
			atomic.StoreUint64(cell, now)
		} else if now != *was {
			// Only where nothing newer was set.
			atomic.CompareAndSwapUint64(cell, *was, now)
		}
		*was = now
	}
}
