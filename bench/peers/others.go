package main

import (
	"context"
	"fmt"
	"math"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
)

// Latencies, seconds: 1,024 values spread over 1 ms to 1 s as a service's are,
// evenly in their logarithm. A constant would train the branch predictor.
var latencies = func() [1024]float64 {
	var out [1024]float64
	state := uint64(1)
	for i := range out {
		state = state*6364136223846793005 + 1442695040888963407
		out[i] = math.Exp(math.Log(0.001) + float64(state>>11)/(1<<53)*math.Log(1000))
	}
	return out
}()

// loop is the shape of most subjects: one call, over and over.
func loop(call func(n int)) func(g, all int) func(n int) {
	return func(int, int) func(int) { return call }
}

// clientGolang is the Prometheus project's own library.
func clientGolang(goroutines int) []*subject {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "packets_total", Help: "packets"})
	vector := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "requests"}, []string{"method", "code"})
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "depth", Help: "depth"})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "classic_seconds", Help: "latency"})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "native_seconds", Help: "latency", NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160})
	var many [inTurn]prometheus.Counter
	labelled := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "many_total", Help: "many"}, []string{"queue"})
	for i := range many {
		many[i] = labelled.WithLabelValues(fmt.Sprint(i))
	}
	registry.MustRegister(labelled, counter, vector, gauge, classic, native)
	trace := prometheus.Labels{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}

	at := func(s *subject) *subject { s.goroutines = goroutines; return s }
	return []*subject{
		at(&subject{name: "client_golang/Counter.Inc", body: loop(func(n int) {
			for range n {
				counter.Inc()
			}
		})}),
		at(&subject{name: "client_golang/Counter.Inc/in_turn", body: loop(func(n int) {
			for range n / inTurn {
				for _, c := range many {
					c.Inc()
				}
			}
		})}),
		at(&subject{name: "client_golang/CounterVec.WithLabelValues(2).Inc", body: loop(func(n int) {
			for range n {
				vector.WithLabelValues("GET", "200").Inc()
			}
		})}),
		at(&subject{name: "client_golang/Gauge.Set", body: loop(func(n int) {
			for i := range n {
				gauge.Set(float64(i))
			}
		})}),
		at(&subject{name: "client_golang/Histogram.Observe/classic", body: loop(func(n int) {
			for i := range n {
				classic.Observe(latencies[i&1023])
			}
		})}),
		at(&subject{name: "client_golang/Histogram.Observe/native", body: loop(func(n int) {
			for i := range n {
				native.Observe(latencies[i&1023])
			}
		})}),
		// The labels made once, which is the cheapest that a caller can do; they are checked and copied all the same.
		at(&subject{name: "client_golang/Histogram.ObserveWithExemplar/classic", body: loop(func(n int) {
			for i := range n {
				classic.(prometheus.ExemplarObserver).ObserveWithExemplar(latencies[i&1023], trace)
			}
		})}),
		at(&subject{name: "client_golang/Histogram.ObserveWithExemplar/native", body: loop(func(n int) {
			for i := range n {
				native.(prometheus.ExemplarObserver).ObserveWithExemplar(latencies[i&1023], trace)
			}
		})}),
	}
}

// otelSDK is the OpenTelemetry SDK with a manual reader: it aggregates as it
// would for an exporter, and nothing collects while it is measured.
func otelSDK(goroutines int) ([]*subject, error) {
	exponential := sdk.NewView(sdk.Instrument{Name: "exponential"}, sdk.Stream{
		Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})
	meter := sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader()), sdk.WithView(exponential)).Meter("bench")
	counter, err := meter.Int64Counter("packets")
	if err != nil {
		return nil, err
	}
	gauge, err := meter.Float64Gauge("depth")
	if err != nil {
		return nil, err
	}
	explicit, err := meter.Float64Histogram("explicit", metric.WithUnit("s"))
	if err != nil {
		return nil, err
	}
	exp, err := meter.Float64Histogram("exponential", metric.WithUnit("s"))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	span := trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled}))
	// As instrumented code does it: the set made once, or the attributes given at each call.
	set := metric.WithAttributeSet(attribute.NewSet(attribute.String("method", "GET"), attribute.Int("code", 200)))

	at := func(s *subject) *subject { s.goroutines = goroutines; return s }
	return []*subject{
		at(&subject{name: "otel/Counter.Add/no_attributes", body: loop(func(n int) {
			for range n {
				counter.Add(ctx, 1)
			}
		})}),
		at(&subject{name: "otel/Counter.Add/set", body: loop(func(n int) {
			for range n {
				counter.Add(ctx, 1, set)
			}
		})}),
		at(&subject{name: "otel/Counter.Add/attributes", body: loop(func(n int) {
			for range n {
				counter.Add(ctx, 1, metric.WithAttributes(attribute.String("method", "GET"), attribute.Int("code", 200)))
			}
		})}),
		at(&subject{name: "otel/Gauge.Record/no_attributes", body: loop(func(n int) {
			for i := range n {
				gauge.Record(ctx, float64(i))
			}
		})}),
		at(&subject{name: "otel/Histogram.Record/explicit/no_attributes", body: loop(func(n int) {
			for i := range n {
				explicit.Record(ctx, latencies[i&1023])
			}
		})}),
		at(&subject{name: "otel/Histogram.Record/explicit/set", body: loop(func(n int) {
			for i := range n {
				explicit.Record(ctx, latencies[i&1023], set)
			}
		})}),
		at(&subject{name: "otel/Histogram.Record/exponential/no_attributes", body: loop(func(n int) {
			for i := range n {
				exp.Record(ctx, latencies[i&1023])
			}
		})}),
		// In a sampled span: the SDK's own filter lets it through to the reservoir.
		at(&subject{name: "otel/Histogram.Record/exponential/sampled_span", body: loop(func(n int) {
			for i := range n {
				exp.Record(span, latencies[i&1023])
			}
		})}),
	}, nil
}

// victoriaMetrics is VictoriaMetrics' own library.
func victoriaMetrics(goroutines int) []*subject {
	set := vm.NewSet()
	counter := set.NewCounter("packets_total")
	gauge := set.NewGauge("depth", nil)
	histogram := set.NewHistogram("latency_seconds")
	at := func(s *subject) *subject { s.goroutines = goroutines; return s }
	return []*subject{
		at(&subject{name: "victoriametrics/Counter.Inc", body: loop(func(n int) {
			for range n {
				counter.Inc()
			}
		})}),
		at(&subject{name: "victoriametrics/Gauge.Set", body: loop(func(n int) {
			for i := range n {
				gauge.Set(float64(i))
			}
		})}),
		at(&subject{name: "victoriametrics/Histogram.Update", body: loop(func(n int) {
			for i := range n {
				histogram.Update(latencies[i&1023])
			}
		})}),
	}
}
