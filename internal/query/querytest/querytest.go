// Package querytest has segments for tests that never were files: a process whose values are
// set and ticked by hand, at times of the test's own. Tests of rows as they are in
// files use the writer.
package querytest

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// Segments is a query.Sources.
type Segments []query.Segment

// Select implements query.Sources.
func (s Segments) Select(context.Context, query.Selection) ([]query.Segment, []error, error) {
	return s, nil, nil
}

// Coarsest implements query.Sources.
func (s Segments) Coarsest() time.Duration { return query.Coarsest(s) }

// Segment is a process. Set values through Value, then Tick.
type Segment struct {
	mu         sync.Mutex
	labels     []reader.Pair
	attributes []reader.Pair
	series     []*reader.Series
	tables     []reader.Table
	overrides  map[*reader.Series][]reader.Pair
	start, end int64
	ended      bool

	values map[*reader.Series]*reader.Value
	gone   map[*reader.Series]bool
	rings  [][]*ring // by table and tier
	epoch  uint16

	Known    int64 // what AsOf says, unix ns; 0: everything
	RowsRead int   // by all queries
}

type ring struct {
	rows []row
	no   uint64
	last int64 // ns of the newest row
}

type row struct {
	t      int64
	no     uint64
	epoch  uint16
	values map[*reader.Series]reader.Value
}

