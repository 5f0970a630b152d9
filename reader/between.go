package reader

import (
	"iter"
	"sync"

	"github.com/shmts/shmts/layout"
)

// Between yields the rows of a tier whose Time lies in [begin, end], unix ns, oldest first. The row is
// valid until the next one is asked for.
func (g *Segment) Between(table, tier int, begin, end int64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) { g.between(table, tier, begin, end, yield) }
}

func (g *Segment) between(table, tier int, begin, end int64, yield func(*Row) bool) {
	head := g.Head(table, tier)
	if head == 0 || begin > end {
		return
	}
	last := head
	var words *Row
	if w := g.words.Load(); w != nil { // they are not in the file
		words, last = &w.rows[table][tier], last-1
	}
	steady := true
	within := func(row *Row) bool {
		switch {
		case row.Time > end:
			return !steady // where the clock was stepped, an earlier time may follow
		case row.Time < begin:
			return true
		}
		return yield(row)
	}
	if last > 0 {
		var r ring
		if r.open(g, table, tier) != nil {
			return
		}
		var from uint64
		from, steady = r.firstAt(words, last, begin, end)
		ok := r.each(from, last, within)
		r.done()
		if !ok {
			return
		}
	}
	if words != nil {
		row := *words
		within(&row)
	}
}

// Newest yields the last of the rows that Between would, if there is one. Mostly that is the ring's newest, and no other is read.
func (g *Segment) Newest(table, tier int, begin, end int64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		head := g.Head(table, tier)
		if head == 0 || begin > end || g.newest(table, tier, head, begin, end, yield) {
			return
		}
		var newest Row
		sc := takeScratch()
		defer sc.give()
		g.between(table, tier, begin, end, func(row *Row) bool {
			newest = *row
			newest.cells = sc.words(len(row.cells))
			copy(newest.cells, row.cells)
			return true
		})
		if newest.No > 0 {
			yield(&newest)
		}
	}
}

// newest yields row head if its time lies in [begin, end], and tells whether it did.
func (g *Segment) newest(table, tier int, head uint64, begin, end int64, yield func(*Row) bool) bool {
	if w := g.words.Load(); w != nil {
		row := w.rows[table][tier]
		if row.Time < begin || row.Time > end {
			return false
		}
		yield(&row)
		return true
	}
	var r ring
	if r.open(g, table, tier) != nil {
		return false
	}
	defer r.done()
	row, _, _ := r.row(head, head)
	if row == nil || row.Time < begin || row.Time > end {
		return false
	}
	yield(row)
	return true
}

// slack is by how many rows more than (newest - time) / step one goes back to be sure of the first row at a time: rows lie
// in steps of their own, but for the final one, and the clock may be slewed by a step.
const slack = 3

// firstAt is a row at or before the first one of the ring that is not older than begin. Rows lie a step apart or more,
// so the time of the newest, words or else row last, tells how far back that can be; unless the
// wall clock was stepped in between. Then it is all rows, and steady is false.
//
// It is meant to cost no reading: the newest row is one of those that are wanted, mostly, and so are loaded
// with it; and what was learnt of the clock before is kept.
func (r *ring) firstAt(words *Row, last uint64, begin, end int64) (from uint64, steady bool) {
	g, step := r.g, int64(r.t.Step)
	oldest := g.oldest(r.table, r.tier, last)
	newest, known := g.clocks.newest(r.table, r.tier, last)
	time := newest.time
	switch {
	case words != nil:
		newest, known, time = stamp{words.No, words.Time, words.Mono}, true, words.Begin
	case !known:
		time = g.published()
	}
	r.loadNewest(oldest, last, begin, end, time)
	if !known {
		row, _, _ := r.row(last, last)
		if row == nil {
			return oldest, false
		}
		newest = stamp{row.No, row.Time, row.Mono}
	}
	width, ok := g.clocks.steady(r.table, r.tier, newest, oldest, step)
	if !ok {
		sc := takeScratch()
		defer sc.give()
		found := false
		for n := oldest; n < min(oldest+tries, last) && !found; n++ { // the oldest may be overwritten right now
			found = g.row(&r.v, sc, r.table, r.tier, n)
		}
		if !found {
			return oldest, false
		}
		if width, ok = g.clocks.anchor(r.table, r.tier, newest, stamp{sc.row.No, sc.row.Time, sc.row.Mono}, step); !ok {
			return oldest, false
		}
	}
	if newest.time < begin {
		return last + 1, true
	}
	from = oldest
	if back := rowsIn(begin, newest.time, step) + slack; back < newest.no-oldest {
		from = newest.no - back
	}
	// What was loaded begins later, and of a mapping each row costs. A row is early enough if it is older than begin,
	// whatever the slewing.
	p := uint64(0)
	if r.n > 0 {
		p = r.first
	} else if r.v.w.words != nil {
		p = newest.no - min(rowsIn(begin, newest.time, step)+1, newest.no)
	}
	if p > from {
		if row, _, _ := r.row(p, p); row != nil && row.Time < begin && uint64(begin-row.Time) > uint64(width) {
			return p + 1, true
		}
	}
	r.limit = rowsIn(begin, end, step) + slack
	return from, true
}

