package promshm_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/promshm"
)

const birth = int64(1_700_000_000_000_000_000)

// bench is a service with a registry, its segment, and somebody who reads that. Time stands still until a step.
type bench struct {
	t     *testing.T
	w     *writer.Writer
	clock atomic.Int64
	reg   *prometheus.Registry
	b     *promshm.Bridge
	store *reader.Store
}

func testStore(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-promshm-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newBench(t *testing.T, o writer.Options, options ...promshm.Option) *bench {
	t.Helper()
	b := &bench{t: t, reg: prometheus.NewPedanticRegistry()}
	o.Job, o.Instance, o.Dir, o.NoTicker = "job", "1", testStore(t), true
	o.Clock = func() (int64, int64) { n := b.clock.Load(); return birth + n, 1e12 + n }
	var err error
	if b.w, err = writer.Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.w.Close() })
	b.b = promshm.Start(b.w, b.reg, append([]promshm.Option{promshm.WithInterval(-1)}, options...)...)
	if b.store, err = reader.Open(reader.Options{Dir: o.Dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.store.Close() })
	return b
}

// step gathers, and lets 10 s pass.
func (b *bench) step() {
	b.t.Helper()
	if err := b.b.Gather(); err != nil {
		b.t.Fatal(err)
	}
	b.tick()
}

func (b *bench) tick() {
	b.t.Helper()
	b.clock.Add(10e9)
	b.w.Tick()
	if _, err := b.store.Poll(); err != nil {
		b.t.Fatal(err)
	}
}

// find is the live series of that name and labels, nil if there is none.
func (b *bench) find(name string, labels ...string) *reader.Series {
	b.t.Helper()
	var pairs []reader.Pair
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, reader.Pair{Name: labels[i], Value: labels[i+1]})
	}
	all := b.store.Segments()
	if len(all) != 1 {
		b.t.Fatalf("want one segment, got %d", len(all))
	}
	for _, s := range all[0].Series() {
		if s.Name == name && !s.Retired && slices.Equal(s.Labels, pairs) {
			return s
		}
	}
	return nil
}

func (b *bench) newest(s *reader.Series) (v reader.Value, ok bool) {
	g := b.store.Segments()[0]
	for row := range g.Rows(s.Table, 0, g.Head(s.Table, 0)) {
		v, ok = row.Clone().Value(s)
	}
	return v, ok
}

// value is what the newest row says.
func (b *bench) value(name string, labels ...string) (*reader.Series, reader.Value) {
	b.t.Helper()
	s := b.find(name, labels...)
	if s == nil {
		b.t.Fatalf("want a live series %s %q, got none; %v", name, labels, b.b.Err())
	}
	v, ok := b.newest(s)
	if !ok {
		b.t.Fatalf("series %s %q: want it in the newest row", name, labels)
	}
	return s, v
}

func (b *bench) stats(want promshm.Stats) {
	b.t.Helper()
	if got := b.b.Stats(); got != want {
		b.t.Errorf("stats: want %+v, got %+v (%v)", want, got, b.b.Err())
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}

// Counters, gauges and what has no type: values to the bit, names, help, labels, start.
func TestScalars(t *testing.T) {
	b := newBench(t, writer.Options{})
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"method", "code"})
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "depth_bytes", Help: "Depth.", Unit: "bytes"})
	u := prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "untyped", Help: "h"}, func() float64 { return math.Inf(1) })
	b.reg.MustRegister(c, g, u)
	b.clock.Add(3e9)
	sum := 0.0
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		v := math.Exp(30 * rng.Float64())
		c.WithLabelValues("GET", "200").Add(v)
		sum += v
		if err := b.b.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	g.Set(-1.5)
	b.step()
	s, v := b.value("requests_total", "code", "200", "method", "GET")
	equal(t, "kind", s.Kind, reader.Counter)
	equal(t, "help", s.Help, "Requests.")
	equal(t, "start", s.Start, birth+3e9)
	equal(t, "counter", v.Float, sum)
	s, v = b.value("depth_bytes")
	equal(t, "kind", s.Kind, reader.Gauge)
	equal(t, "unit", s.Unit, "By")
	equal(t, "gauge", v.Float, -1.5)
	_, v = b.value("untyped")
	equal(t, "untyped", v.Float, math.Inf(1))
	b.stats(promshm.Stats{Series: 3})
}

