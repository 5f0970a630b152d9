package export

import (
	"context"
	"math"
	"time"

	"github.com/shmts/shmts/reader"
)

// state is what the exporter knows of a living segment, or of one that is kept after its writer's end.
type state struct {
	seg   Segment
	cycle uint64 // the last one that saw it

	src       *Source
	series    []*reader.Series // the segment's
	overrides map[*reader.Series][]reader.Pair

	tables []table
	done   bool
}

// sent tells whether any row of it was, by whomever.
func (st *state) sent() bool {
	for i := range st.tables {
		if p := st.tables[i].pos; p != nil && p.time > 0 {
			return true
		}
	}
	return false
}

// table is where the export of a table's ring is.
type table struct {
	pos  *position
	tier int    // of the segment that is sent, -1: the table has none
	thin int64  // ns: of the rows of so much time one goes out; 0: all do
	no   uint64 // of the last row looked at; 0: pos says
	last uint64 // of the last row sent, 0 if it is not known

	at    Cursor // the row of number atRow, or the end, is in part in a request before this one
	atRow uint64

	folding bool // rows were passed over since the last one sent
	folded  []minmax
	after   uint64 // pos.base then: the archive's rows may have moved it since

	moved   bool      // to another epoch, since the last row sent
	checked bool      // the ring goes on from pos
	caught  bool      // nothing is left to send
	waiting bool      // the ring does not reach back to pos: what the archive has comes first
	since   time.Time // when that was seen, or pos moved last
	stuck   uint64    // pos.base then
	stale   bool      // its end is in a request
}

// active tells of a table whether its ring tells what comes next.
func (st *state) active(table int) bool {
	return table < len(st.tables) && st.tables[table].no > 0 && st.tables[table].checked
}

// segment exports the new rows of all tables of a segment.
func (e *Exporter) segment(ctx context.Context, seg Segment) error {
	st := e.states[seg.ID()]
	if st == nil {
		st = e.newState(seg)
		e.states[seg.ID()] = st
		e.sources[seg.Source()] = append(e.sources[seg.Source()], st)
	}
	st.cycle = e.cycles
	if st.done {
		return nil
	}
	e.renew(st, seg)
	for table := range st.tables {
		if e.behind && st.tables[table].pos.time == 0 {
			st.tables[table].caught = false
			continue // a predecessor's rows may be in the archive, and go first
		}
		for e.rows(st, table) {
			if err := e.send(ctx, true); err != nil || e.late {
				return err
			}
		}
	}
	return nil
}

func (e *Exporter) newState(seg Segment) *state {
	st := &state{seg: seg, tables: make([]table, len(seg.Tables())), done: len(seg.Tables()) > 0}
	id := id16(seg.ID())
	_, ino := seg.Inode()
	for i, t := range seg.Tables() {
		tb := &st.tables[i]
		tb.tier, tb.thin = tierOf(t.Tiers, e.o.Step)
		k := key{id, ino, i}
		if tb.pos = e.pos.of(k); tb.pos == nil {
			tb.pos = e.pos.add(k)
		}
		st.done = st.done && tb.pos.done
	}
	if st.done {
		e.mu.Lock()
		e.finished[seg.ID()] = true
		e.mu.Unlock()
	}
	return st
}

// tierOf is the coarsest tier whose step is not more than the one that is wanted, the finest if there is none, -1 of no tiers; and, if
// that is so much finer that most of its rows are to be passed over, the time of which one is kept.
func tierOf(tiers []reader.Tier, step time.Duration) (tier int, thin int64) {
	tier = -1
	for i, t := range tiers {
		if tier < 0 || t.Step <= step {
			tier = i
		}
	}
	if tier >= 0 {
		thin = thinned(tiers[tier].Step, step)
	}
	return tier, thin
}

// thinned is the time, ns, of which one of a tier's rows is kept; 0 if all are.
func thinned(tier, step time.Duration) int64 {
	if tier*3/2 < step {
		return int64(step)
	}
	return 0
}

