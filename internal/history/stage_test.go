package history_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

const t0 int64 = 1_700_000_100_000 // unix ms, at a whole five minutes

// process is a life twice: as a segment with small rings, and as what really happened, with every row. What is
// archived of it is taken from the latter.
type process struct {
	*querytest.Segment                    // with small rings
	all                *querytest.Segment // with every row
	id, group          [16]byte
	inode              uint64
	heads              []uint64
	last               []int64 // of each table: time of the newest row
	archived           []int   // of each table: rows of all that are archived
	folded             map[fold]int
	final              bool
	uid                int
	stage              *stage
}

// AsOf is the stage's now: it polls all the time.
func (p *process) AsOf() int64 { return p.stage.now * 1e6 }

type fold struct {
	table, tier int
}

func (p *process) ID() string               { return fmt.Sprintf("%x", p.id) }
func (p *process) Group() string            { return fmt.Sprintf("%x", p.group) }
func (p *process) UID() int                 { return p.uid }
func (p *process) Inode() (dev, ino uint64) { return 1, p.inode }
func (p *process) BootID() string           { return strings.Repeat("0b", 16) }
func (p *process) Head(table, tier int) uint64 {
	if tier != 0 {
		panic("the head of a ring that is not archived is nobody's business")
	}
	return p.heads[table]
}

// stage is a store and an archive, whose clock is the test's.
type stage struct {
	t       testing.TB
	now     int64 // unix ms
	left    int64
	store   []*process
	dead    []*process // unlinked
	living  []history.Living
	archive archive.Writer
	reads   *counting
	history *history.History
	engine  *query.Engine // over both
	truth   *query.Engine // over every row
	ids     int
	rings   []reader.Table // of those that are born
}

// counting counts what is asked of an archive.
type counting struct {
	archive.Reader
	selects, reads atomic.Int64
	fail           error
}

var steps = []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute}

func newStage(t testing.TB, maxSources int) *stage {
	s := &stage{t: t, now: t0, left: math.MinInt64, archive: archivetest.New(steps...), rings: []reader.Table{scalars, hists}}
	s.reads = &counting{Reader: s.archive}
	clock := func() time.Time { return time.UnixMilli(s.now) }
	s.history = history.New(history.Options{
		Living: func() []history.Living { return s.living }, Left: func() int64 { return s.left }, Archive: s.reads, MaxSources: maxSources,
	})
	s.engine = query.New(query.Options{Sources: s.history, Now: clock})
	s.truth = query.New(query.Options{Sources: query.Snapshot(func() []query.Segment {
		var out []query.Segment
		for _, p := range append(slices.Clone(s.dead), s.store...) {
			out = append(out, p.all)
		}
		return out
	}), Now: clock})
	return s
}

var (
	scalars = reader.Table{Name: "scalars", Tiers: []reader.Tier{{Step: time.Second, Rows: 20}, {Step: 10 * time.Second, Rows: 12}}}
	hists   = reader.Table{Name: "histograms", Tiers: []reader.Tier{{Step: 10 * time.Second, Rows: 5}}}
	every   = []reader.Table{{Name: "scalars", Tiers: []reader.Tier{{Step: time.Second, Rows: 1 << 20}}}, {Name: "histograms", Tiers: []reader.Tier{{Step: 10 * time.Second, Rows: 1 << 20}}}}
)

func (s *stage) born(labels ...string) *process {
	s.ids++
	p := &process{Segment: querytest.New(s.now, querytest.Pairs(labels...), s.rings...), all: querytest.New(s.now, querytest.Pairs(labels...), every...),
		stage: s, inode: uint64(s.ids), heads: make([]uint64, 2), last: []int64{s.now, s.now}, archived: make([]int, 2), folded: map[fold]int{}}
	p.id = sha256Of(s.ids)
	p.group = p.id
	p.Attribute(querytest.Pairs("os", "linux"))
	p.all.Attribute(querytest.Pairs("os", "linux"))
	s.store = append(s.store, p)
	s.publish()
	return p
}

func sha256Of(n int) (out [16]byte) {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	return [16]byte(sum[:16])
}