// Pairs makes pairs of name, value, name, value.
func Pairs(kv ...string) []reader.Pair {
	var out []reader.Pair
	for i := 0; i < len(kv); i += 2 {
		out = append(out, reader.Pair{Name: kv[i], Value: kv[i+1]})
	}
	slices.SortFunc(out, func(a, b reader.Pair) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Scalars is the default table: 1 s x 120 and 10 s x 60.
func Scalars() reader.Table {
	return reader.Table{Name: "scalars", Tiers: []reader.Tier{{Step: time.Second, Rows: 120}, {Step: 10 * time.Second, Rows: 60}}}
}

// Histograms is the default table of histograms: 10 s x 30.
func Histograms() reader.Table {
	return reader.Table{Name: "histograms", Tiers: []reader.Tier{{Step: 10 * time.Second, Rows: 30}}}
}

// New is a process of the given source labels, born at start, unix ms.
func New(start int64, labels []reader.Pair, tables ...reader.Table) *Segment {
	s := &Segment{labels: labels, start: start * 1e6, tables: tables,
		values: map[*reader.Series]*reader.Value{}, gone: map[*reader.Series]bool{}}
	for _, t := range tables {
		var rings []*ring
		for range t.Tiers {
			rings = append(rings, &ring{last: start * 1e6})
		}
		s.rings = append(s.rings, rings)
	}
	return s
}

// Attribute adds resource attributes.
func (s *Segment) Attribute(pairs []reader.Pair) { s.attributes = append(s.attributes, pairs...) }

// Register adds a series; its Start is ms of unix time.
func (s *Segment) Register(at int64, sr reader.Series) (*reader.Series, *reader.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sr.Start = at * 1e6
	v := &reader.Value{Kind: sr.Kind, Number: sr.Number, Unset: sr.Kind == reader.Gauge || sr.Kind == reader.Stat}
	if sr.Kind == reader.Stat {
		v.Last, v.Min, v.Max = nan, nan, nan
	}
	if sr.Kind == reader.Histogram {
		v.Buckets = make([]uint64, sr.Buckets.Count)
	}
	p := &sr
	s.values[p] = v
	s.series = append(slices.Clone(s.series), p)
	return p, v
}

// Counter registers a counter at birth.
func (s *Segment) Counter(name string, labels ...string) *reader.Value {
	_, v := s.Register(s.start/1e6, reader.Series{Definition: &reader.Definition{Name: name, Kind: reader.Counter, Number: reader.F64, Labels: Pairs(labels...)}})
	return v
}

// Gauge registers a gauge at birth.
func (s *Segment) Gauge(name string, labels ...string) *reader.Value {
	_, v := s.Register(s.start/1e6, reader.Series{Definition: &reader.Definition{Name: name, Kind: reader.Gauge, Number: reader.F64, Labels: Pairs(labels...)}})
	return v
}

// Set sets a gauge, or a counter's value.
func Set(v *reader.Value, f float64) { v.Float, v.Int, v.Unset = f, int64(f), false }

// Retire ends a series: the next tick no longer holds it.
func (s *Segment) Retire(sr *reader.Series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[sr] = true
}

// Forget has a retired series no longer be one of Series: its descriptor is another's.
func (s *Segment) Forget(sr *reader.Series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series = slices.DeleteFunc(slices.Clone(s.series), func(o *reader.Series) bool { return o == sr })
}

// Override gives a series labels beside the source's.
func (s *Segment) Override(sr *reader.Series, pairs []reader.Pair) {
	s.overrides = map[*reader.Series][]reader.Pair{sr: pairs}
}

// NewEpoch says that values may have been rewound.
func (s *Segment) NewEpoch() { s.epoch++ }

// Tick publishes rows at t, unix ms, in every tier whose step has passed; all of them if final.
func (s *Segment) Tick(t int64, final ...bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := len(final) > 0
	for ti := range s.rings {
		values := map[*reader.Series]reader.Value{}
		for _, sr := range s.series {
			if sr.Table == ti && !s.gone[sr] {
				v := *s.values[sr]
				v.Buckets = slices.Clone(v.Buckets)
				values[sr] = v
			}
		}
		for k, r := range s.rings[ti] {
			tier := s.tables[ti].Tiers[k]
			if step := tier.Step.Nanoseconds(); !all && t*1e6/step == r.last/step {
				continue
			}
			r.no++
			r.last = t * 1e6
			r.rows = append(r.rows, row{t * 1e6, r.no, s.epoch, maps.Clone(values)})
			r.rows = r.rows[max(0, len(r.rows)-tier.Rows):]
		}
	}
}

// Passed says that a tier published n rows before, which are gone, the last of them at t, unix ms.
func (s *Segment) Passed(table, tier int, n uint64, t int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rings[table][tier]
	r.no += n
	r.last = t * 1e6
}

// Finish ends the process with a final row in every tier.
func (s *Segment) Finish(t int64) {
	s.Tick(t, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end, s.ended = t*1e6, true
}

var nan = math.NaN()

// The methods of query.Segment.

func (s *Segment) Labels() []reader.Pair     { return s.labels }
func (s *Segment) Attributes() []reader.Pair { return s.attributes }
func (s *Segment) Tables() []reader.Table    { return s.tables }
func (s *Segment) Start() int64              { return s.start }

func (s *Segment) Overrides() map[*reader.Series][]reader.Pair { return s.overrides }

// AsOf is Known.
func (s *Segment) AsOf() int64 {
	if s.Known == 0 {
		return math.MaxInt64
	}
	return s.Known
}

func (s *Segment) Series() []*reader.Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.series
}

func (s *Segment) End() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end, s.ended
}

// Rows calls f with every row of a tier, hidden or not.
func (s *Segment) Rows(table, tier int, f func(t int64, no uint64, value func(*reader.Series) (reader.Value, bool))) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rings[table][tier].rows {
		f(r.t/1e6, r.no, func(sr *reader.Series) (reader.Value, bool) {
			v, ok := r.values[sr]
			return v, ok
		})
	}
}

// Between is not used: see Columns.
func (s *Segment) Between(int, int, int64, int64, func(*reader.Row) bool) {
	panic("querytest: a row has private parts: the segment gives columns")
}

// Columns implements query.ColumnReader.
func (s *Segment) Columns(table, tier int, begin, end int64, dst *query.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rings[table][tier].rows {
		if r.t < begin || r.t > end {
			continue
		}
		if dst.Full() {
			return nil
		}
		s.RowsRead++
		dst.At(r.t/1e6, r.no, r.epoch)
		for i, c := range dst.Columns {
			if c.Field == query.Target {
				dst.AddFloat(i, 1)
				continue
			}
			v, ok := r.values[c.Series]
			dst.AddValue(i, &v, ok)
		}
	}
	return nil
}
