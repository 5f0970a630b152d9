package otelshm_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/otelshm"
)

// bench is a service with the SDK, its segment, and somebody who reads that. Time stands still until a step.
type bench struct {
	t        *testing.T
	w        *writer.Writer
	clock    atomic.Int64
	r        *otelshm.Reader
	provider *sdkmetric.MeterProvider
	meter    metric.Meter
	store    *reader.Store
}

const birth = int64(1_700_000_000_000_000_000)

func newBench(t *testing.T, o writer.Options, views []sdkmetric.View, options ...otelshm.Option) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-otelshm-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t}
	o.Job, o.Instance, o.Dir, o.NoTicker = "job", "1", dir, true
	o.Clock = func() (int64, int64) { n := b.clock.Load(); return birth + n, 1e12 + n }
	if b.w, err = writer.Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.w.Close() })
	b.r = otelshm.NewReader(b.w, append([]otelshm.Option{otelshm.WithInterval(-1)}, options...)...)
	b.provider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.r), sdkmetric.WithView(views...))
	b.meter = b.provider.Meter("test")
	if b.store, err = reader.Open(reader.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.store.Close() })
	return b
}

// step collects, and lets 10 s pass.
func (b *bench) step() {
	b.t.Helper()
	if err := b.provider.ForceFlush(context.Background()); err != nil {
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

func (b *bench) segment() *reader.Segment {
	b.t.Helper()
	all := b.store.Segments()
	if len(all) != 1 {
		b.t.Fatalf("want one segment, got %d", len(all))
	}
	return all[0]
}

// find is the live series of that name and labels, nil if there is none.
func (b *bench) find(name string, labels ...string) *reader.Series {
	b.t.Helper()
	for _, s := range b.segment().Series() {
		if s.Name != name || s.Retired || len(s.Labels) != len(labels)/2 {
			continue
		}
		same := true
		for i, p := range s.Labels {
			same = same && p.Name == labels[2*i] && p.Value == labels[2*i+1]
		}
		if same {
			return s
		}
	}
	return nil
}

// value is what the newest row says.
func (b *bench) value(name string, labels ...string) (*reader.Series, reader.Value) {
	b.t.Helper()
	s := b.find(name, labels...)
	if s == nil {
		b.t.Fatalf("want a live series %s %q, got none; %v", name, labels, b.r.Err())
	}
	v, ok := b.newest(s)
	if !ok {
		b.t.Fatalf("series %s %q: want it in the newest row", name, labels)
	}
	return s, v
}

func (b *bench) newest(s *reader.Series) (reader.Value, bool) {
	g := b.segment()
	for row := range g.Rows(s.Table, 0, g.Head(s.Table, 0)) {
		v, ok := row.Clone().Value(s)
		return v, ok
	}
	return reader.Value{}, false
}

func (b *bench) stats(want otelshm.Stats) {
	b.t.Helper()
	if got := b.r.Stats(); got != want {
		b.t.Errorf("stats: want %+v, got %+v (%v)", want, got, b.r.Err())
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var get = metric.WithAttributes(attribute.String("http.request.method", "GET"), attribute.Int("code", 200), attribute.BoolSlice("tls", []bool{true, false}))

// Every instrument that the API has lands as what doc.go says, with its name, unit, help and labels.
func TestInstruments(t *testing.T) {
	b := newBench(t, writer.Options{}, nil)
	ctx := context.Background()
	ints := must(b.meter.Int64Counter("ints", metric.WithUnit("By"), metric.WithDescription("Bytes.")))
	floats := must(b.meter.Float64Counter("floats"))
	level := must(b.meter.Int64UpDownCounter("level"))
	amount := must(b.meter.Float64UpDownCounter("amount"))
	gauge := must(b.meter.Float64Gauge("gauge"))
	integer := must(b.meter.Int64Gauge("integer"))
	seen := []float64{3, 5.5}
	must(b.meter.Int64ObservableCounter("observed.ints", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(int64(seen[0]))
		return nil
	})))
	must(b.meter.Float64ObservableCounter("observed.floats", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
		o.Observe(seen[1])
		return nil
	})))
	must(b.meter.Float64ObservableUpDownCounter("observed.amount", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
		o.Observe(-seen[1])
		return nil
	})))
	must(b.meter.Int64ObservableGauge("observed.gauge", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(-7)
		return nil
	})))

	b.clock.Add(5e9) // the series are born later than the segment
	ints.Add(ctx, 10, get)
	sum := 0.0
	add := func(v float64) {
		floats.Add(ctx, v)
		sum += v
	}
	add(0.1)
	level.Add(ctx, 4)
	amount.Add(ctx, -2.5)
	gauge.Record(ctx, math.Inf(-1))
	integer.Record(ctx, math.MaxInt64)
	b.step()
	ints.Add(ctx, 1<<40, get)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 { // f64 sums to the bit, whatever the steps are
		add(math.Exp(20 * rng.Float64()))
		if err := b.provider.ForceFlush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	level.Add(ctx, -9)
	seen[0], seen[1] = 2, 6.25 // an observed counter that falls began again
	b.step()

	labels := []string{"code", "200", "http.request.method", "GET", "tls", "[true,false]"}
	s, v := b.value("ints", labels...)
	equal(t, "unit", s.Unit, "By")
	equal(t, "help", s.Help, "Bytes.")
	equal(t, "start", s.Start, birth+5e9)
	equal(t, "kind", s.Kind, reader.Counter)
	equal(t, "ints", v.Int, 1<<40+10)
	for _, c := range []struct {
		name   string
		kind   reader.Kind
		number reader.Number
		want   float64
	}{
		{"floats", reader.Counter, reader.F64, sum}, {"level", reader.UpDown, reader.I64, -5}, {"amount", reader.Gauge, reader.F64, -2.5},
		{"gauge", reader.Gauge, reader.F64, math.Inf(-1)}, {"integer", reader.Gauge, reader.I64, math.MaxInt64},
		{"observed.ints", reader.Counter, reader.U64, 5}, {"observed.floats", reader.Counter, reader.F64, 6.25},
		{"observed.amount", reader.Gauge, reader.F64, -6.25}, {"observed.gauge", reader.Gauge, reader.I64, -7},
	} {
		s, v := b.value(c.name)
		if s.Kind != c.kind || s.Number != c.number || v.Float != c.want {
			t.Errorf("%s: want %v %v %v, got %v %v %v", c.name, c.number, c.kind, c.want, s.Number, s.Kind, v.Float)
		}
	}
	b.stats(otelshm.Stats{Series: 10})
	equal(t, "no thread overflowed", b.w.Stats().OverflowThreads, 0)
}

