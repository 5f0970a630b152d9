package export

import (
	"math"

	"github.com/shmts/shmts/reader"
)

// Source is who rows are of: a segment, as one look at it showed it, or what a block of the archive says of one. It is not
// changed, but for Seen and Enc: when its series change, there is another one.
type Source struct {
	ID         string // of the segment
	Labels     []reader.Pair
	Attributes []reader.Pair
	Start      int64 // unix ns
	Tables     int

	// Series, of all tables. Rows and encoders know them by their places here.
	Series    []*reader.Series
	Overrides map[*reader.Series][]reader.Pair // labels that single series carry beside their own
	// Schema, if it is not nil, is equal for sources whose Series and Overrides say the same, and whose Labels have the same names.
	Schema any

	starts []int64 // of each of Series, unix ns, whole milliseconds
	tables []int64 // see since
	places map[descriptor]int

	Seen Bits // series that had a point, and no end yet
	Enc  any  // the Encoder's own
}

// since is when the first series of a table was registered, unix ns: math.MaxInt64 if it has none.
func (s *Source) since(table int) int64 {
	for len(s.tables) <= table {
		s.tables = append(s.tables, math.MaxInt64)
		for i, sr := range s.Series {
			if sr.Table == len(s.tables)-1 {
				s.tables[len(s.tables)-1] = min(s.tables[len(s.tables)-1], s.starts[i])
			}
		}
	}
	return s.tables[table]
}

// Row is one table of a Source at one instant. It is valid during the call that hands it over.
type Row struct {
	Table int
	Time  int64 // unix ns, whole milliseconds
	Final bool  // it is the writer's last one

	src    *Source
	live   *reader.Row // nil: cells has them
	cells  cells
	start  int64 // of the epoch, unix ns, if the segment had one before
	after  int64 // time of the row that was sent before of this table, unix ns; 0: none
	whole  bool  // all rows since the writer's birth were sent, or will be
	folded []minmax
	before *kept // nil: none

	exemplars []exemplar
}

// exemplar is one of series i.
type exemplar struct {
	i int
	*reader.Exemplar
}

// cells are a row's values, wherever it comes from. FORMAT.md 6.2.
type cells interface {
	value(src *Source, i int) (reader.Value, bool)
	gone(src *Source, i int) bool
	gauge(src *Source, i int) (Gauge, bool)
}

// Gauge is what a gauge was over all rows that a folded one tells of. FORMAT.md 19.5.
type Gauge struct {
	Min, Max, Sum float64
	Count         uint64
}

// Value is series i of the Source in the row; false if the row does not hold it. Least and greatest of a stat are of all rows
// since the one that was sent before.
func (r *Row) Value(i int) (v reader.Value, ok bool) {
	if r.live != nil {
		v, ok = r.live.Value(r.src.Series[i])
	} else {
		v, ok = r.cells.value(r.src, i)
	}
	if r.folded != nil && ok && v.Kind == reader.Stat {
		f := &r.folded[i]
		v.Min, v.Max = lesser(f.min, v.Min), greater(f.max, v.Max)
	}
	return v, ok
}

// Gone tells of a series that the row does not hold whether it ended.
func (r *Row) Gone(i int) bool {
	if r.live != nil {
		return r.src.Series[i].Retired
	}
	return r.cells.gone(r.src, i)
}

// Start is when series i was 0, unix ns, whole milliseconds.
func (r *Row) Start(i int) int64 { return max(r.src.starts[i], r.start) }

// Born tells whether this is the first row of the series' life, or of its epoch: before it the receiver has nothing since Start, and who can't
// say otherwise that a value was 0 then puts that in front. It is false where what was recorded before was not meant to be sent.
// It is asked before series i is set in Source.Seen, which decides where the series and the row before are of one millisecond.
func (r *Row) Born(i int) bool {
	start := r.Start(i)
	return r.whole && (start > r.after || start == r.after && !r.src.Seen.Has(i))
}

// Before is series i in the row that was sent before, and that one's time, for those that send differences: see Options.Delta. False: the
// series was 0 at its Start, and nothing of it was sent.
func (r *Row) Before(i int) (v reader.Value, time int64, ok bool) {
	if r.before == nil {
		return v, 0, false
	}
	v, ok = r.before.value(r.src, i)
	return v, r.before.time, ok && r.before.time >= r.Start(i)
}

// Exemplars yields those of series i that were recorded since the row before, oldest first.
func (r *Row) Exemplars(i int, yield func(*reader.Exemplar) bool) {
	for _, x := range r.exemplars {
		if x.i == i && !yield(x.Exemplar) {
			return
		}
	}
}

