package writer

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/layout"
)

// tickState is what a table's ticks keep from one to the next.
type tickState struct {
	tiers []tierState
	cells []uint64 // the row, as it was published last: an f64 total never goes below it
	folds []uint64 // the same with the extremes of a coarser tier's window in it

	stale bool // the runs below are not those of the live series
	runs  []run
	stats []*series
	lanes [][]uint64 // lanes that were ever used, in order
}

// tierState is a ring as its publisher sees it.
type tierState struct {
	d     *layout.Tier
	id    layout.RowIdentity
	phase uint64
	step  uint64 // floor((now + phase) / step) at the last row, at birth before the first
	head  uint64 // number of the newest row
	time  int64  // its t; birth_unix before the first
}

// extremes are the least and the greatest of a window; any is false when nothing was recorded.
type extremes struct {
	min, max float64
	any      bool
}

func (e *extremes) fold(o extremes) {
	switch {
	case !o.any:
	case !e.any:
		*e = o
	default:
		e.min, e.max = min(e.min, o.min), max(e.max, o.max)
	}
}

func (e *extremes) words() (least, greatest uint64) {
	if !e.any {
		return layout.UnsetF64, layout.UnsetF64
	}
	return math.Float64bits(e.min), math.Float64bits(e.max)
}

func (t *table) initTick() {
	h := t.seg.hdr
	t.tick.cells = make([]uint64, 0, t.d.RowCells)
	for i := range int(t.d.Tiers) {
		d := &t.d.Tier[i]
		s := tierState{d: d, id: h.RowIdentity(t.n, i), phase: idWord(h.SegmentID) % d.Step, time: h.BirthUnix}
		s.step = s.at(h.BirthMono)
		t.tick.tiers = append(t.tick.tiers, s)
	}
}

// epochJump is by how many ns unix minus mono time must have moved since the last tick for the epoch to move: FORMAT.md 10.9.
// Slewing moves both clocks alike, and two readings that belong together lie microseconds apart.
const epochJump = int64(500e6)

// readClock reads the clocks for a tick. Where they say that memory may have been rewound, the epoch moves. Between two
// readings this process may have been stopped for long, so a jump counts only if it is seen twice. w.mu is held.
func (w *Writer) readClock() (unixNow, mono int64) {
	unixNow, mono = w.opts.Clock()
	if jumped(unixNow-mono, w.offset) {
		if unixNow, mono = w.opts.Clock(); jumped(unixNow-mono, w.offset) && !w.opts.Sampled {
			w.setEpoch(w.epoch + 1)
		}
	}
	w.offset = unixNow - mono
	return unixNow, mono
}

func jumped(offset, was int64) bool { return offset-was > epochJump || was-offset > epochJump }

// at is the number of the step that mono lies in. FORMAT.md 10.4.
func (s *tierState) at(mono int64) uint64 { return (uint64(mono) + s.phase) / s.d.Step }

// Tick publishes what is due: FORMAT.md 10.4. It is for programs with Options.NoTicker, which call
// it at least once a base step from a loop of their own; more often costs a clock reading. The
// tables' steps decide, so a call that comes too early does nothing.
func (w *Writer) Tick() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
}

func (w *Writer) tick() {
	if w.closed {
		return
	}
	w.ticks++
	w.moveSpares()
	unixNow, mono := w.readClock()
	for _, g := range w.segments {
		if g.path == "" && !g.adopt(unixNow, mono, false) {
			for _, t := range g.tables {
				t.reclaim()
			}
			continue
		}
		g.reconcile()
		g.publish(unixNow, mono, false)
	}
}

// publish makes the rows that are due, all of them when final. The segment has a file.
func (g *segment) publish(unixNow, mono int64, final bool) {
	published := false
	for _, t := range g.tables {
		if t.publish(unixNow, mono, final) {
			published = true
			t.reclaim()
		}
	}
	if !published {
		return
	}
	atomic.StoreUint64(&g.words[g.ctl+layout.CtlHeartbeat], uint64(mono))
	atomic.StoreUint64(&g.words[g.ctl+layout.CtlClockOffset], uint64(unixNow-mono))
	atomic.AddUint64(&g.words[g.ctl+layout.CtlTicks], 1)
}

// publish is FORMAT.md 10.4, steps 1 to 4, for one table.
func (t *table) publish(unixNow, mono int64, final bool) bool {
	if len(t.tick.tiers) == 0 {
		return false // sampled
	}
	base := &t.tick.tiers[0]
	if base.at(mono) == base.step && !final {
		return false
	}
	r := t.openRow
	t.drop(func(s *series) bool { return s.info.RetiredRow != 0 && s.info.RetiredRow <= r })
	if t.tick.stale {
		t.compile()
	}
	overflow := int(t.d.Lanes)
	for _, s := range t.tick.stats {
		prepareWindow(t.laneCells(t.seg.words, s, overflow), r+1)
	}
	t.openRow = r + 1
	atomic.StoreUint64(&t.seg.words[t.tctl+layout.TctlOpenRow], r+1)

	t.collect(r)
	header := layout.RowHeader{T: unixNow, TMono: mono, BaseRow: r, Epoch: uint16(t.seg.w.epoch)}
	if final {
		header.Flags |= layout.RowFinal
	}
	for i := range t.tick.tiers {
		tier := &t.tick.tiers[i]
		if i > 0 && tier.at(mono) == tier.step && !final {
			continue
		}
		tier.step = tier.at(mono)
		tier.head++
		header.RowNo, header.TBegin = tier.head, tier.time
		tier.time = unixNow
		slot := t.seg.words[tier.d.RowOffset(tier.head)/8:][:tier.d.RowStride/8]
		layout.PublishRow(slot, tier.id, &header, t.rowOf(i))
		atomic.StoreUint64(&t.seg.words[t.tctl+layout.TctlHead+i], tier.head)
	}
	return true
}