// Each bucket holds what a histogram of the writer's own does, into which the same values were recorded: over every scale of the
// series and of the SDK's that maps exactly, in several collections.
func TestHistogramBuckets(t *testing.T) {
	for scale := range 5 {
		for _, views := range [][]sdkmetric.View{nil, {finer(12)}} {
			b := newBench(t, writer.Options{Histograms: 4, Buckets: 400}, views, otelshm.WithScale(scale),
				otelshm.WithRange(func(i otelshm.Instrument) (float64, float64) {
					equal(t, "instrument", i, otelshm.Instrument{Scope: "test", Name: i.Name, Unit: "s"})
					return 0.01, 100
				}))
			ctx := context.Background()
			floats, ints := must(b.meter.Float64Histogram("floats", metric.WithUnit("s"))), must(b.meter.Int64Histogram("ints", metric.WithUnit("s")))
			shape := []writer.SeriesOption{writer.Scale(scale), writer.Buckets(0.01, 100)}
			wantFloats, wantInts := b.w.Histogram("want.floats", shape...), b.w.IntHistogram("want.ints", shape...)
			rng := rand.New(rand.NewPCG(5, 6))
			sum := 0.0
			for round := range 4 {
				for range 500 * round { // the first collection finds none
					v := 0.001 * math.Pow(1e6, rng.Float64()) // some below, some above
					n := rng.Uint64N(300)
					if n == 0 {
						v = 0
					}
					floats.Record(ctx, v)
					wantFloats.Record(v)
					sum += v
					ints.Record(ctx, int64(n))
					wantInts.Record(n)
				}
				b.step()
			}
			for _, name := range []string{"floats", "ints"} {
				s, v := b.value(name)
				_, want := b.value("want." + name)
				equal(t, name+" scale", s.Buckets.Scale, scale)
				equal(t, name+" count", v.Count, 3000)
				equal(t, name+" zero", v.Zero, want.Zero)
				equal(t, name+" above", v.Above, want.Above)
				for i := range want.Buckets {
					equal(t, name+" bucket", v.Buckets[i], want.Buckets[i])
				}
				if name == "floats" {
					equal(t, "sum", v.Sum, sum)
				} else {
					equal(t, "sum of ints", v.Sum, want.Sum)
				}
			}
			b.stats(otelshm.Stats{Series: 2})
		}
	}
}