// A counter that begins again adds to what its series has; a series that is deleted is retired, unless the gathering was not whole.
func TestRestartAndRetire(t *testing.T) {
	b := newBench(t, writer.Options{})
	first := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c", Help: "h"}, []string{"q"})
	b.reg.MustRegister(first)
	first.WithLabelValues("a").Add(5)
	first.WithLabelValues("b").Add(7)
	b.step()
	gone, _ := b.value("c", "q", "b")
	first.DeleteLabelValues("b")
	first.DeleteLabelValues("a")
	time.Sleep(time.Microsecond) // the clock that stamps the counter moves on
	first.WithLabelValues("a").Add(6)
	b.step()
	_, v := b.value("c", "q", "a")
	equal(t, "after a restart", v.Float, 11)
	if b.find("c", "q", "b") != nil {
		t.Error("want c{b} retired, got it live")
	}
	if v, ok := b.newest(gone); !ok || v.Float != 7 {
		t.Errorf("c{b}: want 7 in one more row, got %v, %v", v.Float, ok)
	}
	b.step()
	if _, ok := b.newest(gone); ok {
		t.Error("c{b}: want it in no further row")
	}
	first.WithLabelValues("b").Add(1)
	b.step()
	s, v := b.value("c", "q", "b")
	equal(t, "again", v.Float, 1)
	equal(t, "start", s.Start, birth+30e9)
	b.stats(promshm.Stats{Series: 2})

	first.DeleteLabelValues("b")
	b.reg.MustRegister(broken{prometheus.NewDesc("broken", "h", nil, nil)})
	if err := b.b.Gather(); err == nil {
		t.Error("want the collector's error, got none")
	}
	b.tick()
	b.value("c", "q", "b")
}

type broken struct{ d *prometheus.Desc }

func (c broken) Describe(ch chan<- *prometheus.Desc) { ch <- c.d }
func (c broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(c.d, errors.New("broken"))
}

// Each bucket of a native histogram holds what a histogram of the writer's own does, into which the same was recorded:
// every schema from our scale up, several gatherings, values on the bounds, below and above the range.
func TestNativeHistogramBuckets(t *testing.T) {
	factors := map[int]float64{0: 2, 1: 1.5, 2: 1.2, 3: 1.1, 4: 1.05, 5: 1.03, 6: 1.015, 8: 1.003}
	for scale := range 4 {
		for schema, factor := range factors {
			b := newBench(t, writer.Options{Histograms: 2, Buckets: 200}, promshm.WithScale(scale),
				promshm.WithRange(func(name, unit string) (float64, float64) {
					equal(t, "name and unit", name+" "+unit, "h seconds")
					return 0.01, 100
				}))
			h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "h", Unit: "seconds", NativeHistogramBucketFactor: factor,
				Buckets: []float64{1, 2}})
			b.reg.MustRegister(h)
			used := min(scale, schema)
			want := b.w.Histogram("want", writer.Scale(used), writer.Buckets(0.01, 100))
			rng := rand.New(rand.NewPCG(5, 6))
			sum := 0.0
			observe := func(v float64) {
				h.Observe(v)
				want.Record(v)
				sum += v
			}
			for round := range 4 {
				for range 300 * round { // the first gathering finds none
					observe(0.001 * math.Pow(1e6, rng.Float64()))
				}
				if round == 2 {
					for i := -6; i < 7; i++ {
						observe(math.Ldexp(1, i))
					}
					observe(0)
					observe(1e300)
				}
				b.step()
			}
			s, v := b.value("h")
			_, w := b.value("want")
			equal(t, "scale", s.Buckets.Scale, used)
			equal(t, "unit", s.Unit, "s")
			equal(t, "sum", v.Sum, sum)
			equal(t, "count", v.Count, 1815)
			equal(t, "zero", v.Zero, w.Zero)
			equal(t, "above", v.Above, w.Above)
			if !slices.Equal(v.Buckets, w.Buckets) {
				t.Errorf("scale %d, schema %d: want buckets %d, got %d", scale, schema, w.Buckets, v.Buckets)
			}
			b.stats(promshm.Stats{Series: 1})
		}
	}
}

