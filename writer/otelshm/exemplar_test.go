package otelshm_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/trace"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/otelshm"
)

// spanOf is a context with a span, sampled or not.
func spanOf(n byte, sampled bool) context.Context {
	c := trace.SpanContextConfig{TraceID: trace.TraceID{0: n, 15: 1}, SpanID: trace.SpanID{0: n, 7: 2}}
	if sampled {
		c.TraceFlags = trace.FlagsSampled
	}
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(c))
}

// found are the exemplars in the segment, by series and first byte of the trace.
func (b *bench) found() map[string]map[byte]*reader.Exemplar {
	b.t.Helper()
	all := map[string]map[byte]*reader.Exemplar{}
	for x := range b.segment().Exemplars(0) {
		name := x.Series.Name
		for _, l := range x.Series.Labels {
			name += "{" + l.Name + "=" + l.Value + "}"
		}
		if all[name] == nil {
			all[name] = map[byte]*reader.Exemplar{}
		}
		if n := x.TraceID[0]; all[name][n] != nil {
			b.t.Errorf("%s: the exemplar of trace %d twice", name, n)
		} else {
			all[name][n] = x
		}
	}
	return all
}

// What the SDK keeps of sampled spans is offered once, with its time and its ids, to the series, or to the bucket.
func TestExemplars(t *testing.T) {
	explicit := sdkmetric.NewView(sdkmetric.Instrument{Name: "explicit"}, sdkmetric.Stream{
		Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{0.5, 10}}})
	b := newBench(t, writer.Options{}, []sdkmetric.View{explicit})
	ints, floats := must(b.meter.Int64Counter("ints")), must(b.meter.Float64Counter("floats"))
	h, ih := must(b.meter.Float64Histogram("h")), must(b.meter.Int64Histogram("ih"))
	eh, level := must(b.meter.Float64Histogram("explicit")), must(b.meter.Int64UpDownCounter("level"))
	record := func(ctx context.Context, v float64) {
		ints.Add(ctx, int64(v))
		floats.Add(ctx, v)
		h.Record(ctx, v)
		ih.Record(ctx, int64(v))
		eh.Record(ctx, v)
		level.Add(ctx, int64(v))
	}
	record(context.Background(), 100)
	record(spanOf(9, false), 100)
	record(spanOf(1, true), 3)
	b.step()
	for name, want := range map[string]float64{"ints": 3, "floats": 3, "h": 3, "ih": 3, "explicit_bucket{le=10}": 3} {
		got := b.found()[name]
		x := got[1]
		if len(got) != 1 || x == nil || x.Value != want || x.TraceID != [16]byte{0: 1, 15: 1} || x.SpanID != [8]byte{0: 1, 7: 2} || x.Time == 0 {
			t.Errorf("%s: want one exemplar of %g and trace 1, got %+v", name, want, got)
		}
	}
	equal(t, "series with exemplars", len(b.found()), 5)
	b.step() // the SDK shows them again
	b.step()
	equal(t, "numbers given", b.w.Stats().Exemplars, 5)
	record(spanOf(2, true), 20)
	b.step()
	for _, name := range []string{"ints", "floats", "h", "ih", "explicit_bucket{le=+Inf}"} {
		if x := b.found()[name][2]; x == nil || x.Value != 20 {
			t.Errorf("%s: want the exemplar of trace 2, got %+v", name, b.found()[name])
		}
	}
	b.stats(otelshm.Stats{Series: 6})

	// A filter that lets records without a span through: they have no trace.
	b = newBench(t, writer.Options{}, nil)
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(otelshm.NewReader(b.w, otelshm.WithInterval(-1))), sdkmetric.WithExemplarFilter(exemplar.AlwaysOnFilter))
	b.provider = provider
	c := must(provider.Meter("m").Int64Counter("c"))
	c.Add(context.Background(), 1, metric.WithAttributes())
	b.step()
	equal(t, "numbers given for what has no trace", b.w.Stats().Exemplars, 0)
}

// A service's own handles take the trace from the context.
func TestExemplarOfContext(t *testing.T) {
	for _, ctx := range []context.Context{context.Background(), spanOf(1, false)} {
		if ex, ok := otelshm.Exemplar(ctx); ok || ex != (writer.Exemplar{}) {
			t.Errorf("want none without a sampled span, got %+v", ex)
		}
	}
	ctx := spanOf(7, true)
	ex, ok := otelshm.Exemplar(ctx)
	if !ok || ex.TraceID != [16]byte{0: 7, 15: 1} || ex.SpanID != [8]byte{0: 7, 7: 2} || !ex.Time.IsZero() {
		t.Errorf("want the span's ids, got %+v", ex)
	}
	b := newBench(t, writer.Options{}, nil)
	h := b.w.Histogram("h")
	record := func() {
		ex, _ := otelshm.Exemplar(ctx)
		h.RecordExemplar(0.5, ex)
	}
	if n := testing.AllocsPerRun(100, record); n != 0 {
		t.Errorf("want no allocation, got %v", n)
	}
	b.tick()
	if x := b.found()["h"][7]; x == nil || x.Value != 0.5 {
		t.Errorf("want the exemplar in the segment, got %+v", b.found())
	}
}