// finer is a View as a service may have for another exporter.
func finer(scale int32) sdkmetric.View {
	return sdkmetric.NewView(sdkmetric.Instrument{Name: "*"}, sdkmetric.Stream{
		Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 1 << 20, MaxScale: scale}})
}

// A View that lets the SDK lower the scale: the series ends and goes on as another, and both together hold everything.
func TestScaleFalls(t *testing.T) {
	small := sdkmetric.NewView(sdkmetric.Instrument{Name: "*"}, sdkmetric.Stream{
		Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 8, MaxScale: 20}})
	b := newBench(t, writer.Options{}, []sdkmetric.View{small}, otelshm.WithScale(3), otelshm.WithRange(func(otelshm.Instrument) (float64, float64) { return 1, 64 }))
	ctx := context.Background()
	h := must(b.meter.Float64Histogram("h"))
	for _, v := range []float64{1.1, 1.2, 1.3} {
		h.Record(ctx, v)
	}
	b.step()
	first, v := b.value("h")
	equal(t, "scale", first.Buckets.Scale, 3)
	equal(t, "count", v.Count, 3)
	h.Record(ctx, 50) // 5.6 doublings in 8 buckets: scale 0
	h.Record(ctx, 1.3)
	b.step()
	second, w := b.value("h")
	equal(t, "scale", second.Buckets.Scale, 0)
	equal(t, "count", w.Count, 2)
	equal(t, "sum", math.Abs(w.Sum-51.3) < 1e-12, true)
	equal(t, "bucket (1, 2]", w.Buckets[0-second.Buckets.Min], 1)
	equal(t, "bucket (32, 64]", w.Buckets[5-second.Buckets.Min], 1)
	if v, ok := b.newest(first); !ok || v.Count != 3 {
		t.Errorf("the first series: want its 3 records in one more row, got %v, %v", v.Count, ok)
	}
	h.Record(ctx, 1.5)
	b.step()
	_, w = b.value("h")
	equal(t, "count", w.Count, 3)
	b.stats(otelshm.Stats{Series: 1, Rescaled: 1})
	h.Record(ctx, 1e200) // below scale 0
	b.step()
	if s := b.find("h"); s != nil {
		t.Errorf("below scale 0: want no series, got %v", s.Buckets)
	}
	b.stats(otelshm.Stats{Series: 1, Rescaled: 1, Unsupported: 1})
}