// HasExemplars tells whether any series of the row has some.
func (r *Row) HasExemplars() bool { return len(r.exemplars) > 0 }

// place is where a series is in Series, -1 if it is not there.
func (s *Source) place(of *reader.Series) int {
	if s.places == nil {
		s.places = make(map[descriptor]int, len(s.Series))
		for i, sr := range s.Series {
			s.places[descriptorOf(sr)] = i
		}
	}
	if i, ok := s.places[descriptorOf(of)]; ok {
		return i
	}
	return -1
}

// Gauge is what a gauge was over the rows that a folded row of the archive tells of; false of any other row, which tells of itself alone.
func (r *Row) Gauge(i int) (Gauge, bool) {
	if r.live != nil {
		return Gauge{}, false
	}
	return r.cells.gauge(r.src, i)
}

// whole is a time in whole milliseconds.
func whole(ns int64) int64 {
	ms := ns / 1e6
	if ns%1e6 < 0 {
		ms--
	}
	return ms * 1e6
}

// living is a row of a ring.
type living struct{ *reader.Row }

func (l living) value(src *Source, i int) (reader.Value, bool) { return l.Value(src.Series[i]) }
func (l living) gauge(*Source, int) (Gauge, bool)              { return Gauge{}, false }
func (l living) gone(src *Source, i int) bool                  { return src.Series[i].Retired }

// nothing is what an end's row holds.
type nothing struct{}

func (nothing) value(*Source, int) (reader.Value, bool) { return reader.Value{}, false }
func (nothing) gauge(*Source, int) (Gauge, bool)        { return Gauge{}, false }
func (nothing) gone(*Source, int) bool                  { return true }

// kept is what is kept of a row that was sent, to tell how the next one differs.
type kept struct {
	cells cells
	src   *Source
	time  int64
	at    map[string]int // by identity, once it is asked for another source
}

// value is a series of another source, or the same, in the row.
func (k *kept) value(src *Source, i int) (reader.Value, bool) {
	if src == k.src {
		return k.cells.value(src, i)
	}
	if i < len(k.src.Series) && k.src.Series[i] == src.Series[i] {
		return k.cells.value(k.src, i)
	}
	if k.at == nil {
		k.at = make(map[string]int, len(k.src.Series))
		for j, s := range k.src.Series {
			k.at[identity(s)] = j
		}
	}
	j, ok := k.at[identity(src.Series[i])]
	if !ok {
		return reader.Value{}, false
	}
	return k.cells.value(k.src, j)
}

// identity is what a series is known by within its segment.
func identity(s *reader.Series) string {
	b := append(make([]byte, 0, 64), byte(s.Table), byte(s.Kind), byte(s.Number), byte(s.Buckets.Scale), byte(s.Buckets.Min), byte(s.Buckets.Min>>8), byte(s.Buckets.Count), byte(s.Buckets.Count>>8))
	b = append(b, s.Name...)
	for _, p := range s.Labels {
		b = append(append(append(append(b, 0), p.Name...), 0), p.Value...)
	}
	return string(b)
}

// minmax are extremes of a stat over rows that were passed over. NaN: nothing recorded.
type minmax struct{ min, max float64 }

func nothingFolded(b []minmax, series int) []minmax {
	b = b[:0]
	for range series {
		b = append(b, minmax{math.NaN(), math.NaN()})
	}
	return b
}

// fold takes the extremes of the stats of a row that is passed over.
func fold(into []minmax, src *Source, table int, c cells) {
	for i, s := range src.Series {
		if s.Kind != reader.Stat || s.Table != table {
			continue
		}
		if v, ok := c.value(src, i); ok {
			f := &into[i]
			f.min, f.max = lesser(f.min, v.Min), greater(f.max, v.Max)
		}
	}
}

// lesser and greater take NaN for nothing recorded.
func lesser(a, b float64) float64 {
	if math.IsNaN(a) || b < a {
		return b
	}
	return a
}

func greater(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// Bits are one bit a series.
type Bits []uint64

// NewBits makes n of them, all clear.
func NewBits(n int) Bits { return make(Bits, (n+63)/64) }

// Has tells whether bit i is set.
func (b Bits) Has(i int) bool { return b[i/64]>>(i%64)&1 != 0 }

// Set sets bit i.
func (b Bits) Set(i int) { b[i/64] |= 1 << (i % 64) }

// Clear clears bit i.
func (b Bits) Clear(i int) { b[i/64] &^= 1 << (i % 64) }
