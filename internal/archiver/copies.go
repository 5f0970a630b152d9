package archiver

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// Missing takes rows that a table's ring lost before they were archived from the writer's coarser rings, as far as those still have
// them: into the archive's tier of that step, or folded into it, flagged as copies. FORMAT.md 19.5. Where rings overlap, the finer one is taken.
// It is to be called before what follows is folded; a second call for the same rows copies nothing.
func (s *Sweeper) Missing(m Missing) {
	tables := m.Segment.Tables()
	if s.Writer.Err() != nil || m.Table >= len(tables) || m.From > m.To {
		return
	}
	defer s.tell()
	tiers := tables[m.Table].Tiers
	first, _ := home(s.steps, tiers[0].Step)
	var all []*copies
	to := m.To
	for i := 1; i < len(tiers) && to >= m.From; i++ { // finest first
		target := slices.IndexFunc(s.steps, func(step time.Duration) bool { return step >= tiers[i].Step })
		if target < 0 {
			break
		}
		c := &copies{m: m, tier: i, target: max(target, first+1), to: to}
		if c.target >= len(s.steps) {
			break
		}
		if c.gather(); len(c.rows.Times) > 0 {
			to = c.low - 1
			all = append(all, c)
		}
	}
	for _, c := range slices.Backward(all) { // in the order of their rows
		if !s.copy(c, first, tables[m.Table].Name) {
			return
		}
	}
}

// copies are rows of one of a writer's coarser rings.
type copies struct {
	m      Missing
	tier   int // of the writer's
	target int // of the archive's
	to     uint64

	series []*reader.Series
	rows   archive.Rows // not folded, but for Coverage; Numbers are those of tier 0
	low    uint64       // the first row of tier 0 that they tell of
}

// gather reads those of the ring's rows that tell of what is missing and of nothing behind it.
func (c *copies) gather() {
	tiers := c.m.Segment.Tables()[c.m.Table].Tiers
	last := uint64(0) // tier 0's number of the row before, if that is known
	known := false
	var at [][]uint64
	c.m.Segment.Take(c.m.Table, c.tier, func(series []*reader.Series, head uint64, _ uint32) (uint64, bool) {
		for _, s := range series {
			if s.Table == c.m.Table && s.Holds(c.m.From, c.to) && !slices.ContainsFunc(c.series, func(o *reader.Series) bool { return same(o, s) }) {
				c.series = append(c.series, s)
			}
		}
		n := 0
		for _, s := range c.series {
			n += len(archive.Fields(s.Kind, false))
		}
		at = make([][]uint64, n)
		c.rows.Present = make([][]bool, n)
		rows := uint64(tiers[c.tier].Rows)
		return max(head, rows) - rows + 1, head > 0 && len(c.series) > 0
	}, func(row *reader.Row) bool {
		begin := last + 1
		if !known { // as many as the steps say
			step := int64(tiers[0].Step)
			n := uint64(max(1, (row.Time-row.Begin+step/2)/step))
			begin = row.BaseRow - min(n, row.BaseRow) + 1
		}
		last, known = row.BaseRow, true
		switch {
		case row.BaseRow > c.to:
			return false
		case row.BaseRow < c.m.From || row.Epoch != uint16(c.m.Source.Epoch): // another epoch is another source
			return true
		}
		begin = max(begin, c.m.From)
		if len(c.rows.Times) == 0 {
			c.low = begin
		}
		c.rows.Numbers, c.rows.Times = append(c.rows.Numbers, row.BaseRow), append(c.rows.Times, floorMs(row.Time))
		c.rows.Coverage = append(c.rows.Coverage, row.BaseRow-begin+1)
		f := 0
		for _, s := range c.series {
			f = c.take(at, f, row, s)
		}
		return true
	})
	c.rows.Cells = at
	if n := len(c.rows.Numbers); n > 0 {
		c.rows.Base = c.rows.Numbers[n-1]
	}
}