// rowsIn is how many steps lie between begin and end, 0 if end is before.
func rowsIn(begin, end, step int64) uint64 {
	if end < begin {
		return 0
	}
	return min(uint64(end-begin)/uint64(step), layout.MaxRows)
}

// published is when the newest row of any table was, unix ns, as far as the control block tells: a hint.
func (g *Segment) published() int64 {
	return g.Heartbeat() + int64(g.control[layout.CtlClockOffset].Load())
}

// loadNewest loads row last, of about that time, and those before it that are wanted too.
func (r *ring) loadNewest(oldest, last uint64, begin, end, time int64) {
	step := int64(r.t.Step)
	n := min(rowsIn(begin, time, step)+2, last-oldest+1)
	if time < begin || n < 2 || n > uint64(r.batch) || rowsIn(end, time, step) > slack {
		return
	}
	if r.load(last-n+1, last) != nil {
		r.n = 0 // who reads a row will see
	}
}

// A stamp is a row's number and times.
type stamp struct {
	no         uint64
	time, mono int64
}

func (s *stamp) offset() int64 { return s.time - s.mono }

// A tierClock is what is known of the clock that a ring's rows were stamped with: that it was steady from some row on, which
// is the oldest of the ring or older, up to newest.
type tierClock struct {
	last      stamp // the newest row that was looked at; none if no is 0
	low, high int64 // least and greatest offset from mono to unix time of those looked at
	stepped   uint64
}

// clocks are a segment's. A clock that is slewed takes minutes for a step's length; one that is stepped is seen
// by the row after, by who reads that, and by Refresh.
type clocks struct {
	mu   sync.Mutex
	at   [][]tierClock // by table and tier
	seen bool
	was  int64 // offset at the last Refresh
}

// newest is row n's stamp, if that is the newest looked at.
func (c *clocks) newest(table, tier int, n uint64) (stamp, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.at[table][tier].last
	return s, s.no == n && n != 0
}

// steady tells whether all rows looked at lately, from the ring's oldest on, and newest have one clock, to width, which is
// a step at most. If not, the oldest must be looked at.
func (c *clocks) steady(table, tier int, newest stamp, oldest uint64, step int64) (width int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.at[table][tier]
	o := newest.offset()
	low, high := min(k.low, o), max(k.high, o)
	if k.last.no < oldest || k.stepped >= oldest || high-low > step {
		return 0, false
	}
	k.low, k.high = low, high
	if newest.no > k.last.no {
		k.last = newest
	}
	return high - low, true
}

// anchor begins anew with the newest row and the oldest, and tells whether they have one clock.
func (c *clocks) anchor(table, tier int, newest, oldest stamp, step int64) (width int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.at[table][tier]
	low, high := min(newest.offset(), oldest.offset()), max(newest.offset(), oldest.offset())
	if k.stepped >= oldest.no || high-low > step {
		k.last = stamp{}
		return 0, false
	}
	k.last, k.low, k.high = newest, low, high
	return high - low, true
}

// observe is told of the offset by each Refresh. Where that moved by more than half a step the rows up to the heads are of
// another clock than those to come.
func (c *clocks) observe(offset, step int64, heads *headNumbers) {
	was := c.was
	c.was = offset
	if d := offset - was; !c.seen || d <= step/2 && d >= -step/2 || step == 0 {
		c.seen = true
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for table := range c.at {
		for tier := range c.at[table] {
			c.at[table][tier].stepped = heads[table][tier] + 1 // heads may be a tick older than the offset
		}
	}
}
