package export

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// past is a row of the archive: one of a chunk's.
type past struct {
	c    *archive.Chunk
	row  int
	cols *columns
}

// columns are those of a schema, all fields of all series, in order.
type columns struct {
	list []archive.Column
	at   []int // each series' first one
}

func columnsOf(series []*reader.Series, folded bool) *columns {
	c := &columns{at: make([]int, len(series))}
	for i, s := range series {
		c.at[i] = len(c.list)
		for _, f := range archive.Fields(s.Kind, folded) {
			c.list = append(c.list, archive.Column{Series: s, Field: f})
		}
	}
	return c
}

// words are a column's in the row, nil if it has no value there.
func (p past) words(column int) []uint64 {
	cells := p.c.Cells[column]
	if cells == nil || p.c.Present[column] != nil && !p.c.Present[column][p.row] {
		return nil
	}
	w := len(cells) / len(p.c.Numbers)
	return cells[p.row*w : (p.row+1)*w]
}

func (p past) number(column int) float64 {
	if w := p.words(column); w != nil {
		return math.Float64frombits(w[0])
	}
	return math.NaN()
}

func (p past) value(src *Source, i int) (v reader.Value, ok bool) {
	s, at := src.Series[i], p.cols.at[i]
	w := p.words(at)
	if w == nil {
		return v, false
	}
	v.Kind, v.Number = s.Kind, s.Number
	switch s.Kind {
	case reader.Stat:
		v.Count, v.Sum = w[0], p.number(at+1)
		v.Last, v.Min, v.Max = p.number(at+2), p.number(at+3), p.number(at+4)
		v.Unset = math.IsNaN(v.Last)
	case reader.Histogram:
		if v.Sum = math.Float64frombits(w[0]); s.Number == reader.U64 {
			v.Sum = float64(w[0])
		}
		v.Zero, v.Above, v.Buckets = w[1], w[len(w)-1], w[2:len(w)-1:len(w)-1]
		v.Count = v.Zero + v.Above
		for _, n := range v.Buckets {
			v.Count += n
		}
	default:
		switch s.Number {
		case reader.F64:
			v.Float = math.Float64frombits(w[0])
		case reader.U64:
			v.Int, v.Float = int64(w[0]), float64(w[0])
		default:
			v.Int, v.Float = int64(w[0]), float64(int64(w[0]))
		}
	}
	return v, true
}

// gone is told of what the row does not hold: what has no value once had one, and so was retired.
func (p past) gone(*Source, int) bool { return true }

func (p past) gauge(src *Source, i int) (g Gauge, ok bool) {
	s, at := src.Series[i], p.cols.at[i]
	if s.Kind != reader.Gauge || !p.c.Folded || p.words(at) == nil {
		return g, false
	}
	extreme := func(column int) float64 {
		if w := p.words(column); w != nil {
			return archive.Number(s, archive.Last, w[0])
		}
		return math.NaN()
	}
	g.Min, g.Max, g.Sum = extreme(at+1), extreme(at+2), p.number(at+3)
	if w := p.words(at + 4); w != nil {
		g.Count = w[0]
	}
	return g, true
}

// bases are the numbers of the last row of tier 0 that each row of a chunk tells of. FORMAT.md 19.5.
func bases(into []uint64, c *archive.Chunk) []uint64 {
	into = slices.Grow(into[:0], len(c.Numbers))[:len(c.Numbers)]
	if !c.Folded {
		copy(into, c.Numbers)
		return into
	}
	base := c.Base
	for i := len(into) - 1; i >= 0; i-- {
		into[i] = base
		base -= min(c.Coverage[i], base)
	}
	return into
}

// pastKey is of a source of the archive that was seen lately, with one table.
type pastKey struct {
	archive.Key
	table int
}

// pastSource is one, and what it is known by.
type pastSource struct {
	*Source
	schema *archive.Schema
	epoch  uint16
	of     *archive.Source
	table  int
	step   time.Duration // of its rows

	folding bool
	folded  []minmax
	after   uint64 // position behind which folded is
}

