package otelshm

import (
	"context"
	"errors"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/internal/bridge"
)

// Reader is a Reader of the SDK that records into a segment. Its methods may be called from any goroutine. Collect, which
// the SDK asks of every Reader, answers what the instruments hold and records nothing; ForceFlush records.
type Reader struct {
	*sdkmetric.ManualReader
	options options

	turn chan struct{} // one collection at a time holds it, and what follows
	rm   metricdata.ResourceMetrics
	set  *bridge.Set[key]
	hist bridge.Histogram
	old  bridge.Classic

	exemplars []bridge.Exemplar

	loop bridge.Loop
}

var _ sdkmetric.Reader = (*Reader)(nil)

// Stats counts what could not be recorded as it was, and why.
type Stats = bridge.Stats

// Stats answers what was counted since NewReader.
func (r *Reader) Stats() Stats { return r.set.Stats() }

// Err is the first thing that could not be recorded as it was, nil if there is none.
func (r *Reader) Err() error { return r.set.Err() }

// NewReader makes a Reader that records into w, to be given to one MeterProvider. Unless WithInterval says otherwise, it has a goroutine
// that collects shortly before each step of w's tables ends, until Shutdown or until w is closed. Every
// series needs room in w: see writer.Options.Series, Histograms and Buckets.
func NewReader(w *writer.Writer, opts ...Option) *Reader {
	o := defaults()
	for _, opt := range opts {
		opt(&o)
	}
	o.scale = min(max(o.scale, 0), 6)
	manual := []sdkmetric.ManualReaderOption{
		sdkmetric.WithTemporalitySelector(func(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.CumulativeTemporality }),
		sdkmetric.WithAggregationSelector(o.aggregation),
	}
	for _, p := range o.producers {
		manual = append(manual, sdkmetric.WithProducer(p))
	}
	r := &Reader{ManualReader: sdkmetric.NewManualReader(manual...), options: o, turn: make(chan struct{}, 1), set: bridge.New[key](w)}
	r.loop.Start(w, o.interval, func(ctx context.Context) {
		_ = r.ForceFlush(ctx) // counted, and there is nobody to tell
	})
	return r
}

// aggregation is that of the SDK, but for histograms. MaxSize is the number of buckets of all float64: so the SDK
// never lowers the scale, and as it keeps only the buckets between the least and the greatest value, it costs nothing.
func (o *options) aggregation(kind sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	if kind != sdkmetric.InstrumentKindHistogram {
		return sdkmetric.DefaultAggregationSelector(kind)
	}
	const binades = 1024 + 1074
	return sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: binades << o.scale, MaxScale: int32(o.scale), NoMinMax: true}
}

// ForceFlush collects once, and records. MeterProvider.ForceFlush calls it. An error is the SDK's: a callback
// that failed, a context that ended, no provider yet. What was collected is recorded all the same, and nothing is retired then.
func (r *Reader) ForceFlush(ctx context.Context) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.give()
	return r.record(ctx)
}

// take waits for the turn as long as ctx lets it: a callback may hang.
func (r *Reader) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Reader) give() { <-r.turn }

func (r *Reader) record(ctx context.Context) error {
	err := r.ManualReader.Collect(ctx, &r.rm)
	if errors.Is(err, sdkmetric.ErrReaderNotRegistered) || errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return err // rm holds nothing new
	}
	r.set.Begin()
	for i := range r.rm.ScopeMetrics {
		scope := &r.rm.ScopeMetrics[i]
		for j := range scope.Metrics {
			r.metric(&scope.Scope, &scope.Metrics[j])
		}
	}
	r.set.End(err == nil)
	return err
}

// Shutdown collects and records once more, stops the goroutine, and lets go of the SDK. Series stay as they are: it is the writer's
// Close, after this, that ends them. MeterProvider.Shutdown calls it; a second call answers ErrReaderShutdown.
func (r *Reader) Shutdown(ctx context.Context) error {
	err := r.loop.Stop(ctx)
	if err == nil {
		err = r.take(ctx)
	}
	if err != nil { // a callback hangs
		return errors.Join(err, r.ManualReader.Shutdown(ctx))
	}
	defer r.give()
	if err = r.record(ctx); errors.Is(err, sdkmetric.ErrReaderNotRegistered) || errors.Is(err, sdkmetric.ErrReaderShutdown) {
		err = nil
	}
	return errors.Join(err, r.ManualReader.Shutdown(ctx))
}

// Option of NewReader.
type Option func(*options)

type options struct {
	interval  time.Duration
	scale     int
	bounds    func(instrument Instrument) (low, high float64)
	scope     bool
	producers []sdkmetric.Producer
}

func defaults() options { return options{scale: 2, bounds: RangeByUnit} }

// WithInterval collects at that interval, whenever the writer ticks. Less than 0: only ForceFlush collects. A
// program with writer.Options.NoTicker calls ForceFlush and then writer.Tick. 0, the default: before each tick.
func WithInterval(d time.Duration) Option { return func(o *options) { o.interval = d } }

// WithScale is the resolution of histograms, 0 to 6: see writer.Scale. Default: 2, where a value is at most 9.1 % off its
// bucket's geometric middle, and the 80 buckets that writer.Options has room for make six decades.
func WithScale(scale int) Option { return func(o *options) { o.scale = scale } }

// WithRange chooses the range of each histogram: see writer.Buckets. Default: RangeByUnit.
func WithRange(bounds func(Instrument) (low, high float64)) Option {
	return func(o *options) { o.bounds = bounds }
}

// WithScope gives every series the labels otel_scope_name and otel_scope_version, as OpenTelemetry's Prometheus
// exporter does. Without it, where two meters have instruments of the same name and attributes, the one that comes first is recorded and
// the other is counted in Stats.Conflicts.
func WithScope() Option { return func(o *options) { o.scope = true } }

// WithProducer records what p produces as well.
func WithProducer(p sdkmetric.Producer) Option {
	return func(o *options) { o.producers = append(o.producers, p) }
}

// Instrument is what WithRange knows of a histogram.
type Instrument struct{ Scope, Name, Unit string }

// RangeByUnit is 20 doublings, some six decades: 122 us to 128 s and the same for other units of time, 16 B to 16 MiB for
// bytes, 2^-10 to 2^10 for what has no unit or another one.
func RangeByUnit(i Instrument) (low, high float64) {
	switch i.Unit {
	case "s":
		return 0x1p-13, 0x1p7
	case "ms":
		return 0x1p-3, 0x1p17
	case "us":
		return 0x1p7, 0x1p27
	case "ns":
		return 0x1p17, 0x1p37
	case "By":
		return 0x1p4, 0x1p24
	}
	return 0x1p-10, 0x1p10
}
