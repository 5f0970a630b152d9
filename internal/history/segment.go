package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// segment is a life of which the archive has rows, and the rings perhaps others.
type segment struct {
	h      *History
	living Living // nil: it is in the archive alone
	owner  Living // whose series these once were
	incs   []*archive.Incarnation
	series []*reader.Series
	starts []int64 // unix ms; nil: the series' own
	pair   *pair   // of the living one's series and the archive's
	tables []reader.Table
	tiers  [][]tier // by table

	overrides map[*reader.Series][]reader.Pair
}

var _ query.Archived = (*segment)(nil)

// tier is one of a table, as a query sees it.
type tier struct {
	query.Span
	step  time.Duration
	ring  int    // tier in the living segment, -1: none
	parts []part // in the order of their row numbers
}

// part is what one epoch gives to a tier.
type part struct {
	inc         *archive.Incarnation
	table, tier int   // in inc
	to          int64 // unix ms: later rows don't count
}

func newSegment(h *History, l Living, incs []*archive.Incarnation, tiers []archive.Tier) *segment {
	s := &segment{h: h, living: l, incs: incs}
	s.series, s.starts = union(incs)
	if l != nil {
		s.pair = h.pairs.get(l.Series(), s.series, s.starts)
		s.series, s.starts = l.Series(), nil
		s.overrides = l.Overrides()
		s.tables = slices.Clone(l.Tables())
	}
	s.lay(tiers)
	return s
}

// gone is a segment of those series that a living one has no more: its rings can't tell them.
func (s *segment) gone(tiers []archive.Tier) *segment {
	if s.pair == nil || len(s.pair.gone) == 0 {
		return nil
	}
	g := &segment{h: s.h, owner: s.living, incs: s.incs, series: s.pair.gone, starts: s.pair.starts}
	g.lay(tiers)
	return g
}

// lay makes the tables and tiers.
func (s *segment) lay(tiers []archive.Tier) {
	for _, inc := range s.incs {
		for len(s.tables) < len(inc.Tables) {
			s.tables = append(s.tables, reader.Table{})
		}
	}
	s.tiers = make([][]tier, len(s.tables))
	for t := range s.tables {
		s.tiers[t] = s.layers(t, tiers)
		table := &s.tables[t]
		table.Tiers = make([]reader.Tier, len(s.tiers[t]))
		for k, tr := range s.tiers[t] {
			rows := int64(0)
			if tr.Newest >= tr.Oldest {
				rows = (min(tr.Newest, s.AsOf()/1e6)-tr.Oldest)/max(tr.step.Milliseconds(), 1) + 2
			}
			table.Tiers[k] = reader.Tier{Step: tr.step, Rows: int(min(max(rows, 0), math.MaxInt32))}
		}
	}
}

// layers are the tiers of a table: the rings, what is folded, and the home tier, of both.
func (s *segment) layers(t int, tiers []archive.Tier) []tier {
	var out []tier
	if s.living != nil && t < len(s.living.Tables()) {
		newest, oldest := int64(math.MaxInt64), s.living.Start()/1e6
		last := s.living.AsOf() / 1e6
		if end, ended := s.living.End(); ended {
			newest, last = end/1e6, end/1e6
		}
		for k, r := range s.living.Tables()[t].Tiers {
			span := query.Span{Oldest: max(oldest, last-int64(r.Rows)*r.Step.Milliseconds()), Newest: newest}
			out = append(out, tier{Span: span, step: r.Step, ring: k})
		}
	}
	for _, inc := range s.incs {
		if t >= len(inc.Tables) {
			continue
		}
		if s.tables[t].Name == "" {
			s.tables[t].Name = inc.Tables[t].Name
		}
		for k, tt := range inc.Tables[t].Tiers {
			p := part{inc, t, k, tt.Newest}
			if inc.Ephemeral { // those that it took in answer for the time that a finer tier holds. FORMAT.md 19.6
				for _, f := range tiers[:min(tt.Tier, len(tiers))] {
					if f.Newest != 0 {
						p.to = min(p.to, f.Oldest-1)
					}
				}
			}
			i := slices.IndexFunc(out, func(o tier) bool { return o.Folded == tt.Folded && (o.step == tt.Step && o.ring <= 0) })
			if i < 0 {
				i = len(out)
				out = append(out, tier{Span: query.Span{Oldest: math.MaxInt64, Newest: math.MinInt64, Folded: tt.Folded}, step: tt.Step, ring: -1})
			}
			o := &out[i]
			o.parts = append(o.parts, p)
			o.Oldest, o.Newest = min(o.Oldest, tt.Oldest), max(o.Newest, p.to)
		}
	}
	slices.SortStableFunc(out, func(a, b tier) int { return cmp.Compare(a.step, b.step) })
	return out
}

