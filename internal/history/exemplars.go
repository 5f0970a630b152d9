package history

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// Recent is where the exemplars of living segments are that were taken over lately. *exemplars.Store is one.
type Recent interface {
	// Above yields those of a segment's file numbered above after, oldest first, until yield answers false. They are not changed afterwards.
	Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool)
}

// gathered are the exemplars that were selected of a segment.
type gathered struct{ list []query.Exemplar }

// Exemplars implements query.Exemplary.
func (x *gathered) Exemplars() []query.Exemplar { return x.list }

// livingExemplars is a segment in the store with exemplars of its own. It shows no rows.
type livingExemplars struct {
	Living
	gathered
}

var _ query.Exemplary = (*livingExemplars)(nil)

// Tables implements query.Segment.
func (x *livingExemplars) Tables() []reader.Table { return nil }

// End implements query.Segment: exemplars have times of their own.
func (x *livingExemplars) End() (int64, bool) { return 0, false }

// archivedExemplars is a life of which the archive has exemplars of the series of one schema.
type archivedExemplars struct {
	gathered
	src       *archive.Source
	schema    *archive.Schema
	starts    []int64
	overrides map[*reader.Series][]reader.Pair
}

var (
	_ query.Archived  = (*archivedExemplars)(nil)
	_ query.Exemplary = (*archivedExemplars)(nil)
)

func (a *archivedExemplars) Labels() []reader.Pair                       { return a.src.Labels }
func (a *archivedExemplars) Attributes() []reader.Pair                   { return a.src.Attributes }
func (a *archivedExemplars) Series() []*reader.Series                    { return a.schema.Series }
func (a *archivedExemplars) Starts() []int64                             { return a.starts }
func (a *archivedExemplars) Overrides() map[*reader.Series][]reader.Pair { return a.overrides }
func (a *archivedExemplars) Tables() []reader.Table                      { return nil }

// UID is the owner.
func (a *archivedExemplars) UID() int { return a.src.UID }

func (a *archivedExemplars) Start() int64                                           { return a.src.Birth }
func (a *archivedExemplars) End() (int64, bool)                                     { return 0, false }
func (a *archivedExemplars) AsOf() int64                                            { return 0 }
func (a *archivedExemplars) Span(int, int) query.Span                               { return query.Span{Oldest: 1} }
func (a *archivedExemplars) Columns(int, int, int64, int64, *query.Batch) error     { return nil }
func (a *archivedExemplars) Between(int, int, int64, int64, func(*reader.Row) bool) {}

// exemplarKey names the exemplars of a life in the archive whose series are of one schema.
type exemplarKey struct {
	segment [16]byte
	copy    uint32
	schema  [16]byte
}

// number is that of an exemplar of a living segment, by its position in the snapshot.
type number struct {
	living int
	no     uint64
}

// gathering is one selection of exemplars at work.
type gathering struct {
	h    *History
	s    *snapshot
	want query.Selection
	n    int

	living   []*livingExemplars // by position in the snapshot; nil: none yet
	first    []uint64           // by that: number of the oldest that is in memory; 0: none is
	at       []map[*reader.Series]int
	homeless map[number]bool // that are in memory, of series that the segment has no more
	archived map[exemplarKey]*archivedExemplars
	order    []query.Segment             // that any were found of
	match    func([]*reader.Series) bool // names that are wanted; nil: all
	named    map[*reader.Series]bool
}

// exemplars selects those of living segments that are in memory, and of all others the archive's: each once, by its number.
func (h *History) exemplars(ctx context.Context, want query.Selection) ([]query.Segment, []error, error) {
	s := h.now()
	n := len(s.living)
	g := &gathering{h: h, s: s, want: want, living: make([]*livingExemplars, n), first: make([]uint64, n), at: make([]map[*reader.Series]int, n), archived: map[exemplarKey]*archivedExemplars{},
		homeless: map[number]bool{}, match: query.MatchNames(want.Matchers), named: map[*reader.Series]bool{}}
	matchers := labelMatchers(want.Matchers)
	if h.o.Recent != nil {
		for i, l := range s.living {
			if i%64 == 0 && ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			g.recent(i, l, may(matchers, l.Labels()))
		}
	}
	var warnings []error
	if h.o.Archive != nil {
		for p, err := range h.o.Archive.Exemplars(ctx, h.restricted(archive.Selection{From: want.From, To: want.To, Labels: matchers, Schema: schemaMatcher(want.Matchers)})) {
			if want.Yield != nil {
				want.Yield(ctx)
			}
			switch {
			case ctx.Err() != nil:
				return nil, nil, ctx.Err()
			case err != nil:
				warnings = append(warnings, fmt.Errorf("shmts: the archive can't be read, exemplars may be missing: %w", err))
			case g.n > want.Exemplars:
			default:
				g.take(p)
			}
			if g.n > want.Exemplars {
				break
			}
		}
	}
	if g.n > want.Exemplars {
		return nil, nil, fmt.Errorf("%w: want at most %d, got more", query.ErrTooManyExemplars, want.Exemplars)
	}
	more, err := g.label(ctx)
	if err != nil {
		return nil, nil, err
	}
	return g.order, append(warnings, more...), nil
}

// may tells whether a source's labels leave anything to be found, as archive.Selection has it.
func may(matchers []archive.Matcher, labels []reader.Pair) bool {
	for _, m := range matchers {
		for _, p := range labels {
			if p.Name == m.Name && !m.Match(p.Value) {
				return false
			}
		}
	}
	return true
}

