package archiver

import (
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// batchWords is how many values of rows are held at once, at most, unless one row alone has more.
const batchWords = 1 << 19

// batch is what will be one block: rows of sources that have one schema, as columns. Its memory is used again.
type batch struct {
	plan *plan
	key  batchKey

	raw             reader.Batch // of the table that is being taken
	words, numbers  []uint64
	times, starts   []int64
	flags           []bool
	cells           [][]uint64
	present         [][]bool
	used, usedFlags int

	rows  []archive.Rows
	of    []*table // of each of rows
	folds []*fold.Folder
	taken []taken
}

// batchKey is what all sources of a block have in common, beside the schema.
type batchKey struct {
	uid, home int
	step      int64
	fold      bool
}

// taken is what a table's rows in a batch mean for it.
type taken struct {
	t          *table
	last       uint64 // number of the last one
	lost       uint64 // rows before the first one that the ring no longer has
	unreadable uint64
	rewound    bool
	more       bool // rows that are there are left for another block
}

func (b *batch) reset() {
	b.plan = nil
	b.used, b.usedFlags = 0, 0
	b.numbers, b.times, b.starts = b.numbers[:0], b.times[:0], b.starts[:0]
	clear(b.cells)
	clear(b.present)
	clear(b.rows)
	clear(b.of)
	clear(b.taken)
	b.cells, b.present, b.rows, b.of, b.taken = b.cells[:0], b.present[:0], b.rows[:0], b.of[:0], b.taken[:0]
	if cap(b.words) > 2*batchWords {
		b.words, b.folds = nil, nil
	}
	if b.raw.Cap() > batchWords {
		b.raw = reader.Batch{}
	}
}

// alloc answers n words of the batch's memory, as somebody left them. What was answered before stays where it is.
func (b *batch) alloc(n int) []uint64 {
	if b.used+n > len(b.words) {
		b.words, b.used = make([]uint64, max(n, batchWords)), 0
	}
	w := b.words[b.used : b.used+n : b.used+n]
	b.used += n
	return w
}

func (b *batch) allocFlags(n int) []bool {
	if b.usedFlags+n > len(b.flags) {
		b.flags, b.usedFlags = make([]bool, max(n, 1<<12)), 0
	}
	f := b.flags[b.usedFlags : b.usedFlags+n : b.usedFlags+n]
	b.usedFlags += n
	return f
}

// fold makes rows of the archive's step of those that were taken, where they are finer than it. A window that may get further
// rows is left for the next time, if it can be: rows of the table's are lost otherwise, or no further ones are to come.
func (b *batch) fold(step time.Duration) {
	n := 0
	for i := range b.rows {
		from, t := b.rows[i], b.of[i]
		if n == len(b.folds) {
			b.folds = append(b.folds, &fold.Folder{})
		}
		f := b.folds[n]
		f.Reset(b.plan.Series, step, false, 0)
		f.Add(&from)
		end := i+1 < len(b.rows) && b.of[i+1] == t || t.ending || float64(t.unflushed()) >= urgent*float64(t.rows) || b.moreOf(t)
		r := f.Flush(end)
		if len(r.Times) == 0 {
			continue
		}
		r.Source, r.Starts = from.Source, from.Starts
		b.rows[n], b.of[n] = r, t
		n++
	}
	clear(b.rows[n:])
	clear(b.of[n:])
	b.rows, b.of = b.rows[:n], b.of[:n]
}

func (b *batch) moreOf(t *table) bool {
	return slices.ContainsFunc(b.taken, func(x taken) bool { return x.t == t && x.more })
}

// verdict is what came of trying to add a table's rows to a batch.
type verdict int

const (
	nothing verdict = iota // there are none, or none that can be read
	all                    // all that there are
	some                   // more are to come, in another block
	full                   // none: the batch is another schema's, or has no room
)

// flush writes the rows of tables that are not written yet, in blocks of tables that lie side by side here and have one schema.
func (a *Archiver) flush(tables []*table) {
	b := &a.batch
	for _, t := range tables {
		for again := true; again; {
			switch v := a.take(b, t); v {
			case full, some:
				if !a.write(b) {
					return
				}
			default:
				again = false
			}
		}
	}
	a.write(b)
}

// take adds a table's rows to the batch.
func (a *Archiver) take(b *batch, t *table) verdict {
	for range 2 {
		g := gatherer{a: a, b: b, t: t}
		switch there := t.st.seg.Take(t.n, 0, g.begin, g.row); {
		case !there:
			return nothing
		case g.wanted: // outside of the segment's locks
			if _, err := a.plans.add(t.n, t.name); err != nil {
				a.o.Logger.Warn("a table can't be archived", "segment", t.st.seg.ID(), "table", t.name, "err", err)
				return nothing
			}
			continue
		case g.full:
			return full
		}
		return g.end()
	}
	return nothing
}

// gatherer takes rows of one table into a batch's columns.
type gatherer struct {
	a *Archiver
	b *batch
	t *table

	plan            *plan
	wanted, full    bool
	from, head      uint64
	epoch           uint32
	first           int // of the table's numbers and times in the batch's
	room, n         int // rows
	cols            []column
	cells           [][]uint64
	present         [][]bool
	runs            []run
	rewound         bool
	final, estimate bool
	stopped         bool
}

// run is consecutive rows of one epoch.
type run struct {
	epoch uint32
	low   uint16
	begin int
}

func (g *gatherer) begin(series []*reader.Series, head uint64, epoch uint32) (from uint64, ok bool) {
	t, b, a := g.t, g.b, g.a
	g.head, g.epoch = head, epoch
	from = t.last + 1
	if head < t.last { // FORMAT.md 19.4
		from, g.rewound = 1, true
	}
	if head < from {
		return 0, false
	}
	// A dead writer's last words are one row more than the ring holds.
	oldest := uint64(1)
	if ring := uint64(t.rows) + 1; head > ring {
		oldest = head - ring + 1
	}
	from = max(from, oldest)
	if t.lastOnly {
		from = head
	}
	a.plans.collect(t.n, series, from, head)
	if len(a.plans.cols) == 0 {
		t.last, t.time = head, 0 // rows of no series
		return 0, false
	}
	p := a.plans.find(t.n, t.name, t.plan)
	if p == nil {
		g.wanted = true
		return 0, false
	}
	key := batchKey{t.st.uid, t.home, int64(t.step), t.fold}
	n := int(min(head-from+1, uint64(max(1, batchWords/max(p.words, 1))), maxBlockRows))
	if b.plan != nil && (b.plan != p || b.key != key || len(b.rows) >= cohortTables || b.used+n*p.words > max(batchWords, len(b.words))) {
		g.full = true
		return 0, false
	}
	b.plan, b.key = p, key
	t.setPlan(p)
	g.plan, g.cols, g.room, g.from = p, a.plans.cols, n, from
	g.first = len(b.numbers)
	b.raw.Reset()
	return from, true
}

// maxBlockRows is FORMAT.md 16.1's.
const maxBlockRows = 65_535

func (g *gatherer) row(row *reader.Row) bool {
	if g.n == g.room || row.No > g.head {
		g.stopped = true
		return false
	}
	if len(g.runs) == 0 || g.runs[len(g.runs)-1].low != row.Epoch {
		for _, r := range g.runs {
			if r.low == row.Epoch { // once in a block
				g.stopped = true
				return false
			}
		}
		g.runs = append(g.runs, run{g.t.st.fullEpoch(g.epoch, row.Epoch), row.Epoch, g.n})
	}
	b := g.b
	b.numbers = append(b.numbers, row.No)
	b.times = append(b.times, floorMs(row.Time))
	g.n++
	g.final, g.estimate = row.Final, row.Estimated
	b.raw.Add(row)
	return true
}

// columns makes columns of the rows that were taken.
func (g *gatherer) columns() {
	b, p := g.b, g.plan
	at := len(b.cells)
	b.cells = slices.Grow(b.cells, p.columns)[:at+p.columns]
	b.present = slices.Grow(b.present, p.columns)[:at+p.columns]
	g.cells, g.present = b.cells[at:], b.present[at:]
	for i := range p.shapes {
		h, c := &p.shapes[i], &g.cols[i]
		all := c.Series != nil && len(c.older) == 0 && b.raw.HoldAll(c.Series)
		for f := range h.fields {
			to := b.alloc(h.width * g.n)
			g.cells[h.column+f] = to
			if !all {
				g.pick(c, h, f, to)
				continue
			}
			b.raw.Column(to, c.Series, f, h.width)
			if f < h.unset {
				continue
			}
			for k, w := range to {
				if w == h.word {
					to[k] = 0
					g.absent(h.column+f, k)
				}
			}
		}
	}
}

// pick makes a column of which not all rows hold the series.
func (g *gatherer) pick(c *column, h *shape, f int, to []uint64) {
	if c.Series == nil {
		clear(to)
		p := g.b.allocFlags(g.n)
		clear(p)
		g.present[h.column+f] = p
		return
	}
	b := g.b
	b.raw.Column(to, c.Series, f, h.width)
	var other []uint64
	for k := range g.n {
		s := c.in(&b.raw, k)
		at := to[k*h.width : (k+1)*h.width]
		switch {
		case s == nil:
			clear(at)
			g.absent(h.column+f, k)
			continue
		case s != c.Series:
			if other == nil {
				other = make([]uint64, len(to))
			}
			b.raw.Column(other, s, f, h.width)
			copy(at, other[k*h.width:])
		}
		if f >= h.unset && at[0] == h.word {
			at[0] = 0
			g.absent(h.column+f, k)
		}
	}
}

// absent says that a field has no value in row k.
func (g *gatherer) absent(field, k int) {
	p := g.present[field]
	if p == nil {
		p = g.b.allocFlags(g.n)
		for i := range p {
			p[i] = true
		}
		g.present[field] = p
	}
	p[k] = false
}

func floorMs(ns int64) int64 {
	ms := ns / 1e6
	if ns%1e6 < 0 {
		ms--
	}
	return ms
}

// end makes sources of what was taken.
func (g *gatherer) end() verdict {
	t, b := g.t, g.b
	if g.n == 0 {
		if g.plan != nil && len(b.rows) == 0 {
			b.reset()
		}
		return nothing
	}
	numbers, times := b.numbers[g.first:], b.times[g.first:]
	last := numbers[g.n-1]
	x := taken{t: t, last: last, rewound: g.rewound, unreadable: last - numbers[0] + 1 - uint64(g.n)}
	if first := numbers[0]; !g.rewound && t.last > 0 && first > t.last+1 {
		x.lost = first - t.last - 1
	}
	if g.rewound {
		g.a.rewind(t.st)
	}
	g.columns()
	starts := g.starts()
	for i, r := range g.runs {
		end := g.n
		if i+1 < len(g.runs) {
			end = g.runs[i+1].begin
		}
		rows := archive.Rows{Source: t.st.source(r.epoch), Numbers: numbers[r.begin:end], Times: times[r.begin:end], Base: numbers[end-1], Starts: starts}
		if end == g.n {
			rows.Final, rows.Estimated = g.final, g.estimate
		}
		rows.Cells, rows.Present = g.cut(r.begin, end)
		b.rows = append(b.rows, rows)
		b.of = append(b.of, t)
	}
	x.more = g.stopped || last < g.head && g.n == g.room
	b.taken = append(b.taken, x)
	g.a.values += g.n * g.plan.columns
	if m := g.a.o.Missing; m != nil && numbers[0] > t.last+1 && !g.rewound {
		m(Missing{Segment: t.st.seg, Source: t.st.source(g.runs[0].epoch), Table: t.n, From: t.last + 1, To: numbers[0] - 1, After: t.time, Before: times[0], Overwrites: t.last > 0})
	}
	failpoint.Here("archiver.flush.gathered")
	if x.more {
		return some
	}
	return all
}

func (g *gatherer) starts() []int64 {
	b := g.b
	at := len(b.starts)
	for i := range g.plan.shapes {
		start := g.t.st.birth
		if s := g.cols[i].Series; s != nil {
			start = s.Start
		}
		b.starts = append(b.starts, floorMs(start))
	}
	return b.starts[at:len(b.starts):len(b.starts)]
}

// cut makes Cells and Present of the rows from begin to end.
func (g *gatherer) cut(begin, end int) (cells [][]uint64, present [][]bool) {
	cells = g.cells
	if begin > 0 || end < g.n {
		cells = slices.Clone(g.cells)
		for i := range g.plan.shapes {
			s := &g.plan.shapes[i]
			for f := s.column; f < s.column+s.fields; f++ {
				cells[f] = g.cells[f][begin*s.width : end*s.width]
			}
		}
	}
	for f, p := range g.present {
		if p == nil {
			continue
		}
		if present == nil {
			present = make([][]bool, len(g.present))
		}
		present[f] = p[begin:end]
	}
	return cells, present
}

// rewind has a segment's rows from now on be another copy's: its row numbers began anew. FORMAT.md 19.4.
func (a *Archiver) rewind(st *segment) {
	next := st.copy + 1
	for _, other := range a.ids[st.id] {
		next = max(next, other.copy+1)
	}
	st.copy = next
	st.exemplar, st.traced = 0, true
	a.o.Logger.Warn("a segment's rows began anew: they are archived as another copy's", "segment", st.seg.ID(), "copy", next)
}