func (s *segment) source() *archive.Source { return s.incs[len(s.incs)-1].Source }

// Labels implements query.Segment.
func (s *segment) Labels() []reader.Pair {
	if s.living != nil {
		return s.living.Labels()
	}
	return s.source().Labels
}

// Attributes implements query.Segment.
func (s *segment) Attributes() []reader.Pair {
	if s.living != nil {
		return s.living.Attributes()
	}
	return s.source().Attributes
}

// Series implements query.Segment.
func (s *segment) Series() []*reader.Series { return s.series }

// Starts implements query.Archived.
func (s *segment) Starts() []int64 { return s.starts }

// Overrides implements query.Segment.
func (s *segment) Overrides() map[*reader.Series][]reader.Pair { return s.overrides }

// Tables implements query.Segment.
func (s *segment) Tables() []reader.Table { return s.tables }

// Span implements query.Archived.
func (s *segment) Span(table, tier int) query.Span { return s.tiers[table][tier].Span }

// Unwrap is the segment that is in the store, nil if there is none: see query.Accounted.
func (s *segment) Unwrap() query.Segment {
	if s.living == nil {
		return nil
	}
	return s.living
}

// Start implements query.Segment.
func (s *segment) Start() int64 {
	if s.living != nil {
		return s.living.Start()
	}
	return s.incs[0].Birth
}

// End implements query.Segment. A life whose end nobody saw has none: its series are stale when its rows are.
func (s *segment) End() (int64, bool) {
	switch {
	case s.living != nil:
		return s.living.End()
	case s.owner != nil:
		return s.owner.End()
	}
	end := ended(s.incs)
	return end * 1e6, end != 0
}

// AsOf implements query.Segment: of what is in the archive alone, all there will ever be is known.
func (s *segment) AsOf() int64 {
	if s.living != nil {
		return s.living.AsOf()
	}
	return math.MaxInt64
}

// Between is not called: see Columns.
func (s *segment) Between(int, int, int64, int64, func(*reader.Row) bool) {
	panic("shmts: history: a segment of the archive has columns")
}

// Columns implements query.ColumnReader. Of the home tier it reads the ring, and then what is older, by row number, from
// the archive: so a row counts once, however much of the ring is archived by then.
func (s *segment) Columns(table, k int, begin, end int64, dst *query.Batch) error {
	t := &s.tiers[table][k]
	from, to := floor(begin), floor(end)
	parts, before := t.parts, uint64(math.MaxUint64)
	if t.ring < 0 {
		return s.read(parts, t.step, from, to, before, dst)
	}
	if err := dst.Read(s.living, table, t.ring, from, to, false); err != nil || len(parts) == 0 || dst.Full() {
		return err
	}
	head := s.living.Head(table, t.ring)
	switch {
	case dst.Len() > 0:
		to, before = dst.Times[0]-1, dst.First
		ring := uint64(s.living.Tables()[table].Tiers[t.ring].Rows)
		margin := 4 + uint64(2*time.Second/t.step) // rows written since the head was seen
		if dst.First > margin && dst.First-margin+ring > head+1 {
			return nil // the ring has older ones, and they were not asked for
		}
	case head == 0: // unlinked since it was selected: everything is in the archive now
		found, err := s.h.o.Archive.Find(s.source().Segment)
		if err != nil {
			return fmt.Errorf("shmts: reading the archive: %w", err)
		}
		parts = again(found, s.source(), table)
	}
	older := query.NewBatch(dst.Columns, int(min((to-from)/max(t.step.Milliseconds(), 1)+2, int64(s.tables[table].Tiers[k].Rows))), dst.Left())
	err := s.read(parts, t.step, from, to, before, older)
	dst.Prepend(older)
	return err
}