// What stops being observed is retired, and is another series when it comes back.
func TestRetire(t *testing.T) {
	b := newBench(t, writer.Options{}, nil)
	observed := []string{"a", "b"}
	fails := false
	must(b.meter.Int64ObservableCounter("c", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		if fails {
			return errors.New("no values today")
		}
		for _, q := range observed {
			o.Observe(5, metric.WithAttributes(attribute.String("queue", q)))
		}
		return nil
	})))
	b.step()
	gone, _ := b.value("c", "queue", "b")
	observed = observed[:1]
	b.step()
	if b.find("c", "queue", "b") != nil {
		t.Error("want c{b} retired, got it live")
	}
	if v, ok := b.newest(gone); !ok || v.Int != 5 {
		t.Errorf("c{b}: want 5 in one more row, got %v, %v", v.Int, ok)
	}
	b.step()
	if _, ok := b.newest(gone); ok {
		t.Error("c{b}: want it in no further row")
	}
	b.value("c", "queue", "a")
	b.stats(otelshm.Stats{Series: 1})
	observed = []string{"a", "b"}
	b.step()
	again, v := b.value("c", "queue", "b")
	equal(t, "value", v.Int, 5)
	equal(t, "start", again.Start, birth+30e9)
	// A collection that failed retires nothing.
	fails = true
	if err := b.provider.ForceFlush(context.Background()); err == nil {
		t.Error("want the callback's error, got none")
	}
	b.tick()
	b.value("c", "queue", "a")
}

func TestExplicitBuckets(t *testing.T) {
	views := []sdkmetric.View{sdkmetric.NewView(sdkmetric.Instrument{Name: "h"}, sdkmetric.Stream{
		Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{0.5, 10}}})}
	b := newBench(t, writer.Options{}, views)
	h := must(b.meter.Float64Histogram("h", metric.WithUnit("s")))
	ctx := context.Background()
	h.Record(ctx, 0.25)
	h.Record(ctx, 7)
	b.step()
	h.Record(ctx, 8)
	h.Record(ctx, 100)
	b.step()
	for le, want := range map[string]int64{"0.5": 1, "10": 3, "+Inf": 4} {
		s, v := b.value("h_bucket", "le", le)
		equal(t, le, v.Int, want)
		equal(t, "unit of a count", s.Unit, "")
		equal(t, "kind", s.Kind, reader.Counter)
	}
	_, count := b.value("h_count")
	equal(t, "count", count.Int, 4)
	s, sum := b.value("h_sum")
	equal(t, "sum", sum.Float, 115.25)
	equal(t, "unit", s.Unit, "s")
	equal(t, "kind of sum", s.Kind, reader.Counter)
	h.Record(ctx, -200)
	b.step()
	s, sum = b.value("h_sum")
	equal(t, "sum", sum.Float, -84.75)
	equal(t, "kind of a sum that fell", s.Kind, reader.Gauge)
	b.stats(otelshm.Stats{Series: 1})
}

// What can't be recorded as it is, is counted, once.
func TestCounted(t *testing.T) {
	b := newBench(t, writer.Options{Series: 4, Histograms: -1, Stats: -1, Descriptors: 6, MaxSegments: 1}, nil)
	ctx := context.Background()
	negative := must(b.meter.Float64Histogram("negative"))
	negative.Record(ctx, -1)
	b.step()
	b.step()
	b.stats(otelshm.Stats{Series: 1, Unsupported: 1})

	other := b.provider.Meter("other")
	must(b.meter.Int64Counter("same")).Add(ctx, 1)
	must(other.Int64Counter("same")).Add(ctx, 5)
	b.step()
	b.step()
	_, v := b.value("same")
	if v.Int != 1 && v.Int != 5 {
		t.Errorf("same: want what one meter counted, 1 or 5, got %d", v.Int)
	}
	b.stats(otelshm.Stats{Series: 3, Unsupported: 1, Conflicts: 1})

	falls := must(b.meter.Float64Counter("falls"))
	falls.Add(ctx, 1)
	b.step()
	falls.Add(ctx, math.Inf(1))
	b.step()
	_, v = b.value("falls")
	equal(t, "falls", v.Float, 1)
	b.stats(otelshm.Stats{Series: 4, Unsupported: 1, Conflicts: 1, Rejected: 1})

	many := must(b.meter.Int64Counter("many"))
	for i := range 5 { // room for 2 more
		many.Add(ctx, 1, metric.WithAttributes(attribute.Int("i", i)))
	}
	b.step()
	stats := b.r.Stats()
	equal(t, "dropped", stats.Dropped, 3)
	equal(t, "and the writer's", b.w.Stats().DroppedSeries, 3)
	b.step()
	equal(t, "dropped once", b.r.Stats().Dropped, 3)
	if err := b.r.Err(); err == nil || !strings.HasPrefix(err.Error(), "shmts: ") {
		t.Errorf("want the first error, got %v", err)
	}
}