// client_golang keeps a limit by widening its zero bucket and then by lowering the schema. All that was observed is in the series'
// two lives.
func TestNativeHistogramLimit(t *testing.T) {
	b := newBench(t, writer.Options{}, promshm.WithScale(3), promshm.WithRange(func(string, string) (float64, float64) { return 0x1p-4, 0x1p4 }))
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "h", NativeHistogramBucketFactor: 1.1,
		NativeHistogramMaxBucketNumber: 4, NativeHistogramMaxZeroThreshold: 0.2})
	b.reg.MustRegister(h)
	for _, v := range []float64{0.1, 1, 2, 4} {
		h.Observe(v)
	}
	b.step()
	first, v := b.value("h")
	equal(t, "count", v.Count, 4)
	equal(t, "scale", first.Buckets.Scale, 3)
	h.Observe(8) // 0.1's bucket goes into the zero bucket
	b.step()
	_, v = b.value("h")
	equal(t, "count", v.Count, 5)
	equal(t, "zero", v.Zero, 0)
	h.Observe(0.11) // the zero bucket's by now, though we would know better
	b.step()
	_, v = b.value("h")
	equal(t, "count", v.Count, 6)
	equal(t, "zero", v.Zero, 1)
	h.Observe(1.1) // wider zero buckets would not do
	h.Observe(2.1)
	h.Observe(4.1)
	b.step()
	second, v := b.value("h")
	if second.Buckets.Scale >= 3 || second == first {
		t.Errorf("want a new series of a lower scale, got scale %d", second.Buckets.Scale)
	}
	equal(t, "count of what came since", v.Count, 3)
	equal(t, "sum of what came since", math.Abs(v.Sum-7.3) < 1e-12, true)
	if v, ok := b.newest(first); !ok || v.Count != 6 {
		t.Errorf("the first series: want 6 in one more row, got %d, %v", v.Count, ok)
	}
	stats := b.b.Stats()
	equal(t, "rescaled", stats.Rescaled > 0, true)
	equal(t, "coarse", stats.Coarse, 1)
}

// A histogram that client_golang resets begins again.
func TestNativeHistogramReset(t *testing.T) {
	b := newBench(t, writer.Options{})
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "h", Help: "h", NativeHistogramBucketFactor: 1.1}, []string{"q"})
	b.reg.MustRegister(vec)
	vec.WithLabelValues("a").Observe(1)
	vec.WithLabelValues("a").Observe(3)
	b.step()
	vec.Reset()
	time.Sleep(time.Microsecond)
	for _, v := range []float64{1, 1, 3} {
		vec.WithLabelValues("a").Observe(v)
	}
	b.step()
	_, v := b.value("h", "q", "a")
	equal(t, "count", v.Count, 5)
	equal(t, "sum", v.Sum, 9)
	b.stats(promshm.Stats{Series: 1})
}

func TestClassic(t *testing.T) {
	b := newBench(t, writer.Options{})
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "h", Help: "h", Buckets: []float64{0.5, 10}}, []string{"path"})
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: "s", Help: "s", Objectives: map[float64]float64{0.5: 0}})
	bare := prometheus.NewSummary(prometheus.SummaryOpts{Name: "bare", Help: "s"})
	b.reg.MustRegister(h, s, bare)
	one := h.WithLabelValues("/")
	one.Observe(0.25)
	b.step()
	one.Observe(7)
	one.Observe(10)
	one.Observe(100)
	s.Observe(3)
	s.Observe(4)
	s.Observe(5)
	bare.Observe(2)
	b.step()
	for le, want := range map[string]float64{"0.5": 1, "10": 3, "+Inf": 4} {
		sr, v := b.value("h_bucket", "le", le, "path", "/")
		equal(t, le, v.Float, want)
		equal(t, "kind", sr.Kind, reader.Counter)
	}
	for name, want := range map[string]float64{"s_sum": 12, "s_count": 3, "bare_sum": 2, "bare_count": 1} {
		sr, v := b.value(name)
		equal(t, name, v.Float, want)
		equal(t, "kind", sr.Kind, reader.Counter)
	}
	_, v := b.value("h_sum", "path", "/")
	equal(t, "sum", v.Float, 117.25)
	_, v = b.value("s", "quantile", "0.5")
	equal(t, "median", v.Float, 4)
	one.Observe(-500)
	b.step()
	sr, v := b.value("h_sum", "path", "/")
	equal(t, "sum", v.Float, -382.75)
	equal(t, "kind of a sum that fell", sr.Kind, reader.Gauge)
	b.stats(promshm.Stats{Series: 3})
	h.Reset()
	b.step()
	for _, name := range []string{"h_count", "h_sum"} {
		if b.find(name, "path", "/") != nil {
			t.Errorf("%s: want it retired, got it live", name)
		}
	}
	if b.find("h_bucket", "le", "10", "path", "/") != nil {
		t.Error("h_bucket: want it retired, got it live")
	}
}