// crosses tells whether a row is the first of its step: the one before it is of another.
func crosses(before, time, step int64) bool { return floorDiv(before, step) != floorDiv(time, step) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// renew takes over what a newer view of the segment says. Most say nothing new.
func (e *Exporter) renew(st *state, seg Segment) {
	series, overrides := seg.Series(), seg.Overrides()
	same := st.src != nil && len(series) == len(st.series) && (len(series) == 0 || &series[0] == &st.series[0]) &&
		(len(overrides) == 0 && len(st.overrides) == 0 || seg == st.seg)
	st.seg = seg
	if same {
		return
	}
	src := &Source{ID: seg.ID(), Labels: seg.Labels(), Attributes: seg.Attributes(), Start: seg.Start(), Tables: len(st.tables),
		Series: series, Overrides: overrides}
	src.Seen, src.starts = NewBits(len(src.Series)), make([]int64, len(src.Series))
	for i, s := range src.Series {
		src.starts[i] = whole(s.Start)
	}
	if was := st.src; was != nil {
		// A descriptor may be gone from the middle, so that numbers shift.
		old := make(map[descriptor]int, len(was.Series))
		for i, s := range was.Series {
			old[descriptorOf(s)] = i
		}
		for i, s := range src.Series {
			if k, ok := old[descriptorOf(s)]; ok && was.Seen.Has(k) {
				src.Seen.Set(i)
			}
		}
		for i := range st.tables {
			p := &st.tables[i]
			had := p.folded
			p.at, p.folded = Cursor{}, nil
			if !p.folding {
				continue
			}
			p.folded = nothingFolded(nil, len(src.Series))
			for i, s := range src.Series {
				if from, ok := old[descriptorOf(s)]; ok {
					p.folded[i] = had[from]
				}
			}
		}
	}
	st.series, st.overrides, st.src = series, overrides, src
}

// rows puts new rows of a table into the request, until there are none, or it is full: then it answers true.
func (e *Exporter) rows(st *state, table int) (full bool) {
	t := &st.tables[table]
	if t.caught = t.tier < 0 || st.src.since(table) == math.MaxInt64; t.caught {
		return false
	}
	if t.waiting { // the archive's rows have moved pos, perhaps
		t.waiting, t.no, t.last, t.folding = false, 0, 0, false
	}
	if head := st.seg.Head(table, t.tier); head < t.no && head > 0 {
		e.o.Logger.Warn("a segment's rows began anew", "segment", st.seg.ID(), "table", table)
		t.no, t.last, t.at, t.folding = 0, 0, Cursor{}, false
		t.pos.base, t.pos.time, t.pos.start, t.pos.done = 0, 0, t.pos.time, false
	}
	for {
		var moved *reader.Row
		if full, moved = e.rowsOfEpoch(st, table); moved == nil {
			// A file that is gone has no rows, and is not at its end.
			t.checked = !t.waiting
			t.caught = !full && !t.waiting && (t.pos.base == 0 || st.seg.Head(table, t.tier) > 0)
			return full
		}
		if e.fell(st, table, moved) {
			t.pos.start = whole(moved.Begin)
		}
		t.pos.epoch, t.moved = moved.Epoch, true
	}
}

// ringRow is a ring's row at hand.
type ringRow struct {
	e      *Exporter
	st     *state
	n      int // table
	t      *table
	latest int64
	before *kept // with Delta: the row sent before, once it is found
	full   bool
	moved  *reader.Row

	exemplar uint64 // up to where the row at hand has them
}

// rowsOfEpoch is rows up to the first row of another epoch, which it answers a copy of.
func (e *Exporter) rowsOfEpoch(st *state, table int) (full bool, moved *reader.Row) {
	t := &st.tables[table]
	r := ringRow{e: e, st: st, n: table, t: t, latest: e.o.Now().UnixNano() + int64(ahead)}
	from := t.no + 1
	if e.o.Delta && t.last > 0 {
		from = t.last
	}
	st.seg.Rows(table, t.tier, from, r.row)
	return r.full, r.moved
}

// row takes one, and answers whether the next one is wanted.
func (r *ringRow) row(row *reader.Row) bool {
	e, t, pos := r.e, r.t, r.t.pos
	if row.No <= t.no || row.BaseRow <= pos.base {
		r.known(row)
		return true
	}
	if pos.started && row.Epoch != pos.epoch {
		r.moved = row.Clone()
		return false
	}
	if e.enc.Full() {
		r.full = true
		return false
	}
	if row.No != t.atRow {
		t.at = Cursor{} // the ring went over the row that was sent in part
	}
	last := row.Final || row.Estimated
	if t.at == (Cursor{}) {
		if !r.reaches(row) {
			return false
		}
		if early := row.Time > r.latest; !last && (early || t.thin > 0 && !crosses(row.Begin, row.Time, t.thin)) {
			if early {
				e.count(func(s *Stats) { s.RowsAhead++ })
			}
			if !t.folding || t.after != pos.base {
				t.folded, t.folding, t.after = nothingFolded(t.folded, len(r.st.src.Series)), true, pos.base
			}
			fold(t.folded, r.st.src, r.n, living{row})
			t.no = row.No
			return true
		}
	}
	at := whole(min(row.Time, r.latest))
	// Without positions nobody knows what of the rows before this exporter was sent.
	if old := e.pos.path == "" && row.Time <= e.pos.born; e.o.Delta && (old || r.before == nil && !r.base(row)) {
		e.skipDelta(pos, row.BaseRow, at, row.Epoch)
		t.no, t.last = row.No, row.No
		r.known(row)
		return true
	}
	out := &e.row
	*out = Row{Table: r.n, Time: at, Final: last, src: r.st.src, live: row, start: pos.start, after: pos.time,
		whole: pos.time > 0 || pos.whole, before: r.before}
	if t.folding && t.after == pos.base {
		out.folded = t.folded
	}
	if e.o.Exemplars != nil {
		out.exemplars = r.traced(row, last)
	}
	next, done := e.enc.Add(r.st.src, out, t.at)
	if !done {
		t.at, t.atRow, r.full = next, row.No, true
		return false
	}
	t.at, t.no, t.last, t.folding = Cursor{}, row.No, row.No, false
	pos.exemplar = max(pos.exemplar, r.exemplar)
	moved := !pos.started || t.moved
	pos.epoch, pos.started, t.moved = row.Epoch, true, false
	e.move(pos, row.BaseRow, at, moved, false)
	if e.o.Delta {
		r.before = &kept{cells: living{row.Clone()}, src: r.st.src, time: at}
	}
	return true
}

// traced are the exemplars that go with a row: those of its table since the row before, up to its time. What is of another table is passed over.
func (r *ringRow) traced(row *reader.Row, last bool) []exemplar {
	e, pos, src := r.e, r.t.pos, r.st.src
	if e.o.Exemplars.Newest(src.ID, pos.ino) <= pos.exemplar {
		return nil
	}
	e.traced = e.traced[:0]
	r.exemplar = pos.exemplar
	e.o.Exemplars.Above(src.ID, pos.ino, pos.exemplar, func(x *reader.Exemplar) bool {
		if i := src.place(x.Series); i >= 0 && x.Series.Table == r.n {
			if x.Time > row.Time && !last {
				return false // it goes with the next row
			}
			e.traced = append(e.traced, exemplar{i, x})
		}
		r.exemplar = x.Number
		return true
	})
	return e.traced
}

// known looks at a row that was sent, or passed over.
func (r *ringRow) known(row *reader.Row) {
	t, pos := r.t, r.t.pos
	if row.No > t.no {
		t.no = row.No
	}
	if row.BaseRow != pos.base || row.No < t.last {
		return
	}
	k := &kept{cells: living{row}, src: r.st.src, time: pos.time}
	if t.last != row.No { // sent by another process, or out of the archive
		see(r.st.src, r.n, k)
		t.last = row.No
	}
	if r.e.o.Delta {
		k.cells = living{row.Clone()}
		r.before = k
	}
}

// base finds what a row differs from, where the ring does not have it. False: nobody knows.
func (r *ringRow) base(row *reader.Row) bool {
	if r.t.pos.base == 0 { // the first row: it differs from 0, unless it was perhaps sent before this process
		return r.t.pos.whole
	}
	r.before = r.e.lookup(r.t.pos)
	return r.before != nil
}

// begins is the number of the first row of tier 0 that a row tells of, as its times say.
func (r *ringRow) begins(row *reader.Row) uint64 {
	if row.No == 1 {
		return 1
	}
	return row.BaseRow - min(r.covers(row), row.BaseRow) + 1
}

func (r *ringRow) covers(row *reader.Row) uint64 {
	step := int64(r.st.seg.Tables()[r.n].Tiers[0].Step)
	return uint64(max(1, (row.Time-row.Begin+step/2)/step))
}

// reaches looks whether a row is the next one. If it is not, what is between comes out of the archive first, if there is one: then it
// answers false. Else it is lost.
func (r *ringRow) reaches(row *reader.Row) bool {
	e, t, pos := r.e, r.t, r.t.pos
	if t.no == 0 && pos.base == 0 {
		pos.whole = e.wholly(r.st.src.Start, r.begins(row))
	}
	missing := uint64(0)
	switch {
	case t.no > 0 && row.No > t.no+1:
		missing = row.No - t.no - 1
	case t.no == 0 && (pos.base > 0 || r.st.src.Start >= e.pos.born):
		// Where it begins is an estimate: half a row's worth more or less is none.
		if n := r.covers(row); r.begins(row) > pos.base+1+n/2 {
			missing = (r.begins(row) - 1 - pos.base + n - 1) / n
		}
		if pos.base == 0 { // rows before a table's first series hold nothing
			missing = min(missing, rowsBetween(r.st.src.since(r.n), row.Begin, r.st.seg.Tables()[r.n].Tiers[t.tier].Step))
		}
	}
	if missing == 0 {
		return true
	}
	if e.o.Archive != nil {
		now := e.o.Now()
		if t.since.IsZero() || t.stuck != pos.base {
			t.since, t.stuck = now, pos.base
		}
		if e.behind || now.Sub(t.since) < maxWait {
			t.waiting = true
			return false
		}
		t.since = time.Time{}
	}
	t.no = row.No - 1 // counted
	e.lost(LostOverrun, missing)
	e.o.Logger.Warn("rows were overwritten before they could be exported", "segment", r.st.seg.ID(), "rows", missing)
	return true
}

// rowsBetween is how many rows of a step there are from one time to another, unix ns.
func rowsBetween(from, to int64, step time.Duration) uint64 {
	return uint64(max(0, to-from+int64(step)/2) / int64(step))
}

// maxWait is how long rows of a ring wait for those before them, when nothing of these comes out of the archive: living sources' rows are
// there within some ten minutes, unless it is stopped.
const maxWait = 20 * time.Minute

// ahead is by how much a row's time may lie beyond now: clocks are read one after the other.
const ahead = time.Second

// fell tells whether something that is only ever added to is less in a row than in the one taken before, if that is still there.
func (e *Exporter) fell(st *state, table int, moved *reader.Row) (fell bool) {
	t := &st.tables[table]
	st.seg.Rows(table, t.tier, max(t.no, 1), func(row *reader.Row) bool {
		for _, s := range st.series {
			if row.No != t.no || fell {
				break
			}
			before, had := row.Value(s)
			if now, has := moved.Value(s); had && has {
				fell = s.Kind == reader.Counter && now.Float < before.Float || now.Count < before.Count
			}
		}
		return false
	})
	if t.no == 0 && t.pos.base > 0 { // sent by another process
		if was := e.lookup(t.pos); was != nil {
			return fellPast(was, st.src, table, living{moved})
		}
	}
	return fell
}

// end says of an ended segment, all rows of which were taken, that its series have no value any more.
func (e *Exporter) end(ctx context.Context, st *state) error {
	end, ended := st.seg.End()
	if st.done || !ended {
		return nil
	}
	for i := range st.tables {
		if !st.tables[i].caught {
			return nil
		}
	}
	tell := st.sent() && !e.succeeded(st)
	at := whole(min(end, e.o.Now().UnixNano()+int64(ahead))) + int64(time.Millisecond)
	for table := range st.tables {
		t := &st.tables[table]
		for tell && !t.stale {
			e.row = Row{Table: table, Time: at, src: st.src, cells: nothing{}, start: t.pos.start, after: t.pos.time}
			t.at, t.stale = e.enc.End(st.src, &e.row, t.at)
			if !t.stale {
				if err := e.send(ctx, true); err != nil {
					return err
				}
			}
		}
	}
	for i := range st.tables {
		if pos := st.tables[i].pos; pos.base > 0 {
			e.move(pos, pos.base, pos.time, false, true)
		}
	}
	st.done = true
	e.ending = append(e.ending, st)
	return nil
}

// succeeded tells whether a later incarnation of the source has sent rows: an end after them would end
// its series, not the predecessor's.
func (e *Exporter) succeeded(st *state) bool {
	for _, other := range e.sources[st.seg.Source()] {
		if other.sent() && other.seg.Start() > st.seg.Start() && other.seg.Group() != st.seg.Group() {
			return true
		}
	}
	return false
}