// carry takes over what is known of the same source with other series.
func (p *pastSource) carry(from *pastSource) {
	had := make(map[string]int, len(from.Series))
	for i, s := range from.Series {
		had[identity(s)] = i
	}
	if p.folding, p.after = from.folding, from.after; p.folding {
		p.folded = nothingFolded(p.folded, len(p.Series))
	}
	for i, s := range p.Series {
		k, ok := had[identity(s)]
		if !ok {
			continue
		}
		if from.Seen.Has(k) {
			p.Seen.Set(i)
		}
		if p.folding {
			p.folded[i] = from.folded[k]
		}
	}
}

// pastSchema is equal where Source.Schema is to be.
type pastSchema struct {
	of    *archive.Schema
	names string
}

// source makes a Source of what the archive says. starts are of the schema's series, unix ms.
func (e *Exporter) source(of *archive.Source, schema *archive.Schema, starts []int64, step time.Duration) *pastSource {
	k := pastKey{of.Key, schema.Table}
	was := e.seen[k]
	if was != nil && was.schema == schema {
		was.step = step
		return was
	}
	var names strings.Builder
	for _, p := range of.Labels {
		names.WriteString(p.Name)
		names.WriteByte(0)
	}
	src := &Source{ID: hexID(of.Segment), Labels: of.Labels, Attributes: of.Attributes, Start: of.Birth, Tables: schema.Table + 1, Series: schema.Series,
		Schema: pastSchema{schema, names.String()}}
	src.Seen, src.starts = NewBits(len(src.Series)), make([]int64, len(src.Series))
	for i := range src.starts {
		src.starts[i] = whole(of.Birth)
	}
	if st := e.states[src.ID]; st != nil && len(st.overrides) > 0 {
		mine := map[string][]reader.Pair{}
		for s, pairs := range st.overrides {
			mine[identity(s)] = pairs
		}
		src.Overrides, src.Schema = map[*reader.Series][]reader.Pair{}, nil
		for _, s := range src.Series {
			if pairs, ok := mine[identity(s)]; ok {
				src.Overrides[s] = pairs
			}
		}
	}
	if len(e.seen) >= maxSeen {
		clear(e.seen)
	}
	p := &pastSource{Source: src, of: of, schema: schema, epoch: uint16(of.Epoch), table: schema.Table, step: step}
	p.starting(schema, starts)
	if was != nil { // registered or retired since
		p.carry(was)
	}
	e.seen[k] = p
	return p
}

// maxSeen is how many sources of the archive are kept in mind.
const maxSeen = 4096

// columnsKey is of a schema's columns, folded or not.
type columnsKey struct {
	*archive.Schema
	folded bool
}

// columns are those of a source's series, shared by all that have the schema.
func (e *Exporter) columns(src *pastSource, folded bool) *columns {
	k := columnsKey{src.schema, folded}
	c := e.cols[k]
	if c == nil {
		if len(e.cols) >= maxSeen {
			clear(e.cols)
		}
		c = columnsOf(src.Series, folded)
		e.cols[k] = c
	}
	return c
}

// pass puts those of a chunk's rows into requests that are behind a source's position and, if below is not 0, tell of nothing from row
// below of tier 0 on.
func (e *Exporter) pass(ctx context.Context, src *pastSource, pos *position, c *archive.Chunk, cols *columns, below uint64) error {
	e.bases = bases(e.bases, c)
	thin := thinned(src.step, e.o.Step)
	latest := e.o.Now().UnixNano() + int64(ahead)
	sent := -1 // row of the chunk that was sent last
	for i, base := range e.bases {
		t := c.Times[i] * 1e6
		if base <= pos.base {
			pos.looked = t
			continue
		}
		if base <= pos.at && src.folding && src.after == pos.base { // passed over, and folded
			continue
		}
		if below > 0 && base >= below {
			return nil
		}
		last := i == len(e.bases)-1 && (c.Final || c.Estimated)
		if pos.base == 0 && pos.looked == 0 {
			pos.whole = e.wholly(src.Start, e.begins(c, i))
		}
		before := pos.looked
		if before == 0 {
			before = src.Start
		}
		pos.looked, pos.at = t, base
		cells := past{c, i, cols}
		if early := t > latest; !last && (early || thin > 0 && !crosses(before, t, thin)) {
			if early {
				e.count(func(s *Stats) { s.RowsAhead++ })
			}
			if !src.folding || src.after != pos.base {
				src.folded, src.folding, src.after = nothingFolded(src.folded, len(src.Series)), true, pos.base
			}
			fold(src.folded, src.Source, src.table, cells)
			continue
		}
		var was *kept
		if e.o.Delta || pos.started && pos.epoch != src.epoch {
			if was = e.lastSent(src, pos, c, sent, cols); was == nil && e.o.Delta && (pos.base > 0 || !pos.whole) {
				e.skipDelta(pos, base, t, src.epoch)
				continue
			}
		}
		moved := pos.started && pos.epoch != src.epoch
		if moved && was != nil && fellPast(was, src.Source, src.table, cells) {
			pos.start = pos.time
		}
		pos.epoch, moved, pos.started = src.epoch, moved || !pos.started, true
		r := &e.row
		*r = Row{Table: src.table, Time: min(t, whole(latest)), Final: last, src: src.Source, cells: cells, start: pos.start, after: pos.time,
			whole: pos.time > 0 || pos.whole}
		if e.o.Delta {
			r.before = was
		}
		if src.folding && src.after == pos.base {
			r.folded = src.folded
		}
		for at, done := (Cursor{}), false; !done; {
			if e.enc.Full() {
				if err := e.paced(ctx); err != nil {
					return err
				}
			}
			at, done = e.enc.Add(src.Source, r, at)
		}
		src.folding, sent = false, i
		e.move(pos, base, r.Time, moved, false)
	}
	return nil
}