func (s *stage) publish() {
	s.living = make([]history.Living, len(s.store))
	for i, p := range s.store {
		s.living[i] = p
	}
}

func (s *stage) time() time.Time { return time.UnixMilli(s.now) }

// unlink takes a process out of the store.
func (s *stage) unlink(p *process) {
	s.store = slices.DeleteFunc(s.store, func(o *process) bool { return o == p })
	s.dead = append(s.dead, p)
	s.left = max(s.left, p.last[0])
	s.publish()
}

// handle is a series' value in both.
type handle struct {
	a, b   *reader.Value
	sa, sb *reader.Series
	p      *process
}

func (p *process) register(at int64, sr reader.Series) handle {
	h := handle{p: p}
	h.sa, h.a = p.Register(at, sr)
	h.sb, h.b = p.all.Register(at, sr)
	return h
}

func (h handle) set(f func(v *reader.Value)) { f(h.a); f(h.b) }
func (h handle) retire()                     { h.p.Retire(h.sa); h.p.all.Retire(h.sb) }

func (p *process) tick(t int64, final bool) {
	for k, step := range []int64{1000, 10_000} {
		if final || t/step != p.last[k]/step {
			p.heads[k]++
			p.last[k] = t
		}
	}
	if final {
		p.Finish(t)
		p.all.Finish(t)
		p.final = true
		return
	}
	p.Tick(t)
	p.all.Tick(t)
}

// rows are all rows of a table, as a batch with a column for each field, in the archive's order.
func (p *process) rows(table int) (*query.Batch, []*reader.Series) {
	var series []*reader.Series
	var columns []query.Column
	for _, sr := range p.all.Series() {
		if sr.Table != table {
			continue
		}
		bare := *sr
		bare.Start = 0
		series = append(series, &bare)
		for _, f := range archive.Fields(sr.Kind, false) {
			columns = append(columns, query.Column{Series: sr, Field: backFields[f]})
		}
		if sr.Kind == reader.Gauge {
			columns = columns[:len(columns)-1]
			columns = append(columns, query.Column{Series: sr, Field: query.Value})
		}
	}
	b := query.NewBatch(columns, 16, math.MaxInt)
	var times []int64
	p.all.Rows(table, 0, func(t int64, no uint64, value func(*reader.Series) (reader.Value, bool)) {
		times = append(times, t)
		b.At(int64(no), no, 0) // of rising times, since a batch has nothing that is hidden
		for i, c := range columns {
			v, ok := value(c.Series)
			b.AddValue(i, &v, ok)
		}
	})
	b.Times = times
	return b, series
}

var backFields = map[archive.Field]query.Field{
	archive.Last: query.Value, archive.Min: query.Min, archive.Max: query.Max, archive.Sum: query.Sum, archive.Count: query.Count, archive.Hist: query.Buckets,
}

func (p *process) source() *archive.Source {
	return &archive.Source{Key: archive.Key{Segment: p.id}, Group: p.group, Boot: [16]byte{0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb},
		Birth: p.Start(), Inode: p.inode, UID: p.uid, Labels: p.Labels(), Attributes: p.Attributes()}
}

func word(c query.Column, f float64) uint64 {
	if c.Field != query.Count && c.Series.Number == reader.F64 || c.Field == query.Sum {
		return math.Float64bits(f)
	}
	return uint64(int64(f))
}

// flush archives rows of a table until so many are, in blocks of at most n.
func (s *stage) flush(p *process, table, until, n int) {
	b, series := p.rows(table)
	until = min(until, b.Len())
	if len(series) == 0 {
		return
	}
	for p.archived[table] < until {
		from := p.archived[table]
		to := min(from+n, until)
		r := archive.Rows{Source: p.source(), Final: p.final && to == b.Len(), Base: uint64(to)}
		for k := from; k < to; k++ {
			r.Numbers, r.Times = append(r.Numbers, uint64(k)+1), append(r.Times, b.Times[k])
		}
		for i, c := range b.Columns {
			cells, present := cellsOf(b, i, c, from, to)
			r.Cells, r.Present = append(r.Cells, cells), append(r.Present, present)
		}
		for _, sr := range p.all.Series() {
			if sr.Table == table {
				r.Starts = append(r.Starts, sr.Start/1e6)
			}
		}
		s.append(table, &archive.Block{Schema: p.schema(table, series), Step: every[table].Tiers[0].Step, Sources: []archive.Rows{r}})
		p.archived[table] = to
	}
}

