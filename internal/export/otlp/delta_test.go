package otlp

import (
	"testing"
	"time"

	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/writer"
)

// With delta temporality counters and histograms tell what came since the point before; the rest is as it is.
func TestDelta(t *testing.T) {
	r := &receiver{delta: true}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r), Delta: true}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c, f, u := wr.Counter("c"), wr.FloatCounter("f"), wr.UpDownCounter("u")
	s, h := wr.Stat("s", writer.NonNegative()), wr.Histogram("h", writer.Buckets(1, 4), writer.Scale(0))
	c.Add(1<<63 + 5)
	f.Add(0.5)
	u.Add(7)
	s.Record(2)
	h.Record(2)
	h.Record(3)
	w.Run(10 * time.Second)
	w.flush()
	c.Add(1 << 63) // it wraps
	f.Add(0.25)
	u.Add(-9)
	s.Record(8)
	h.Record(3)
	h.Record(100)
	w.Run(20 * time.Second) // two rows at once
	w.flush()
	wr.Counter("late").Add(3)
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..10 double 9.223372036854776e+18
		j/f{} "" counter 0..10 double 0.5
		j/u{} "" updown 0..10 int 7
		j/s{} "" gauge -..10 double 2
		j/s_min{} "" gauge -..10 double 2
		j/s_max{} "" gauge -..10 double 2
		j/s_sum{} "" counter 0..10 double 2
		j/s_count{} "{record}" counter 0..10 int 1
		j/h{} "" histogram 0..10 count 2 sum 5 scale 0 zero 0 <=1 0:1 1:1
		j/c{} "" counter 10..20 double 9.223372036854776e+18
		j/f{} "" counter 10..20 double 0.25
		j/u{} "" updown 0..20 int -2
		j/s{} "" gauge -..20 double 8
		j/s_min{} "" gauge -..20 double 8
		j/s_max{} "" gauge -..20 double 8
		j/s_sum{} "" counter 10..20 double 8
		j/s_count{} "{record}" counter 10..20 int 1
		j/h{} "" histogram 10..20 count 2 sum 103 scale 0 zero 0 <=1 1:1 2:1
		j/c{} "" counter 20..30 int 0
		j/f{} "" counter 20..30 double 0
		j/u{} "" updown 0..30 int -2
		j/s{} "" gauge -..30 double 8
		j/s_sum{} "" counter 20..30 double 0
		j/s_count{} "{record}" counter 20..30 int 0
		j/h{} "" histogram 20..30 count 0 sum 0 scale 0 zero 0 <=1
		j/c{} "" counter 30..40 int 0
		j/f{} "" counter 30..40 double 0
		j/u{} "" updown 0..40 int -2
		j/s{} "" gauge -..40 double 8
		j/s_sum{} "" counter 30..40 double 0
		j/s_count{} "{record}" counter 30..40 int 0
		j/h{} "" histogram 30..40 count 0 sum 0 scale 0 zero 0 <=1
		j/late{} "" counter 30..40 int 3
	`)
	if len(r.all) == 0 || temporality(r.all[0].ResourceMetrics[0].ScopeMetrics[0].Metrics[0]) != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
		t.Error("want delta said")
	}
}

func temporality(m *metrics.Metric) metrics.AggregationTemporality {
	return m.GetSum().GetAggregationTemporality()
}

// Positions in memory: after a restart delta goes on from what is there, and what was recorded before is left out, not counted twice.
func TestDeltaWithoutPositions(t *testing.T) {
	r := &receiver{delta: true}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r), Delta: true}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c := wr.Counter("c")
	for i := range 4 {
		if i == 2 {
			w.e.Close()
			w.open(t)
		}
		c.Add(uint64(1) << (4 * i))
		w.Run(10 * time.Second)
		w.flush()
	}
	wr.Counter("late").Add(5)
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..10 int 1
		j/c{} "" counter 10..20 int 16
		j/c{} "" counter 20..30 int 256
		j/c{} "" counter 30..40 int 4096
		j/c{} "" counter 40..50 int 0
		j/late{} "" counter 40..50 int 5
	`)
	if n := w.e.Stats().Lost[export.LostNoBase]; n != 2 {
		t.Errorf("want two rows left out, got %d", n)
	}
}