// gathered is a Gatherer of points that no instrument of client_golang's makes.
type gathered []*dto.MetricFamily

func (g gathered) Gather() ([]*dto.MetricFamily, error) { return g, nil }

func TestUnsupported(t *testing.T) {
	ptr := func(n int32) *int32 { return &n }
	length, count := uint32(2), 1.5
	span := []*dto.BucketSpan{{Offset: ptr(0), Length: &length}}
	var families gathered
	for name, h := range map[string]*dto.Histogram{
		"wide": {Schema: ptr(-1), PositiveSpan: span, PositiveDelta: []int64{1, 0}}, "custom": {Schema: ptr(-53)}, "fine": {Schema: ptr(9)},
		"negative": {Schema: ptr(3), NegativeSpan: span, NegativeDelta: []int64{1, 0}}, "floats": {Schema: ptr(3), SampleCountFloat: &count},
		"short": {Schema: ptr(3), PositiveSpan: span, PositiveDelta: []int64{1}}, "long": {Schema: ptr(3), PositiveSpan: span, PositiveDelta: []int64{1, 0, 0}},
		"below": {Schema: ptr(3), PositiveSpan: span, PositiveDelta: []int64{1, -2}}, "back": {Schema: ptr(3), PositiveSpan: append(slices.Clone(span), &dto.BucketSpan{Offset: ptr(-9), Length: &length}), PositiveDelta: []int64{1, 0, 0, 0}},
		"far": {Schema: ptr(0), PositiveSpan: []*dto.BucketSpan{{Offset: ptr(1 << 30), Length: &length}}, PositiveDelta: []int64{1, 0}},
	} {
		families = append(families, &dto.MetricFamily{Name: &name, Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{{Histogram: h}}})
	}
	name := "gauge_histogram"
	families = append(families, &dto.MetricFamily{Name: &name, Type: dto.MetricType_GAUGE_HISTOGRAM.Enum(), Metric: []*dto.Metric{{}}})
	w, err := writer.Open(writer.Options{Dir: testStore(t), NoTicker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b := promshm.Start(w, families, promshm.WithInterval(-1))
	for range 2 {
		if err := b.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "stats", b.Stats(), promshm.Stats{Series: len(families), Unsupported: uint64(len(families))})
	equal(t, "series in the segment", w.Stats().Series, 0)
}

// With the writer's ticker and a goroutine of the bridge's own, and what Stop brings last.
func TestFollowsTicks(t *testing.T) {
	for _, interval := range []time.Duration{0, 10 * time.Millisecond} {
		dir := testStore(t)
		w, err := writer.Open(writer.Options{Job: "job", Instance: "1", Dir: dir,
			Tables: []writer.Table{{Name: "scalars", Scalars: 10, Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: 50}}}}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		reg := prometheus.NewRegistry()
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "c", Help: "h"})
		reg.MustRegister(c)
		b := promshm.Start(w, reg, promshm.WithInterval(interval))
		store, err := reader.Open(reader.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		newest := func() (n float64) {
			if _, err := store.Poll(); err != nil {
				t.Fatal(err)
			}
			g := store.Segments()[0]
			if s := g.Find("c"); s != nil {
				for row := range g.Rows(0, 0, g.Head(0, 0)) {
					if v, ok := row.Value(s); ok {
						n = v.Float
					}
				}
			}
			return n
		}
		deadline := time.Now().Add(10 * time.Second)
		for want := range 4 {
			for newest() != float64(want) {
				if time.Now().After(deadline) {
					t.Fatalf("want %d in a row within 10 s, got %g", want, newest())
				}
				time.Sleep(5 * time.Millisecond)
			}
			c.Inc()
		}
		c.Add(38)
		b.Stop()
		b.Stop()
		if b.Gather() == nil {
			t.Error("Gather after Stop: want an error, got none")
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		equal(t, "after Stop and Close", newest(), 42)
	}
}
