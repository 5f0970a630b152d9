package archiver

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/internal/archive/pages"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// sweepBatch is folded rows that are not written yet: blocks in the making.
type sweepBatch struct {
	blocks map[*archive.Schema]*sweepBlock
	words  int
	pages  pages.Arena // of the rows that are kept
	lists  [][]uint64  // their cells
	ints   []int64     // their times and starts
}

type sweepBlock struct {
	uid  int
	rows []archive.Rows
	of   []*pending
}

func (b *sweepBatch) reset() {
	if b.blocks == nil {
		b.blocks = map[*archive.Schema]*sweepBlock{}
	}
	clear(b.blocks)
	b.empty()
}

// empty has the memory of rows be used again: none of them is held any more.
func (b *sweepBatch) empty() {
	b.words = 0
	b.pages.Reset()
	clear(b.lists)
	b.lists, b.ints = b.lists[:0], b.ints[:0]
}

// put adds a source's folded rows, which are copied, to the batch. False: nothing can be written just now.
func (l *level) put(p *pending, inc *archive.Incarnation, rows archive.Rows, places []int) bool {
	schema, rows, err := l.s.schemas.shape(inc, p.key.table, rows, places)
	if err != nil {
		return l.failed(p, err)
	}
	b := l.batch.blocks[schema]
	if b != nil && b.uid != p.uid {
		if !l.writeBlock(schema, b) {
			return false
		}
		b = nil
	}
	if b == nil {
		b = &sweepBlock{uid: p.uid}
		l.batch.blocks[schema] = b
	}
	rows, words := l.batch.keep(rows)
	b.rows, b.of = append(b.rows, rows), append(b.of, p)
	l.batch.words += words
	if len(b.rows) >= cohortTables && !l.writeBlock(schema, b) {
		return false
	}
	return l.batch.words < sweepWords || l.flush()
}

// keep copies rows out of a folder's memory.
func (b *sweepBatch) keep(r archive.Rows) (archive.Rows, int) {
	words := 0
	for _, c := range r.Cells {
		words += len(c)
	}
	flat := b.pages.Words(words)[:0]
	first := len(b.lists)
	for _, c := range r.Cells {
		at := len(flat)
		flat = append(flat, c...)
		b.lists = append(b.lists, flat[at:len(flat):len(flat)])
	}
	r.Cells = b.lists[first:len(b.lists):len(b.lists)]
	r.Numbers, r.Coverage = append(b.pages.Words(len(r.Numbers))[:0], r.Numbers...), append(b.pages.Words(len(r.Coverage))[:0], r.Coverage...)
	r.Times, r.Starts = b.integers(r.Times), b.integers(r.Starts)
	if r.Present != nil {
		r.Present = slices.Clone(r.Present)
		for i, p := range r.Present {
			r.Present[i] = slices.Clone(p)
		}
	}
	return r, words
}

// integers copies some.
func (b *sweepBatch) integers(v []int64) []int64 {
	at := len(b.ints)
	b.ints = append(b.ints, v...)
	return b.ints[at:len(b.ints):len(b.ints)]
}

// flush writes the batch. False: nothing can be written just now.
func (l *level) flush() bool {
	for schema, b := range l.batch.blocks {
		if !l.writeBlock(schema, b) {
			return false
		}
	}
	for _, in := range l.intakes {
		if !l.writeIntake(in) {
			return false
		}
	}
	l.drop()
	return true
}

// drop forgets what is not written yet: it is folded again.
func (l *level) drop() {
	l.batch.reset()
	l.intakes = map[intakeKey]*intake{}
}

// writeBlock writes a block of the batch, and moves the positions of its sources.
func (l *level) writeBlock(schema *archive.Schema, b *sweepBlock) bool {
	delete(l.batch.blocks, schema)
	failpoint.Here("archiver.sweep.folded")
	if !l.append(schema, b.rows, b.of) {
		l.drop()
		return false
	}
	failpoint.Here("archiver.sweep.written")
	if len(l.batch.blocks) == 0 && len(l.intakes) == 0 {
		l.batch.empty()
	}
	return true
}

// append writes folded rows, in as many blocks as it takes.
func (l *level) append(schema *archive.Schema, rows []archive.Rows, of []*pending) bool {
	if len(rows) == 0 {
		return true
	}
	err := l.s.out.Append(l.fine+1, &archive.Block{Schema: schema, Step: l.step, Folded: true, Sources: rows})
	switch {
	case err == nil:
		for i, p := range of {
			l.s.stats.Folded++
			l.folded(p, rows[i].Base)
		}
		return true
	case l.s.Writer.Err() != nil:
		l.s.o.Logger.Warn("folding stops until the archive can be written", "tier", l.step, "err", err)
		return false
	case errors.Is(err, archive.ErrTooLarge) && len(rows) > 1:
		m := len(rows) / 2
		return l.append(schema, rows[:m], of[:m]) && l.append(schema, rows[m:], of[m:])
	case errors.Is(err, archive.ErrTooLarge) && len(rows[0].Times) > 1:
		a, b := halves(&rows[0])
		return l.append(schema, []archive.Rows{a}, of) && l.append(schema, []archive.Rows{b}, of)
	}
	// A row that fits nowhere, or that nobody takes: it is counted, and not tried for ever.
	for i, p := range of {
		l.failed(p, err)
		l.folded(p, rows[i].Base)
	}
	return true
}