func TestScopes(t *testing.T) {
	b := newBench(t, writer.Options{}, nil, otelshm.WithScope())
	ctx := context.Background()
	must(b.meter.Int64Counter("same")).Add(ctx, 1)
	must(b.provider.Meter("other", metric.WithInstrumentationVersion("v2")).Int64Counter("same")).Add(ctx, 5)
	b.step()
	_, v := b.value("same", "otel_scope_name", "test")
	equal(t, "test", v.Int, 1)
	_, v = b.value("same", "otel_scope_name", "other", "otel_scope_version", "v2")
	equal(t, "other", v.Int, 5)
	b.stats(otelshm.Stats{Series: 2})
}

// produced are points as only a Producer brings them.
type produced struct{ count uint64 }

func (p *produced) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	p.count++
	return []metricdata.ScopeMetrics{{Metrics: []metricdata.Metrics{
		{Name: "summary", Data: metricdata.Summary{DataPoints: []metricdata.SummaryDataPoint{{Count: p.count, Sum: 2.5,
			QuantileValues: []metricdata.QuantileValue{{Quantile: 0.5, Value: 1.25}, {Quantile: 0.99, Value: 2}}}}}},
		{Name: "delta", Data: metricdata.Sum[int64]{Temporality: metricdata.DeltaTemporality, IsMonotonic: true, DataPoints: []metricdata.DataPoint[int64]{{Value: 1}}}},
	}}}, nil
}

func TestProducer(t *testing.T) {
	b := newBench(t, writer.Options{}, nil, otelshm.WithProducer(&produced{}))
	b.step()
	b.step()
	_, v := b.value("summary_count")
	equal(t, "count", v.Int, 2)
	_, v = b.value("summary_sum")
	equal(t, "sum", v.Float, 2.5)
	_, v = b.value("summary", "quantile", "0.5")
	equal(t, "median", v.Float, 1.25)
	_, v = b.value("summary", "quantile", "0.99")
	equal(t, "0.99", v.Float, 2)
	b.stats(otelshm.Stats{Series: 2, Unsupported: 1})
}

// The whole thing as a service has it: its own ticker, collections of its own, and what Shutdown brings last.
func TestFollowsTicks(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-otelshm-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	defer os.RemoveAll(dir)
	res := resource.NewSchemaless(attribute.String("service.name", "checkout"), attribute.String("service.namespace", "shop"),
		attribute.String("service.instance.id", "i-1"), attribute.Int("shard", 7), attribute.String("long", strings.Repeat("x", 1024)))
	o := otelshm.Source(writer.Options{Dir: dir, Attributes: map[string]string{"shard": "8"},
		Tables: []writer.Table{{Name: "scalars", Scalars: 10, Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: 50}}}}}, res)
	w, err := writer.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(otelshm.NewReader(w)))
	ctx := context.Background()
	c := must(provider.Meter("m").Int64Counter("c"))
	c.Add(ctx, 1)

	store, err := reader.Open(reader.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var g *reader.Segment
	newest := func() int64 {
		if _, err := store.Poll(); err != nil {
			t.Fatal(err)
		}
		if all := store.Lookup("shop/checkout", "i-1"); len(all) == 1 {
			g = all[0]
		} else {
			t.Fatalf("want one segment of shop/checkout, i-1, got %d", len(all))
		}
		n := int64(-1)
		if s := g.Find("c"); s != nil {
			for row := range g.Rows(0, 0, g.Head(0, 0)) {
				if v, ok := row.Value(s); ok {
					n = v.Int
				}
			}
		}
		return n
	}
	deadline := time.Now().Add(10 * time.Second)
	for want := int64(1); want <= 3; want++ {
		for newest() != want {
			if time.Now().After(deadline) {
				t.Fatalf("want %d in a row within 10 s, got %d", want, newest())
			}
			time.Sleep(5 * time.Millisecond)
		}
		c.Add(ctx, 1)
	}
	c.Add(ctx, 38)
	if err := provider.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "after Shutdown and Close", newest(), 42)
	equal(t, "liveness", g.Liveness(), reader.Closed)
	attributes := map[string]string{}
	for _, p := range g.Attributes() {
		attributes[p.Name] = p.Value
	}
	equal(t, "attributes", len(attributes), 4)
	equal(t, "the options' own", attributes["shard"], "8")
	equal(t, "service.name", attributes["service.name"], "checkout")
}