// rowOf are the cells of the row that a tier publishes: those collected, and in the coarser
// tiers min and max over the base rows since their last one.
func (t *table) rowOf(tier int) []uint64 {
	if tier == 0 || len(t.tick.stats) == 0 {
		return t.tick.cells
	}
	t.tick.folds = append(t.tick.folds[:0], t.tick.cells...)
	for _, s := range t.tick.stats {
		fold := &s.fold[tier-1]
		cells := t.tick.folds[s.info.RowCell:]
		cells[layout.StatMin], cells[layout.StatMax] = fold.words()
		*fold = extremes{}
	}
	return t.tick.folds
}

// zeroRow makes room in the row for a new series, whose cells were perhaps another's.
func (t *table) zeroRow(s *series) {
	t.tick.cells = t.tick.cells[:t.row.used]
	clear(t.tick.cells[s.info.RowCell:][:s.info.Kind.Cells(int(s.info.Buckets)).Row])
}

// drop takes series out of the rows to come.
func (t *table) drop(which func(*series) bool) {
	if len(t.retired) == 0 {
		return
	}
	n := len(t.live)
	t.live = slices.DeleteFunc(t.live, func(s *series) bool {
		gone := which(s)
		if gone {
			t.zeroRow(s)
		}
		return gone
	})
	t.tick.stale = t.tick.stale || len(t.live) != n
}

// usedLanes are the lanes that may hold anything but zeros, in order. A P's always may; an
// owner's since it was first taken, the overflow lane since somebody first had to use it.
func (t *table) usedLanes() [][]uint64 {
	lanes := t.tick.lanes[:0]
	for k := range int(t.d.Lanes) + 1 {
		switch {
		case k < t.procs:
		case k < int(t.d.Lanes) && t.seg.w.lanesEver>>(k-t.procs)&1 == 0:
			continue
		case k == int(t.d.Lanes) && !t.overflowed.Load():
			continue
		}
		lanes = append(lanes, t.seg.words[(t.d.LanesOffset+uint64(k)*uint64(t.d.LaneStride))/8:][:t.lane.used])
	}
	t.tick.lanes = lanes
	return lanes
}

// collect fills cells with row r: FORMAT.md 10.4, step 3.
func (t *table) collect(r uint64) {
	lanes, cells := t.usedLanes(), t.tick.cells
	shared := t.seg.words[t.d.SharedOffset/8:][:t.shared.used]
	for _, u := range t.tick.runs {
		u.do(cells[u.row:][:u.n], lanes, shared)
	}
	for _, s := range t.tick.stats {
		row := cells[s.info.RowCell:][:layout.StatMax+1]
		at := int(s.info.LaneCell)
		sumInts(row[layout.StatCount:][:1], lanes, at)
		if s.info.Flags&layout.FlagNonNegative != 0 {
			sumTotals(row[layout.StatSum:][:1], lanes, at+1)
		} else {
			sumFloats(row[layout.StatSum:][:1], lanes, at+1)
		}
		row[layout.StatLast] = atomic.LoadUint64(&shared[s.info.SharedCell])
		e := windowExtremes(lanes, at, r)
		row[layout.StatMin], row[layout.StatMax] = e.words()
		for i := range t.tick.tiers[1:] {
			s.fold[i].fold(e)
		}
	}
}

// windowExtremes looks into the windows of row r in every lane, of a stat whose cells begin at at.
func windowExtremes(lanes [][]uint64, at int, r uint64) (e extremes) {
	for _, lane := range lanes {
		win := window(lane[at:], r)
		if atomic.LoadUint64(&win[layout.WindowTag]) != r {
			continue
		}
		least := math.Float64frombits(atomic.LoadUint64(&win[layout.WindowMin]))
		greatest := math.Float64frombits(atomic.LoadUint64(&win[layout.WindowMax]))
		// A NaN is an overflow window in which nothing was recorded yet. A record there moves min
		// first: until it moved max too, the one value is both.
		if least != least {
			least = greatest
		}
		if greatest != greatest {
			greatest = least
		}
		e.fold(extremes{least, greatest, least == least})
	}
	return e
}

// startTicker starts the one goroutine that a writer has. w.mu is held.
func (w *Writer) startTicker() {
	w.wake, w.done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(w.done)
		timer := time.NewTimer(w.nextTick())
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				w.Tick()
			case <-w.wake: // a further segment, or the end
			}
			next := w.nextTick()
			if next < 0 {
				return
			}
			timer.Reset(next)
		}
	}()
}

// nextTick is the time until the next step of any table ends, negative once closed. It is found anew
// from the clock each time, so a late tick delays none after it.
func (w *Writer) nextTick() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return -1
	}
	_, mono := w.opts.Clock()
	next := time.Duration(math.MaxInt64)
	for _, g := range w.segments {
		if g.path == "" {
			next = min(next, time.Duration(max(g.retryAt-mono, 0)))
		} else if g.past != nil && w.opts.Sampled {
			next = min(next, time.Second) // what still arrives in the old memory is moved by ticks
		}
		next = min(next, g.untilStep(mono))
	}
	return next
}

// untilStep is the time until the next base step of a table ends.
func (g *segment) untilStep(mono int64) time.Duration {
	next := time.Duration(math.MaxInt64)
	for _, t := range g.tables {
		if len(t.tick.tiers) == 0 {
			continue
		}
		base := &t.tick.tiers[0]
		next = min(next, time.Duration(base.d.Step-(uint64(mono)+base.phase)%base.d.Step))
	}
	return next
}

func (w *Writer) wakeTicker() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) stopTicker() {
	if w.done != nil {
		w.wakeTicker()
		<-w.done
	}
}