// take takes a series' cells into its fields, which begin at f, and answers the next series' first one.
func (c *copies) take(at [][]uint64, f int, row *reader.Row, s *reader.Series) int {
	words, ok := row.Words(s)
	put := func(w []uint64, is bool) {
		at[f] = append(at[f], w...)
		c.rows.Present[f] = append(c.rows.Present[f], is)
		f++
	}
	fields := len(archive.Fields(s.Kind, false))
	switch {
	case !ok && s.Kind == reader.Histogram:
		put(make([]uint64, s.Buckets.Count+3), false)
	case !ok:
		for range fields {
			put([]uint64{0}, false)
		}
	case s.Kind == reader.Histogram:
		put(words, true)
	default:
		for i := range fields {
			is := s.Kind != reader.Gauge && (s.Kind != reader.Stat || i < 2) || words[i] != s.Number.Unset()
			put(words[i:i+1], is)
		}
	}
	return f
}

// copy writes copies into their tier, once everything before them is folded. False: nothing can be written just now.
func (s *Sweeper) copy(c *copies, home int, table string) bool {
	key := tableKey{c.m.Source.Key, c.m.Table}
	l := s.levels[c.target-1]
	if p := l.position(key); p == nil || p.base >= c.rows.Base {
		return true // they are there
	}
	for _, l := range s.levels[home:c.target] {
		if !l.catchUp(key) {
			return false
		}
	}
	done := c.m.From - 1
	if p := l.position(key); p != nil {
		done = max(done, p.base)
	}
	schema, err := s.schemas.schema(c.m.Table, table, c.series)
	if err != nil {
		return l.failed(&pending{key: key}, err)
	}
	l.folder.Reset(c.series, l.step, false, done)
	n := l.folder.Add(&c.rows)
	r := l.folder.Flush(true)
	if n == 0 {
		return true
	}
	r.Source, r.Copied = c.m.Source, true
	for _, s := range c.series {
		r.Starts = append(r.Starts, floorMs(s.Start))
	}
	failpoint.Here("archiver.copy")
	p := l.pending[key]
	if p == nil {
		p = &pending{key: key, uid: c.m.Source.UID}
	}
	if !l.append(schema, []archive.Rows{r}, []*pending{p}) {
		return false
	}
	s.stats.Copied += uint64(n)
	s.o.Logger.Debug("rows that were lost from a ring were taken from the writer's coarser one", "segment", fmt.Sprintf("%x", key.Segment), "table", c.m.Table, "rows", n, "tier", l.step)
	return true
}

// position finds how far a source is folded. nil: it can't be found out.
func (l *level) position(key tableKey) *pending {
	if p := l.pending[key]; p != nil && p.located {
		return p
	}
	found, err := l.s.Writer.Find(key.Segment)
	if err != nil {
		l.failed(&pending{key: key}, err)
		return nil
	}
	p := &pending{key: key, located: true, looked: true}
	for _, inc := range found {
		if inc.Key != key.Key || key.table >= len(inc.Tables) {
			continue
		}
		p.uid = inc.UID
		e := entry{first: math.MinInt64}
		for _, t := range inc.Tables[key.table].Tiers {
			switch t.Tier {
			case l.fine:
				e.base = t.Base
			case l.fine + 1:
				p.base, e.first = t.Base, t.Newest
			}
		}
		if e.base > p.base {
			p.blocks = append(p.blocks, e)
		}
	}
	return p
}

// catchUp folds what the finer tier has of a source, whether its window is over or not. False: nothing can be written just now.
func (l *level) catchUp(key tableKey) bool {
	known := l.pending[key]
	p := known
	if p == nil || !l.loaded || !p.located {
		if p = l.position(key); p == nil {
			return true
		}
	}
	if len(p.blocks) > 0 && (!l.fold(p, true, false) || !l.flush()) {
		return false
	}
	if known != nil && known != p && p.base > 0 {
		l.folded(known, p.base)
	}
	return true
}
