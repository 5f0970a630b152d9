// Package otelshm records the instruments of an OpenTelemetry SDK into a segment of shared memory. A
// service that is instrumented already changes one line:
//
//	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(otelshm.NewReader(w)))
//
// It is a Reader, not an Exporter for a PeriodicReader, since only a Reader tells the SDK how to aggregate (exponential
// histograms of a scale that never falls below the segment's) and can collect shortly before each of the writer's ticks
// and not on a clock of its own, so that rows are fresh. It stands beside any other Reader.
//
// What it makes of what the SDK has:
//
//	sum, monotonic            counter, u64 or f64
//	sum, int64, may fall      up-down counter, i64
//	sum, float64, may fall    gauge, f64: the format has no f64 sum that falls
//	gauge                     gauge, i64 or f64
//	exponential histogram     histogram, of number u64 for int64 instruments and f64 else
//	histogram, by a View      counters <name>_count, <name>_sum and <name>_bucket{le}, as Prometheus has them
//	summary, of a Producer    <name>_count, <name>_sum and gauges <name>{quantile}
//
// Names, units and attribute names stay as recorded; values that are no strings become what
// attribute.Value.String says. Minima and maxima are left out. Exemplars, which the SDK keeps of sampled spans, are offered to
// the series, oldest first and each once; of explicit buckets, to the bucket. An observable instrument that stops observing
// an attribute set has its series retired with the next collection.
//
// # What is exact
//
// Values are cumulative in the SDK, and what a segment holds is to the bit what the SDK said at the last
// collection, f64 sums included. A sum that falls, or whose start time moves, began again: what it held before stays
// in the series, and what it says now is added. The first value of a series counts from 0 at the series' birth, its
// first collection, also where an observable counter is older than that.
//
// A series' buckets are fixed: see WithScale and WithRange. The SDK is told to use that scale and never to lower
// it. Where a View makes it use a higher scale, 2^n of its buckets are one of ours, exactly. Where it uses
// a lower one, or lowers it when the values spread, a bucket of the SDK's covers several of ours: so the series
// is retired and goes on as a new one of that scale, from 0, whose first row holds what came since; Stats.Rescaled
// counts that. Below scale 0 nothing is kept (Stats.Unsupported), and the same goes for histograms of negative values. What
// lies below or above the range is counted, in the zero bucket and in the one above, and is in the sum. Which
// bucket a value within some 1e-15 of a bound is in is up to the SDK, which computes it with a logarithm.
//
// # What a kill loses
//
// What is recorded by the writer's own handles is in the segment at once. What the SDK holds is in process memory until the
// next collection: a SIGKILL loses up to one step of it. Shutdown of the provider collects once more; do that
// before the writer is closed.
package otelshm