// halves are two parts of folded rows, the earlier one first.
func halves(r *archive.Rows) (a, b archive.Rows) {
	n := len(r.Times)
	m := n / 2
	a, b = *r, *r
	a.Final, a.Estimated = false, false
	a.Numbers, b.Numbers = r.Numbers[:m], r.Numbers[m:]
	a.Times, b.Times = r.Times[:m], r.Times[m:]
	a.Coverage, b.Coverage = r.Coverage[:m], r.Coverage[m:]
	for _, c := range b.Coverage {
		a.Base -= min(c, a.Base)
	}
	a.Cells, b.Cells = make([][]uint64, len(r.Cells)), make([][]uint64, len(r.Cells))
	for i, c := range r.Cells {
		w := len(c) / n
		a.Cells[i], b.Cells[i] = c[:m*w], c[m*w:]
	}
	if r.Present != nil {
		a.Present, b.Present = make([][]bool, len(r.Present)), make([][]bool, len(r.Present))
		for i, p := range r.Present {
			if p != nil {
				a.Present[i], b.Present[i] = p[:m], p[m:]
			}
		}
	}
	return a, b
}

// schemaCache knows what series of an incarnation are one table's, and schemas by hash, so that equal ones are one.
type schemaCache struct {
	tables map[seriesKey]*tableSeries
	byHash map[[16]byte]*archive.Schema
	starts []int64 // what shape answers
}

// seriesKey names a slice of series by its place: an archive answers the same one for all that have the same.
type seriesKey struct {
	first *reader.Series
	slice **reader.Series
	n     int
	table int
}

type tableSeries struct {
	list    []*reader.Series
	places  []int // in the incarnation's
	columns [2][]archive.Column
	schema  *archive.Schema // of all of them
}

// schemasKept is how many of each are held.
const schemasKept = 128

// of are an incarnation's series of one table.
func (c *schemaCache) of(inc *archive.Incarnation, table int) *tableSeries {
	k := seriesKey{n: len(inc.Series), table: table}
	if k.n > 0 {
		k.first, k.slice = inc.Series[0], &inc.Series[0]
	}
	if t := c.tables[k]; t != nil {
		return t
	}
	t := &tableSeries{}
	for i, s := range inc.Series {
		if s.Table == table {
			t.list, t.places = append(t.list, s), append(t.places, i)
		}
	}
	t.columns = [2][]archive.Column{fold.Columns(t.list, false), fold.Columns(t.list, true)}
	if c.tables == nil || len(c.tables) >= schemasKept {
		c.tables = map[seriesKey]*tableSeries{}
	}
	c.tables[k] = t
	return t
}

// shape gives rows, of a table's series, their schema and the series' starts. Series that have no value in any of them are left out where they are
// many: others' holes cost less than another schema. The starts are the cache's, until the next call.
func (c *schemaCache) shape(inc *archive.Incarnation, table int, r archive.Rows, places []int) (*archive.Schema, archive.Rows, error) {
	t := c.of(inc, table)
	var have []int // of t.list
	if r.Present != nil {
		at := 0
		for i, s := range t.list {
			n := len(archive.Fields(s.Kind, true))
			if slices.ContainsFunc(r.Present[at:at+n], func(p []bool) bool { return p == nil || slices.Contains(p, true) }) {
				have = append(have, i)
			}
			at += n
		}
	}
	starts := func(i int) int64 {
		if at := places[i]; at < len(inc.Starts) {
			return inc.Starts[at]
		}
		return inc.Birth / 1e6
	}
	if r.Present == nil || len(t.list)-len(have) <= 8+len(have)/4 {
		if t.schema == nil {
			s, err := c.schema(table, inc.Tables[table].Name, t.list)
			if err != nil {
				return nil, r, err
			}
			t.schema = s
		}
		c.starts = c.starts[:0]
		for i := range t.list {
			c.starts = append(c.starts, starts(i))
		}
		r.Starts = c.starts
		return t.schema, r, nil
	}
	list := make([]*reader.Series, len(have))
	r.Starts = make([]int64, len(have))
	cells, present := r.Cells, r.Present
	r.Cells, r.Present = nil, nil
	at, next := 0, 0
	for i, s := range t.list {
		n := len(archive.Fields(s.Kind, true))
		if next < len(have) && have[next] == i {
			list[next], r.Starts[next] = s, starts(i)
			r.Cells, r.Present = append(r.Cells, cells[at:at+n]...), append(r.Present, present[at:at+n]...)
			next++
		}
		at += n
	}
	if len(list) == 0 {
		return nil, r, fmt.Errorf("shmts: rows without any series")
	}
	s, err := c.schema(table, inc.Tables[table].Name, list)
	return s, r, err
}

// schema is that of these series, the same one for the same.
func (c *schemaCache) schema(table int, name string, series []*reader.Series) (*archive.Schema, error) {
	s, err := archive.NewSchema(table, name, series)
	if err != nil {
		return nil, err
	}
	if have := c.byHash[s.Hash]; have != nil {
		return have, nil
	}
	if c.byHash == nil || len(c.byHash) >= schemasKept {
		c.byHash = map[[16]byte]*archive.Schema{}
	}
	c.byHash[s.Hash] = s
	return s, nil
}