// begins is the number of the first row of tier 0 that a chunk's row tells of.
func (e *Exporter) begins(c *archive.Chunk, row int) uint64 {
	if !c.Folded {
		return c.Numbers[row]
	}
	return e.bases[row] - min(c.Coverage[row], e.bases[row]) + 1
}

// fellPast is fell for rows of the archive.
func fellPast(before *kept, src *Source, table int, now cells) bool {
	for i, s := range src.Series {
		if s.Table != table {
			continue
		}
		was, had := before.value(src, i)
		if v, has := now.value(src, i); had && has && (s.Kind == reader.Counter && v.Float < was.Float || v.Count < was.Count) {
			return true
		}
	}
	return false
}

// lastSent is the row that was sent before the one at hand: of the same chunk, or looked up. nil: there is none any more.
func (e *Exporter) lastSent(src *pastSource, pos *position, c *archive.Chunk, row int, cols *columns) *kept {
	if row >= 0 {
		return &kept{cells: past{c, row, cols}, src: src.Source, time: c.Times[row] * 1e6}
	}
	return e.lookup(pos)
}

// lookup reads the row at which a position is out of the archive. nil: that does not have it.
func (e *Exporter) lookup(pos *position) *kept {
	if e.o.Archive == nil || pos.base == 0 {
		return nil
	}
	ms := pos.time / 1e6
	for tier := range e.o.Archive.Tiers() {
		found, err := e.o.Archive.FindSince(pos.segment, tier, ms)
		if err != nil {
			e.o.Logger.Warn("the archive can't be searched", "err", err)
			return nil
		}
		for _, inc := range found {
			if inc.Inode != pos.ino || pos.table >= len(inc.Tables) {
				continue
			}
			for k, tt := range inc.Tables[pos.table].Tiers {
				if tt.Tier != tier {
					continue
				}
				series := tableSeries(inc.Series, pos.table)
				cols := columnsOf(series, tt.Folded)
				for c, err := range e.o.Archive.Read(inc, pos.table, k, ms, math.MaxInt64, cols.list) {
					if err != nil {
						break
					}
					if i := slices.Index(bases(nil, c), pos.base); i >= 0 {
						return &kept{cells: past{keep(c), i, cols}, src: &Source{Series: series}, time: pos.time}
					}
					break // it is in the first one or nowhere
				}
			}
		}
	}
	return nil
}

// keep is a chunk that stays.
func keep(c *archive.Chunk) *archive.Chunk {
	k := *c
	k.Numbers, k.Times, k.Coverage = slices.Clone(c.Numbers), slices.Clone(c.Times), slices.Clone(c.Coverage)
	k.Cells, k.Present = slices.Clone(c.Cells), slices.Clone(c.Present)
	for i := range k.Cells {
		k.Cells[i], k.Present[i] = slices.Clone(c.Cells[i]), slices.Clone(c.Present[i])
	}
	return &k
}

// tableSeries are those of one table.
func tableSeries(all []*reader.Series, table int) (of []*reader.Series) {
	for _, s := range all {
		if s.Table == table {
			of = append(of, s)
		}
	}
	return of
}
