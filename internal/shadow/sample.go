package shadow

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// run is n series of one kind whose cells follow one another: most segments are a few of these.
type run struct {
	layout.Series
	n int
}

// tend samples a segment if that is due, and ends its shadow if its writer has ended.
func (k *Keeper) tend(s *shadow, g *reader.Segment) error {
	if s.ended {
		return nil
	}
	var err error
	if g.Liveness().Ended() {
		err = k.finish(s, g)
	} else {
		err = k.sample(s, g, false)
	}
	if err == nil {
		s.failing = false
		return nil
	}
	k.stats.Failed++
	if s.failing {
		return nil // said before
	}
	s.failing = true
	return fmt.Errorf("shmts: shadow of %s: %w", g.Path(), err)
}

// finish publishes the last words of a segment, or of one that is gone what is known of it, and ends its shadow.
func (k *Keeper) finish(s *shadow, g *reader.Segment) error {
	if s.ended {
		return nil
	}
	flags := uint16(layout.RowEstimated)
	if g != nil && g.Liveness() == reader.Closed {
		flags = layout.RowFinal
	}
	err := fmt.Errorf("it is gone")
	if g != nil {
		err = k.read(s, g)
	}
	for i := range s.tables {
		cells := k.cells[:0]
		if err == nil {
			cells, err = k.take(s, g, i)
		}
		if err != nil { // it can't be read any more: what it said last
			cells = s.previous(i)
		}
		s.publish(k, i, cells, flags, true)
	}
	ctl := s.h.Control.Offset / 8
	atomic.StoreUint64(&s.words[ctl+layout.CtlState], atomic.LoadUint64(&s.words[ctl+layout.CtlState])&^0xffffffff|layout.StateClosed)
	s.ended = true
	k.stats.Ended++
	k.forget(s)
	if g == nil {
		return nil
	}
	return err
}

// sample publishes what is due.
func (k *Keeper) sample(s *shadow, g *reader.Segment, all bool) error {
	read := false
	for i := range s.tables {
		if !all && !k.due(s, i, 0) {
			continue
		}
		if !read {
			if err := k.read(s, g); err != nil {
				return err
			}
			read = true
		}
		cells, err := k.take(s, g, i)
		if err != nil {
			return err
		}
		s.publish(k, i, cells, 0, all)
	}
	if !read {
		return nil
	}
	k.stats.Samples++
	// The pages are the file's, and need not be in this process' account until the next tick. To keep them for eight ticks
	// would save a third of what sampling costs, and take 25 MB for a thousand shadows.
	return unix.Madvise(layout.Bytes(s.words), unix.MADV_DONTNEED)
}

// due tells whether a tier's step has gone by. Steps begin half a base step before a poll, so that one that comes a little
// early or late is in its own.
func (k *Keeper) due(s *shadow, i, j int) bool {
	t := &s.tables[i].tiers[j]
	step := int64(s.h.Tables[i].Tier[j].Step)
	at := func(mono int64) int64 {
		d := mono - k.first + int64(500e6)
		n := d / step
		if d%step < 0 {
			n--
		}
		return n
	}
	return t.head == 0 || at(k.now) != at(t.mono)
}

// read copies the segment's control block, and then the descriptors that are new.
func (k *Keeper) read(s *shadow, g *reader.Segment) error {
	h := g.Header()
	ctl := k.ctl[:layout.CtlTables+len(h.Tables)*layout.TctlWords]
	if err := g.Copy(ctl, h.Control.Offset); err != nil {
		return err
	}
	used := ctl[layout.CtlUsed]
	var changes [layout.MaxTables]uint64
	for i := range h.Tables {
		changes[i] = ctl[layout.CtlTables+i*layout.TctlWords+layout.TctlChanges]
	}
	if !s.synced || used != s.counts || changes != s.changes {
		if err := k.sync(s, g); err != nil {
			return err
		}
		s.synced, s.counts, s.changes = true, used, changes
	}
	touch(s.words[s.h.Control.Offset/8:][:layout.ControlSize/8])
	to := s.h.Control.Offset/8 + layout.CtlState
	if state := uint64(layout.StateLive) | ctl[layout.CtlState]>>32<<32; atomic.LoadUint64(&s.words[to]) != state {
		atomic.StoreUint64(&s.words[to], state)
	}
	return nil
}