// again finds the home parts of a table anew.
func again(found []*archive.Incarnation, src *archive.Source, table int) (parts []part) {
	for _, inc := range found {
		if inc.Copy != src.Copy || inc.Inode != src.Inode || table >= len(inc.Tables) {
			continue
		}
		for k, tt := range inc.Tables[table].Tiers {
			if !tt.Folded {
				parts = append(parts, part{inc, table, k, tt.Newest})
			}
		}
	}
	return parts
}

// read appends the rows of parts in [from, to], unix ms, that come before a number.
func (s *segment) read(parts []part, step time.Duration, from, to int64, before uint64, dst *query.Batch) error {
	columns := make([]archive.Column, 0, len(dst.Columns))
	at := make([]int, len(dst.Columns)) // in columns; -1: none
	for i, c := range dst.Columns {
		at[i] = -1
		if sr := s.archived(c.Series); sr != nil {
			at[i] = len(columns)
			columns = append(columns, archive.Column{Series: sr, Field: fields[c.Field]})
		}
	}
	// After the clock was stepped back, a row's hider may lie before the span.
	margin := 2 * step.Milliseconds()
	var failed error
	for _, p := range parts {
		if to := min(to, p.to); from-margin <= to {
			for c, err := range s.h.o.Archive.Read(p.inc, p.table, p.tier, max(from, math.MinInt64+margin)-margin, to, columns) {
				if err != nil {
					failed = fmt.Errorf("shmts: reading the archive: %w", err)
					break
				}
				if s.add(dst, c, at, before, uint16(p.inc.Epoch)); dst.Full() {
					return failed
				}
			}
		}
	}
	dst.Since(from)
	return failed
}

var fields = map[query.Field]archive.Field{
	query.Value: archive.Last, query.Min: archive.Min, query.Max: archive.Max, query.Sum: archive.Sum, query.Count: archive.Count, query.Buckets: archive.Hist,
}

// archived is the series that the archive has for one of the segment's, nil if there is none.
func (s *segment) archived(sr *reader.Series) *reader.Series {
	if s.pair == nil || sr == nil {
		return sr
	}
	return s.pair.archived(sr)
}

// add appends a chunk's rows, in runs whose times rise and whose numbers are dense.
func (s *segment) add(dst *query.Batch, c *archive.Chunk, at []int, before uint64, epoch uint16) {
	n := len(c.Times)
	if !c.Folded {
		for n > 0 && c.Numbers[n-1] >= before {
			n--
		}
	}
	for i := 0; i < n; {
		j := i + 1
		for j < n && c.Times[j] > c.Times[j-1] && c.Numbers[j] == c.Numbers[j-1]+1 {
			j++
		}
		dst.AddRows(c.Times[i:j], c.Numbers[i], epoch)
		for k, col := range dst.Columns {
			var words []uint64
			var present []bool
			if col.Field == query.Rows && c.Folded {
				words = c.Coverage[i:j]
			}
			if a := at[k]; a >= 0 && len(c.Cells[a]) > 0 {
				width := len(c.Cells[a]) / len(c.Times)
				words = c.Cells[a][i*width : j*width]
				if c.Present[a] != nil {
					present = c.Present[a][i:j]
				}
			}
			dst.AddCells(k, j-i, words, present)
			if s.pair != nil && col.Series != nil {
				if from, to, ok := s.pair.life(col.Series); ok {
					dst.Absence(k, j-i, from, to)
				}
			}
		}
		i = j
	}
}

// floor is ns in ms, rounded down.
func floor(ns int64) int64 {
	ms := ns / 1e6
	if ns%1e6 < 0 {
		ms--
	}
	return ms
}