// A callback that hangs holds up neither the writer's ticks nor, beyond its context, Shutdown.
func TestCallbackHangs(t *testing.T) {
	b := newBench(t, writer.Options{}, nil, otelshm.WithInterval(time.Millisecond))
	entered, release := make(chan struct{}, 8), make(chan struct{})
	defer close(release)
	must(b.meter.Int64ObservableGauge("g", metric.WithInt64Callback(func(context.Context, metric.Int64Observer) error {
		entered <- struct{}{}
		<-release
		return nil
	})))
	<-entered
	c := b.w.Counter("own")
	c.Add(3)
	b.tick()
	_, v := b.value("own")
	equal(t, "own", v.Int, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.r.ForceFlush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ForceFlush: want the context's end, got %v", err)
	}
	if err := b.r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: want the context's end, got %v", err)
	}
}

// 1,000 series of the SDK's, of which one in ten is a histogram.
func BenchmarkForceFlush(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-otelshm-test-")
	if err != nil {
		b.Skipf("no /dev/shm to test in: %v", err)
	}
	defer os.RemoveAll(dir)
	w, err := writer.Open(writer.Options{Dir: dir, NoTicker: true, Series: 1000})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	r := otelshm.NewReader(w, otelshm.WithInterval(-1))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(r))
	c, h := must(provider.Meter("m").Int64Counter("c")), must(provider.Meter("m").Float64Histogram("h"))
	ctx := context.Background()
	record := func() {
		for i := range 900 {
			c.Add(ctx, 1, metric.WithAttributes(attribute.Int("i", i)))
		}
		for i := range 100 {
			h.Record(ctx, float64(1+i), metric.WithAttributes(attribute.Int("i", i)))
		}
	}
	record()
	var rm metricdata.ResourceMetrics
	b.Run("collect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Collect(ctx, &rm); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("collect and record", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := r.ForceFlush(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	if got := w.Stats(); got.Series != 1000 {
		b.Fatalf("want 1,000 series, got %d: %v", got.Series, r.Err())
	}
}

// Where there is no segment and will be none, the Reader does no harm.
func TestNowhere(t *testing.T) {
	bad, err := writer.Open(writer.Options{Mode: 0o777})
	if err == nil {
		t.Fatal("want an error of a wrong mode, got none")
	}
	for _, w := range []*writer.Writer{nil, bad} {
		r := otelshm.NewReader(w)
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(r))
		must(provider.Meter("m").Int64Counter("c")).Add(context.Background(), 1)
		must(provider.Meter("m").Float64Histogram("h")).Record(context.Background(), 1)
		if err := provider.ForceFlush(context.Background()); err != nil {
			t.Error(err)
		}
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := r.Shutdown(context.Background()); !errors.Is(err, sdkmetric.ErrReaderShutdown) {
			t.Errorf("a second Shutdown: want ErrReaderShutdown, got %v", err)
		}
	}
	unregistered := otelshm.NewReader(bad)
	if err := unregistered.ForceFlush(context.Background()); !errors.Is(err, sdkmetric.ErrReaderNotRegistered) {
		t.Errorf("want ErrReaderNotRegistered, got %v", err)
	}
	if err := unregistered.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
