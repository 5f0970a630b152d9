package archiver

import (
	"slices"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// plan is a schema, and how a row's cells become its columns.
type plan struct {
	*archive.Schema
	shapes  []shape // of Schema.Series
	columns int     // fields of all series
	words   int     // of a row in all of them
	refs    int     // tables that have it
}

// shape is how one series' cells lie in its fields.
type shape struct {
	column int // number of its first field
	fields int // 1, or a stat's 5
	width  int // words of a field for each row
	unset  int // the first field that may be unset; fields where none may
	word   uint64
}

func newPlan(table int, name string, series []*reader.Series) (*plan, error) {
	s, err := archive.NewSchema(table, name, series)
	if err != nil {
		return nil, err
	}
	p := &plan{Schema: s, shapes: make([]shape, len(series))}
	for i, sr := range series {
		h := shape{column: p.columns, fields: len(archive.Fields(sr.Kind, false)), width: 1, word: sr.Number.Unset()}
		h.unset = h.fields
		switch sr.Kind {
		case reader.Gauge:
			h.unset = 0
		case reader.Stat:
			h.unset = 2 // count and sum are always there; last, min and max perhaps
		case reader.Histogram:
			h.width = sr.Buckets.Count + 3
		}
		p.shapes[i] = h
		p.columns += h.fields
		p.words += h.fields * h.width
	}
	return p, nil
}

// widths is how many words each field has in a row.
func (p *plan) widths(folded bool) (w []int) {
	for _, s := range p.Series {
		for _, f := range archive.Fields(s.Kind, folded) {
			if w = append(w, 1); f == archive.Hist {
				w[len(w)-1] = s.Buckets.Count + 3
			}
		}
	}
	return w
}

// A column is where the values of one of a schema's series come from: the source's series, nil if it has none, and others
// of the same identity whose rows are before its own: they were retired, and then registered again.
type column struct {
	*reader.Series
	older []*reader.Series
}

// in is the series of which row k has the column's value, nil if it has none.
func (c *column) in(rows *reader.Batch, k int) *reader.Series {
	if rows.Holds(c.Series, k) {
		return c.Series
	}
	for _, s := range c.older {
		if rows.Holds(s, k) {
			return s
		}
	}
	return nil
}

// plans are those in use. A thousand segments of one program share one.
type plans struct {
	all  map[planKey][]*plan
	n    int
	list []*reader.Series
	cols []column
	seen map[string]int
	key  []byte
}

type planKey struct {
	table  int
	name   string
	series int
}

// plansKept is how many may be kept that no table has.
const plansKept = 64

// collect makes cols of the series of a table that rows first to last may hold. A series is listed until no ring has a
// row of it any more: FORMAT.md 10.2.
func (p *plans) collect(table int, series []*reader.Series, first, last uint64) {
	p.list, p.cols = p.list[:0], p.cols[:0]
	again := false
	for _, s := range series {
		if s.Table == table && s.Holds(first, last) {
			p.list = append(p.list, s)
			again = again || s.Retired
		}
	}
	if !again {
		for _, s := range p.list {
			p.cols = append(p.cols, column{Series: s})
		}
		return
	}
	// Only what was retired can be there twice.
	if p.seen == nil {
		p.seen = map[string]int{}
	}
	clear(p.seen)
	for _, s := range p.list {
		p.key = identity(p.key[:0], s)
		at, twice := p.seen[string(p.key)]
		if !twice {
			p.seen[string(p.key)] = len(p.cols)
			p.cols = append(p.cols, column{Series: s})
			continue
		}
		c := &p.cols[at]
		if s.Start < c.Start {
			c.older = append(c.older, s)
		} else {
			c.older = append(c.older, c.Series)
			c.Series = s
		}
	}
}

// identity is what a series is known by within its table.
func identity(b []byte, s *reader.Series) []byte {
	b = append(append(b, s.Name...), 0, byte(s.Kind), byte(s.Number), byte(s.Buckets.Scale), byte(s.Buckets.Min), byte(s.Buckets.Min>>8), byte(s.Buckets.Count), byte(s.Buckets.Count>>8))
	for _, l := range s.Labels {
		b = append(append(append(append(b, l.Name...), 0), l.Value...), 0)
	}
	return b
}

// same tells whether a schema's series is this one in all that a schema says.
func same(a, b *reader.Series) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.Number == b.Number && a.Buckets == b.Buckets && a.NonNegative == b.NonNegative &&
		a.Unit == b.Unit && a.Help == b.Help && len(a.Labels) == len(b.Labels) && (len(a.Labels) == 0 || &a.Labels[0] == &b.Labels[0] || slices.Equal(a.Labels, b.Labels))
}

// fits tells whether a plan has all of cols, in their order, and not many others. Then cols are the plan's, with
// holes.
func (p *plans) fits(to *plan) bool {
	n, have := len(to.Series), len(p.cols)
	if have > n || n-have > 8+have/4 {
		return false
	}
	j := 0
	for _, s := range to.Series {
		if j < have && same(s, p.cols[j].Series) {
			j++
		}
	}
	if j < have {
		return false
	}
	if n > have {
		p.cols = append(p.cols, make([]column, n-have)...)
		for i, j := n-1, have-1; i >= 0; i-- {
			if j >= 0 && same(to.Series[i], p.cols[j].Series) {
				p.cols[i] = p.cols[j]
				if j != i {
					p.cols[j] = column{}
				}
				j--
			} else {
				p.cols[i] = column{}
			}
		}
	}
	return true
}

// find is a plan for cols: the one that the table had, if it fits, or any. nil: there is none yet.
func (p *plans) find(table int, name string, had *plan) *plan {
	if had != nil && p.fits(had) {
		return had
	}
	for _, q := range p.all[planKey{table, name, len(p.cols)}] {
		if p.fits(q) {
			return q
		}
	}
	return nil
}

// add makes a plan of cols.
func (p *plans) add(table int, name string) (*plan, error) {
	series := make([]*reader.Series, len(p.cols))
	for i := range p.cols {
		series[i] = p.cols[i].Series
	}
	q, err := newPlan(table, name, series)
	if err != nil {
		return nil, err
	}
	if p.all == nil {
		p.all = map[planKey][]*plan{}
	}
	if p.n >= plansKept {
		p.sweep()
	}
	k := planKey{table, name, len(series)}
	p.all[k] = append(p.all[k], q)
	p.n++
	return q, nil
}

// sweep forgets plans that no table has, if they are many.
func (p *plans) sweep() {
	idle := 0
	for _, list := range p.all {
		for _, q := range list {
			if q.refs == 0 {
				idle++
			}
		}
	}
	if idle < plansKept {
		return
	}
	for k, list := range p.all {
		list = slices.DeleteFunc(list, func(q *plan) bool { return q.refs == 0 })
		if len(list) == 0 {
			delete(p.all, k)
		} else {
			p.all[k] = list
		}
	}
	p.n -= idle
}