func (s *stage) append(tier int, b *archive.Block) {
	s.t.Helper()
	if err := s.archive.Append(tier, b); err != nil {
		s.t.Fatal(err)
	}
}

func (p *process) schema(table int, series []*reader.Series) *archive.Schema {
	h := sha256.New()
	for _, sr := range series {
		h.Write([]byte(archivetest.Identity(sr)))
	}
	return &archive.Schema{Hash: [16]byte(h.Sum(nil)[:16]), Table: table, Name: every[table].Name, Series: series}
}

func cellsOf(b *query.Batch, i int, c query.Column, from, to int) (cells []uint64, present []bool) {
	for k := from; k < to; k++ {
		if c.Field == query.Buckets {
			h := &b.Hists[i]
			present = append(present, math.Float64bits(h.Sum[k]) != value.StaleNaN)
			cells = append(cells, math.Float64bits(h.Sum[k]))
			cells = append(cells, h.Counts[k*h.Stride():(k+1)*h.Stride()]...)
			continue
		}
		f := b.Floats[i][k]
		present = append(present, math.Float64bits(f) != value.StaleNaN)
		cells = append(cells, word(c, f))
	}
	return cells, present
}

// fold writes folded rows of a tier, made of the archived rows, up to so many windows; FORMAT.md 19.5.
func (s *stage) fold(p *process, table, tier, windows int) {
	b, series := p.rows(table)
	step := steps[tier].Milliseconds()
	number := func(k int) int64 { return (b.Times[k] + step - 1) / step }
	n := p.archived[table]
	ended := p.final && n == b.Len()
	var r archive.Rows
	count := 0
	for from := p.folded[fold{table, tier}]; from < n && count < windows; {
		to := from + 1
		for to < n && number(to) == number(from) {
			to++
		}
		if to == n && !ended {
			break
		}
		r.Numbers, r.Times = append(r.Numbers, uint64(number(from))), append(r.Times, b.Times[to-1])
		r.Coverage = append(r.Coverage, uint64(to-from))
		f := 0
		put := func(words []uint64, ok bool) {
			if f == len(r.Cells) {
				r.Cells, r.Present = append(r.Cells, nil), append(r.Present, nil)
			}
			r.Cells[f], r.Present[f] = append(r.Cells[f], words...), append(r.Present[f], ok)
			f++
		}
		for i, c := range b.Columns {
			cells, present := cellsOf(b, i, c, from, to)
			switch {
			case c.Field == query.Buckets:
				w := len(cells) / (to - from)
				put(cells[len(cells)-w:], present[len(present)-1])
			case c.Series.Kind == reader.Gauge:
				least, most, sum, last, values := math.Inf(1), math.Inf(-1), 0.0, 0.0, 0
				for k := range present {
					if present[k] {
						v := math.Float64frombits(cells[k])
						least, most, sum, last = min(least, v), max(most, v), sum+v, v
						values++
					}
				}
				if values == 0 {
					for range 5 {
						put([]uint64{0}, false)
					}
					continue
				}
				for _, v := range []float64{last, least, most, sum} {
					put([]uint64{math.Float64bits(v)}, true)
				}
				put([]uint64{uint64(values)}, true)
			case c.Field == query.Min || c.Field == query.Max:
				x, ok := math.NaN(), false
				for k := range present {
					if v := math.Float64frombits(cells[k]); present[k] && (!ok || c.Field == query.Min && v < x || c.Field == query.Max && v > x) {
						x, ok = v, true
					}
				}
				put([]uint64{math.Float64bits(x)}, ok)
			default:
				put(cells[len(cells)-1:], present[len(present)-1])
			}
		}
		from = to
		r.Base = uint64(to)
		p.folded[fold{table, tier}] = to
		count++
	}
	if count == 0 {
		return
	}
	r.Source, r.Final = p.source(), ended && int(r.Base) == n
	for _, sr := range p.all.Series() {
		if sr.Table == table {
			r.Starts = append(r.Starts, sr.Start/1e6)
		}
	}
	s.append(tier, &archive.Block{Schema: p.schema(table, series), Step: steps[tier], Folded: true, Sources: []archive.Rows{r}})
}