// add adds an exemplar of a series of a segment, if its time is wanted.
func (g *gathering) add(seg query.Segment, x *gathered, series int, e query.Exemplar) {
	if ms := floor(e.Time); series < 0 || ms < g.want.From || ms > g.want.To {
		return
	}
	e.Series = series
	if len(x.list) == 0 {
		g.order = append(g.order, seg)
	}
	x.list = append(x.list, e)
	g.n++
}

// of is what is found of a living segment.
func (g *gathering) of(i int) *livingExemplars {
	if g.living[i] == nil {
		g.living[i], g.at[i] = &livingExemplars{Living: g.s.living[i]}, map[*reader.Series]int{}
	}
	return g.living[i]
}

// recent takes in what is in memory of a living segment.
func (g *gathering) recent(i int, l Living, wanted bool) {
	_, ino := l.Inode()
	g.h.o.Recent.Above(l.ID(), ino, 0, func(x *reader.Exemplar) bool {
		if g.first[i] == 0 {
			g.first[i] = x.Number
		}
		if !wanted {
			return false
		}
		if !g.name(x.Series) {
			return true
		}
		of := g.of(i)
		at := g.position(i, x.Series)
		if at < 0 {
			g.homeless[number{i, x.Number}] = true
		}
		g.add(of, &of.gathered, at, query.Exemplar{Value: x.Value, Time: x.Time, TraceID: x.TraceID, SpanID: x.SpanID})
		return g.n <= g.want.Exemplars
	})
}

// name tells whether a series has a name that is wanted.
func (g *gathering) name(s *reader.Series) bool {
	if g.match == nil {
		return true
	}
	ok, known := g.named[s]
	if !known {
		ok = g.match([]*reader.Series{s})
		g.named[s] = ok
	}
	return ok
}

// position is where a living segment has a series, itself or what says the same: -1, nowhere.
func (g *gathering) position(i int, s *reader.Series) int {
	k, ok := g.at[i][s]
	if !ok {
		all := g.s.living[i].Series()
		if k = slices.Index(all, s); k < 0 {
			// One that was retired and registered again is there twice: they are called the same.
			k = slices.IndexFunc(all, func(x *reader.Series) bool {
				return x.Name == s.Name && x.Table == s.Table && identity(x) == identity(s)
			})
		}
		g.at[i][s] = k
	}
	return k
}

// take takes in what the archive has.
func (g *gathering) take(p *archive.Exemplars) {
	i, alive := g.s.ids[p.Source.Segment]
	if alive {
		_, ino := g.s.living[i].Inode()
		alive = p.Source.Inode == ino && p.Source.Boot == id(g.s.living[i].BootID())
	}
	for k := range p.List {
		e := &p.List[k]
		if !g.name(p.Schema.Series[e.Series]) {
			continue
		}
		found := query.Exemplar{Value: e.Value, Time: e.Time, TraceID: e.TraceID, SpanID: e.SpanID}
		if alive {
			if first := g.first[i]; first > 0 && e.Number >= first && !g.homeless[number{i, e.Number}] {
				continue // memory has it, if it is to be had
			}
			x := g.of(i)
			if at := g.position(i, p.Schema.Series[e.Series]); at >= 0 {
				g.add(x, &x.gathered, at, found)
				continue
			} // else it is retired, and no ring has a row of it any more
		}
		x := g.life(p)
		g.add(x, &x.gathered, e.Series, found)
	}
}

// life is what is found of a life that the archive alone has.
func (g *gathering) life(p *archive.Exemplars) *archivedExemplars {
	k := exemplarKey{p.Source.Segment, p.Source.Copy, p.Schema.Hash}
	x := g.archived[k]
	if x == nil {
		x = &archivedExemplars{src: p.Source, schema: p.Schema, starts: make([]int64, len(p.Schema.Series))}
		g.archived[k] = x
	}
	return x
}

// label gives lives that the archive alone has the labels that their rows have: those that a newer one overlapped carry one more.
func (g *gathering) label(ctx context.Context) (warnings []error, err error) {
	lives := map[archive.Key][]*archivedExemplars{}
	for k, a := range g.archived {
		if len(a.list) > 0 {
			key := archive.Key{Segment: k.segment, Copy: k.copy}
			lives[key] = append(lives[key], a)
		}
	}
	if len(lives) == 0 {
		return nil, nil
	}
	want := g.want
	want.Exemplars, want.Partial = 0, true
	found, warnings, err := g.h.Select(ctx, want)
	if err != nil {
		if errors.Is(err, ctx.Err()) {
			return nil, err
		}
		return append(warnings, fmt.Errorf("shmts: who overlapped with whom is not known: %w", err)), nil
	}
	for _, f := range found {
		s, ok := f.(*segment)
		if !ok || len(s.overrides) == 0 {
			continue
		}
		src := s.source()
		for _, a := range lives[archive.Key{Segment: src.Segment, Copy: src.Copy}] {
			a.overrides = map[*reader.Series][]reader.Pair{}
			for sr, pairs := range s.overrides {
				key := identity(sr)
				for _, x := range a.schema.Series {
					if x.Name == sr.Name && identity(x) == key {
						a.overrides[x] = pairs
					}
				}
			}
		}
	}
	return warnings, nil
}
