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
	sent   bool // a row
	done   bool
}

// table is where a table's export is.
type table struct {
	tier    int   // of the segment that is sent, -1: the table has none
	thin    int64 // ns: of the rows of so much time one goes out; 0: all do
	no      uint64
	time    int64 // of the last row sent, unix ns
	epoch   uint16
	started bool
	start   int64 // of the epoch, if the segment had one before
	stale   bool

	at    Cursor // the row of number atRow, or the end, is in part in a request before this one
	atRow uint64

	folding bool // rows were passed over since the last one sent
	folded  []minmax

	sentNo uint64 // of the last row sent; 0: it is not in the ring
}

// segment exports the new rows of all tables of a segment.
func (e *Exporter) segment(ctx context.Context, seg Segment) error {
	st := e.states[seg.ID()]
	if st == nil {
		st = e.newState(seg)
		e.states[seg.ID()] = st
	}
	st.cycle = e.cycles
	if st.done {
		return nil
	}
	e.renew(st, seg)
	for table := range st.tables {
		for e.rows(st, table) {
			if err := e.send(ctx, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Exporter) newState(seg Segment) *state {
	st := &state{tables: make([]table, len(seg.Tables()))}
	for i, t := range seg.Tables() {
		st.tables[i].tier, st.tables[i].thin = nearest(t.Tiers, e.o.Step)
	}
	return st
}

// nearest is the tier whose step is nearest to the one that is wanted, by ratio, -1 if there is none; and, if
// that is so much finer that most of its rows are to be passed over, the time of which one is kept.
func nearest(tiers []reader.Tier, step time.Duration) (tier int, thin int64) {
	tier = -1
	best := math.Inf(1)
	for i, t := range tiers {
		if d := math.Abs(math.Log(float64(t.Step) / float64(step))); d < best {
			tier, best = i, d
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
		Series: series, Overrides: overrides, Seen: NewBits(len(series)), starts: make([]int64, len(series))}
	for i, s := range series {
		src.starts[i] = whole(s.Start)
	}
	if was := st.src; was != nil {
		// A descriptor may be gone from the middle, so that numbers shift.
		old := make(map[descriptor]int, len(was.Series))
		for i, s := range was.Series {
			old[descriptorOf(s)] = i
		}
		for i, s := range series {
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
			p.folded = nothingFolded(nil, len(series))
			for i, s := range series {
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
	p := &st.tables[table]
	if p.tier < 0 {
		return false
	}
	for {
		var moved *reader.Row
		if full, moved = e.rowsOfEpoch(st, table); moved == nil {
			return full
		}
		if e.fell(st, table, moved) {
			p.start = whole(moved.Begin)
		}
		p.epoch = moved.Epoch
	}
}

// rowsOfEpoch is rows up to the first row of another epoch, which it answers a copy of.
func (e *Exporter) rowsOfEpoch(st *state, table int) (full bool, moved *reader.Row) {
	p := &st.tables[table]
	latest := e.o.Now().UnixNano() + int64(ahead)
	st.seg.Rows(table, p.tier, p.no+1, func(row *reader.Row) bool {
		if p.started && row.Epoch != p.epoch {
			moved = row.Clone()
			return false
		}
		if e.enc.Full() {
			full = true
			return false
		}
		if row.No != p.atRow {
			p.at = Cursor{} // the ring went over the row that was sent in part
		}
		if p.at == (Cursor{}) {
			e.enter(st, p, row)
			last, early := row.Final || row.Estimated, row.Time > latest
			if !last && (early || p.thin > 0 && !crosses(row.Begin, row.Time, p.thin)) {
				if early {
					e.mu.Lock()
					e.stats.RowsAhead++
					e.mu.Unlock()
				}
				if !p.folding {
					p.folded, p.folding = nothingFolded(p.folded, len(st.series)), true
				}
				fold(p.folded, st.src, table, living{row})
				p.no = row.No
				return true
			}
		}
		r := &e.row
		*r = Row{Table: table, Time: whole(min(row.Time, latest)), Final: row.Final || row.Estimated,
			src: st.src, live: row, start: p.start, after: p.time, whole: true}
		if p.folding {
			r.folded = p.folded
		}
		at, done := e.enc.Add(st.src, r, p.at)
		if !done {
			p.at, p.atRow, full = at, row.No, true
			return false
		}
		p.at, p.no, p.time, p.folding = Cursor{}, row.No, r.Time, false
		st.sent = true
		return true
	})
	return full, moved
}

// ahead is by how much a row's time may lie beyond now: clocks are read one after the other.
const ahead = time.Second

// fell tells whether something that is only ever added to is less in a row than in the one taken before, if that is still there.
func (e *Exporter) fell(st *state, table int, moved *reader.Row) (fell bool) {
	p := &st.tables[table]
	st.seg.Rows(table, p.tier, p.no, func(row *reader.Row) bool {
		for _, s := range st.series {
			if row.No != p.no || fell {
				break
			}
			before, had := row.Value(s)
			if now, has := moved.Value(s); had && has {
				fell = s.Kind == reader.Counter && now.Float < before.Float || now.Count < before.Count
			}
		}
		return false
	})
	return fell
}

// enter looks at a row's number before it is taken.
func (e *Exporter) enter(st *state, p *table, row *reader.Row) {
	if p.no > 0 && row.No > p.no+1 {
		e.lost(LostOverrun, row.No-p.no-1)
		e.o.Logger.Warn("rows were overwritten before they could be exported", "segment", st.seg.ID(), "rows", row.No-p.no-1)
	}
	p.epoch, p.started = row.Epoch, true
}

// end says of an ended segment, all rows of which were taken, that its series have no value any more.
func (e *Exporter) end(ctx context.Context, st *state) error {
	end, ended := st.seg.End()
	if st.done || !ended {
		return nil
	}
	if st.sent && !e.succeeded(st) {
		at := whole(min(end, e.o.Now().UnixNano()+int64(ahead))) + int64(time.Millisecond)
		for table := range st.tables {
			p := &st.tables[table]
			for !p.stale {
				row := Row{Table: table, Time: at, src: st.src, cells: nothing{}, start: p.start, after: p.time}
				p.at, p.stale = e.enc.End(st.src, &row, p.at)
				if !p.stale {
					if err := e.send(ctx, true); err != nil {
						return err
					}
				}
			}
		}
	}
	st.done = true
	e.ending = append(e.ending, st)
	return nil
}

// succeeded tells whether a later incarnation of the source has sent rows: an end after them would end
// its series, not the predecessor's.
func (e *Exporter) succeeded(st *state) bool {
	for _, other := range e.states {
		if other.sent && other.seg.Start() > st.seg.Start() && other.seg.Source() == st.seg.Source() && other.seg.Group() != st.seg.Group() {
			return true
		}
	}
	return false
}
