// Package promshm records what a client_golang registry gathers into a segment of shared memory. A
// service that is instrumented already adds one line:
//
//	defer promshm.Start(w, prometheus.DefaultGatherer).Stop()
//
// Its scrape endpoint, if it has one, goes on as before. What becomes of what a registry has:
//
//	counter                  counter, f64
//	gauge, untyped           gauge, f64
//	native histogram         histogram, f64
//	classic histogram        counters <name>_count, <name>_sum and <name>_bucket{le}, cumulative over le as in an exposition
//	summary                  counters <name>_count and <name>_sum, gauges <name>{quantile}
//	gauge histogram          nothing: Stats.Unsupported
//
// Names, help and labels stay as they are, units become UCUM's; a histogram that is native and classic is recorded as the
// native one. A _sum that falls, as negative observations make it, is a gauge from then on. An observation of NaN is in no
// bucket, and a sum that is NaN or infinite is not brought. Exemplars with a label trace_id (or traceID; and span_id, spanID) of hexadecimal
// digits are offered to the series, oldest first and each once; of a classic histogram, to the bucket. A series that is no longer gathered is
// retired, and is another one when it comes back.
//
// # What is exact
//
// Values are what Gather said, to the bit. A counter that falls, or whose created timestamp moves, began again: what it
// held before stays in the series, and what it says now is added. The first value of a series counts from 0 at the series'
// birth, its first gathering, also where a counter is older than that, as process_cpu_seconds_total is.
//
// A native histogram of schema s has buckets of scale s in FORMAT.md 9, their indices one less. A series' buckets are fixed: see WithScale and
// WithRange. Where the schema is higher than the series' scale, 2^n of its buckets are one of ours, exactly. Where
// it is lower at the beginning, the series takes it; where it falls later, as NativeHistogramMaxBucketNumber makes it, the series
// is retired and goes on as a new one of that scale, from 0, whose first row holds what came since: Stats.Rescaled. Below schema 0 nothing
// is kept, nor of histograms of negative values or of float counts: Stats.Unsupported. A zero threshold that
// client_golang widens moves buckets into the zero bucket, here only for what comes after: Stats.Coarse counts
// the points whose zero bucket is wider than ours.
//
// # What a kill loses
//
// The registry's values are in process memory until they are gathered: a SIGKILL loses up to one step of them. Stop gathers
// once more; call it before the writer is closed.
package promshm

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/internal/bridge"
)

// Bridge records what a registry gathers. Its methods may be called from any goroutine.
type Bridge struct {
	g       prometheus.Gatherer
	options options

	mu      sync.Mutex // gatherings
	set     *bridge.Set[string]
	key     []byte
	hist    bridge.Histogram
	old     bridge.Classic
	traced  []bridge.Exemplar
	stopped bool

	loop bridge.Loop
}

// Stats counts what could not be recorded as it was, and why.
type Stats = bridge.Stats

// Stats answers what was counted since Start.
func (b *Bridge) Stats() Stats { return b.set.Stats() }

// Err is the first thing that could not be recorded as it was, nil if there is none.
func (b *Bridge) Err() error { return b.set.Err() }

// Start records what g gathers into w. Unless WithInterval says otherwise, it has a goroutine that
// gathers shortly before each step of w's tables ends, until Stop or until w is closed. Every series needs
// room in w: see writer.Options.Series, Histograms and Buckets.
func Start(w *writer.Writer, g prometheus.Gatherer, opts ...Option) *Bridge {
	b := &Bridge{g: g, set: bridge.New[string](w), options: options{scale: 2, bounds: RangeByName}}
	for _, opt := range opts {
		opt(&b.options)
	}
	b.options.scale = min(max(b.options.scale, 0), 6)
	b.loop.Start(w, b.options.interval, func(context.Context) {
		_ = b.Gather() // there is nobody to tell, and the registry's scrape endpoint says the same
	})
	return b
}

// Gather gathers once, and records. An error is the Gatherer's: what it brought is recorded all the same, and nothing is retired
// then. After Stop it does nothing.
func (b *Bridge) Gather() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gather()
}

func (b *Bridge) gather() error {
	if b.stopped {
		return errors.New("shmts: promshm: want a bridge that runs, got one that was stopped")
	}
	families, err := b.g.Gather()
	b.set.Begin()
	for _, f := range families {
		for _, m := range f.GetMetric() {
			b.metric(f, m)
		}
	}
	b.set.End(err == nil)
	return err
}

// Stop gathers and records once more, and stops the goroutine; it waits for a gathering that runs. Series stay as they are: it is the writer's Close, after
// this, that ends them. A second Stop does nothing.
func (b *Bridge) Stop() {
	_ = b.loop.Stop(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		_ = b.gather()
		b.stopped = true
	}
}

// Option of Start.
type Option func(*options)

type options struct {
	interval time.Duration
	scale    int
	bounds   func(name, unit string) (low, high float64)
}

// WithInterval gathers at that interval, whenever the writer ticks. Less than 0: only Gather does. A program
// with writer.Options.NoTicker calls Gather and then writer.Tick. 0, the default: before each tick.
func WithInterval(d time.Duration) Option { return func(o *options) { o.interval = d } }

// WithScale is the resolution of native histograms, 0 to 6: see writer.Scale. Default: 2, where a value is at most 9.1 % off
// its bucket's geometric middle, and the 80 buckets that writer.Options has room for make six decades.
func WithScale(scale int) Option { return func(o *options) { o.scale = scale } }

// WithRange chooses the range of each native histogram: see writer.Buckets. Default: RangeByName.
func WithRange(bounds func(name, unit string) (low, high float64)) Option {
	return func(o *options) { o.bounds = bounds }
}

// RangeByName is 20 doublings, some six decades: 122 us to 128 s for names that end in _seconds, 16 B to 16 MiB for
// _bytes, 2^-10 to 2^10 for others.
func RangeByName(name, unit string) (low, high float64) {
	switch {
	case unit == "seconds" || strings.HasSuffix(name, "_seconds"):
		return 0x1p-13, 0x1p7
	case unit == "bytes" || strings.HasSuffix(name, "_bytes"):
		return 0x1p4, 0x1p24
	}
	return 0x1p-10, 0x1p10
}

// keyOf is a series of the registry's: its name and labels, which it holds in one order.
func (b *Bridge) keyOf(f *dto.MetricFamily, m *dto.Metric) string {
	b.key = append(b.key[:0], f.GetName()...)
	for _, l := range m.GetLabel() {
		b.key = append(append(b.key, 0xff), l.GetName()...) // in no UTF-8
		b.key = append(append(b.key, 0xff), l.GetValue()...)
	}
	return string(b.key)
}

func describe(f *dto.MetricFamily, m *dto.Metric) func() bridge.Series {
	return func() bridge.Series {
		s := bridge.Series{Name: f.GetName(), Unit: ucum(f.GetUnit()), Help: f.GetHelp()}
		for _, l := range m.GetLabel() {
			s.Labels = append(s.Labels, l.GetName(), l.GetValue())
		}
		return s
	}
}