// take makes a row's cells of a table's live ones: FORMAT.md 10.4, step 3, without windows.
func (k *Keeper) take(s *shadow, g *reader.Segment, i int) ([]uint64, error) {
	t, d := &s.tables[i], &g.Header().Tables[i]
	k.cells = grow(k.cells, t.cells)
	clear(k.cells)
	used := 0
	for j := range t.runs {
		r := &t.runs[j]
		if c := r.Kind.Cells(int(r.Buckets)); c.Lane > 0 {
			used = max(used, int(r.LaneCell)+r.n*c.Lane)
		}
	}
	stride := int(d.LaneStride / 8)
	// Mostly lanes lie side by side with the shared one: one copy.
	whole := int(d.Lanes+1)*stride + int(d.SharedCells)
	together := d.SharedOffset == d.LanesOffset+uint64(d.Lanes+1)*uint64(d.LaneStride) && whole <= 1<<13
	if together {
		k.lanes = grow(k.lanes, whole)
		if err := g.Copy(k.lanes, d.LanesOffset); err != nil {
			return nil, err
		}
	}
	for lane := range int(d.Lanes) + 1 {
		words := k.lanes
		if together {
			words = words[lane*stride:][:used]
		} else {
			k.lanes = grow(k.lanes, used)
			words = k.lanes
			if err := g.Copy(words, d.LanesOffset+uint64(lane)*uint64(d.LaneStride)); err != nil {
				return nil, err
			}
		}
		for j := range t.runs {
			one := t.runs[j].Series
			for range t.runs[j].n {
				one.FoldLane(k.cells, words, lane == 0, layout.Windows{})
				next(&one)
			}
		}
	}
	shared := k.lanes
	if together {
		shared = shared[int(d.Lanes+1)*stride:]
	} else {
		k.lanes = grow(k.lanes, int(d.SharedCells))
		shared = k.lanes
		if err := g.Copy(shared, d.SharedOffset); err != nil {
			return nil, err
		}
	}
	var before []uint64
	if t.epoch == uint16(k.ctl[layout.CtlState]>>32) {
		before = s.previous(i)
	}
	for j := range t.runs {
		one := t.runs[j].Series
		for range t.runs[j].n {
			previous := before
			if int(one.RowCell)+one.Kind.Cells(int(one.Buckets)).Row > len(before) {
				previous = nil // it was not there yet
			}
			one.FinishCells(k.cells, shared, previous)
			next(&one)
		}
	}
	return k.cells, nil
}

// next makes of a series of a run the one that follows.
func next(one *layout.Series) {
	c := one.Kind.Cells(int(one.Buckets))
	one.RowCell += uint32(c.Row)
	one.LaneCell += uint32(c.Lane)
	one.SharedCell += uint32(c.Shared)
}

// previous are the cells of the newest base row, in place: nobody else stores there.
func (s *shadow) previous(i int) []uint64 {
	t := &s.tables[i]
	if t.row == 0 {
		return nil
	}
	d := &s.h.Tables[i]
	slot := touch(s.words[d.Tier[0].RowOffset(t.row)/8:][:layout.RowWords+d.RowCells])
	n := min(layout.View[layout.RowHeader](slot, 0).Cells, d.RowCells)
	return slot[layout.RowWords:][:n]
}

// publish is FORMAT.md 10.4, steps 4 and 5, for one table. final puts a row into every tier.
func (s *shadow) publish(k *Keeper, i int, cells []uint64, flags uint16, final bool) {
	t, d := &s.tables[i], &s.h.Tables[i]
	ctl := s.h.Control.Offset / 8
	tctl := ctl + uint64(layout.CtlTables+i*layout.TctlWords)
	epoch := atomic.LoadUint64(&s.words[ctl+layout.CtlState]) >> 32
	r := t.row + 1
	atomic.StoreUint64(&s.words[tctl+layout.TctlOpenRow], r+1)
	cells = append(grow(k.lanes, 0), cells...) // previous' own slot may be the next one's
	k.lanes = cells
	for j := range t.tiers {
		tier := &t.tiers[j]
		if j > 0 && !final && !k.due(s, i, j) {
			continue
		}
		h := layout.RowHeader{RowNo: tier.head + 1, TBegin: tier.time, T: k.unix, TMono: k.now, BaseRow: r, Epoch: uint16(epoch), Flags: flags}
		if flags != 0 {
			if h.T <= tier.time {
				h.T = tier.time + int64(d.Tier[j].Step) // the clock was stepped back: now says nothing
			}
			h.TMono = tier.mono + h.T - tier.time
		}
		layout.PublishRow(touch(s.words[d.Tier[j].RowOffset(h.RowNo)/8:][:d.Tier[j].RowStride/8]), s.h.RowIdentity(i, j), &h, cells)
		tier.head, tier.time, tier.mono = h.RowNo, h.T, h.TMono
		atomic.StoreUint64(&s.words[tctl+layout.TctlHead+uint64(j)], h.RowNo)
	}
	t.row, t.epoch = r, uint16(epoch)
	atomic.StoreUint64(&s.words[ctl+layout.CtlHeartbeat], uint64(k.now))
	atomic.StoreUint64(&s.words[ctl+layout.CtlClockOffset], uint64(k.unix-k.now))
	atomic.AddUint64(&s.words[ctl+layout.CtlTicks], 1)
}

// touch has the pages of words mapped, as a store does: one by one. A load would have the kernel map sixteen around it, all of which count
// as this process's.
func touch(words []uint64) []uint64 {
	const page = 4096 / 8
	for i := 0; i < len(words); i += page {
		atomic.AddUint64(&words[i], 0)
	}
	if n := len(words); n > 0 {
		atomic.AddUint64(&words[n-1], 0)
	}
	return words
}

func grow(w []uint64, n int) []uint64 {
	if cap(w) < n {
		return make([]uint64, n)
	}
	return w[:n]
}