// ask evaluates a query: instant where step is 0.
func ask(t testing.TB, e *query.Engine, q string, start, end, step int64) *promql.Result {
	t.Helper()
	var pq promql.Query
	var err error
	if step == 0 {
		pq, err = e.Instant(t.Context(), q, time.UnixMilli(end), query.QueryOptions{})
	} else {
		pq, err = e.Range(t.Context(), q, time.UnixMilli(start), time.UnixMilli(end), time.Duration(step)*time.Millisecond, query.QueryOptions{})
	}
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	res := pq.Exec(t.Context())
	if res.Err != nil {
		t.Fatalf("%s: %v", q, res.Err)
	}
	return res
}

// number is the one of an instant query's answer, NaN if it is not one.
func number(t testing.TB, e *query.Engine, q string, at int64) float64 {
	t.Helper()
	v, err := ask(t, e, q, at, at, 0).Vector()
	if err != nil || len(v) != 1 {
		return math.NaN()
	}
	return v[0].F
}

// app is a program: a series of each kind, and what they count.
type app struct {
	*process
	x, u, g, i, st, h handle
	rnd               *rand.Rand
	total             float64
}

func (s *stage) app(rnd *rand.Rand, labels ...string) *app {
	p := s.born(labels...)
	at := s.now
	a := &app{process: p, rnd: rnd}
	a.x = p.register(at, reader.Series{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.F64, Labels: querytest.Pairs("dev", "a")}})
	a.u = p.register(at, reader.Series{Definition: &reader.Definition{Name: "u", Kind: reader.Counter, Number: reader.U64}})
	a.i = p.register(at, reader.Series{Definition: &reader.Definition{Name: "open", Kind: reader.UpDown, Number: reader.I64}})
	a.g = p.register(at, reader.Series{Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}})
	a.st = p.register(at, reader.Series{Definition: &reader.Definition{Name: "depth", Kind: reader.Stat, Number: reader.F64, NonNegative: true}})
	a.h = p.register(at, reader.Series{Definition: &reader.Definition{Name: "lat", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 0, Min: -2, Count: 6}}})
	return a
}

// work counts something, and ticks.
func (a *app) work(t int64, final bool) {
	n := float64(a.rnd.IntN(9))
	a.total += n
	a.x.set(func(v *reader.Value) { v.Float += n })
	a.u.set(func(v *reader.Value) { v.Float += 3; v.Int += 3 })
	d := float64(a.rnd.IntN(7) - 3)
	a.i.set(func(v *reader.Value) { v.Float += d; v.Int += int64(d) })
	g := float64(a.rnd.IntN(1000)) / 8
	a.g.set(func(v *reader.Value) { v.Float, v.Unset = g, false })
	a.st.set(func(v *reader.Value) {
		v.Unset, v.Last, v.Min, v.Max = false, g, g, g
		v.Count++
		v.Sum += g
	})
	k := a.rnd.IntN(6)
	a.h.set(func(v *reader.Value) { v.Buckets[k] += 2; v.Zero++; v.Sum += float64(k); v.Count += 3 })
	a.tick(t, final)
}

func (c *counting) Select(ctx context.Context, s archive.Selection) ([]*archive.Incarnation, error) {
	c.selects.Add(1)
	if c.fail != nil {
		return nil, c.fail
	}
	return c.Reader.Select(ctx, s)
}

func (c *counting) Read(inc *archive.Incarnation, table, tier int, from, to int64, columns []archive.Column) iter.Seq2[*archive.Chunk, error] {
	c.reads.Add(1)
	if c.fail != nil {
		return func(yield func(*archive.Chunk, error) bool) { yield(nil, c.fail) }
	}
	return c.Reader.Read(inc, table, tier, from, to, columns)
}
