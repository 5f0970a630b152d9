package writer

import (
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// Every kind, recorded once or twice, published and read back from the file.
func TestEveryKind(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	w.Counter("c", Label("method", "GET"), Unit("1"), Help("a counter")).Add(41)
	w.Counter("c", Label("method", "GET")).Inc()
	w.FloatCounter("fc").Add(1.5)
	w.UpDownCounter("ud").Add(-3)
	w.Gauge("g").Set(2.25)
	w.Gauge("unset")
	w.IntGauge("ig").Set(-7)
	s := w.Stat("s")
	s.Record(3)
	s.Record(-1)
	h := w.Histogram("h", Buckets(0.001, 1))
	for _, v := range []float64{-1, 0, 0.0005, 0.01, 0.5, 7} {
		h.Record(v)
	}
	ih := w.IntHistogram("ih")
	ih.Record(1)
	ih.Record(1000)
	clock.advance(10 * time.Second)
	w.Tick()

	files := segmentFiles(t, o.Dir)
	if len(files) != 1 {
		t.Fatalf("want one segment, got %v", files)
	}
	m := load(t, files[0])
	equal(t, "counter", m.value("c{GET}"), 42)
	equal(t, "unit", m.find("c{GET}").Unit, "1")
	equal(t, "help", m.find("c{GET}").Help, "a counter")
	equal(t, "float counter", m.float("fc"), 1.5)
	equal(t, "updown", int64(m.value("ud")), -3)
	equal(t, "gauge", m.float("g"), 2.25)
	equal(t, "unset gauge", m.value("unset"), layout.UnsetF64)
	equal(t, "int gauge", int64(m.value("ig")), -7)
	f := math.Float64frombits
	si := m.find("s")
	cells := m.last(si, 0).of(t, si)
	equal(t, "stat count", cells[layout.StatCount], 2)
	equal(t, "stat sum", f(cells[layout.StatSum]), 2)
	equal(t, "stat last", f(cells[layout.StatLast]), -1)
	equal(t, "stat min", f(cells[layout.StatMin]), -1)
	equal(t, "stat max", f(cells[layout.StatMax]), 3)
	hi := m.find("h")
	cells = m.last(hi, 0).of(t, hi)
	equal(t, "histogram buckets", hi.Buckets, 80)
	equal(t, "histogram sum", f(cells[layout.HistSum]), 7.5105)
	equal(t, "histogram zero", cells[layout.HistZero], 2)
	equal(t, "histogram above", cells[len(cells)-1], 1)
	equal(t, "histogram count", histogramCount(cells), 5)
	equal(t, "rejected", m.control().RejectedRecords, 1)
	for _, v := range []float64{0.01, 0.5} {
		equal(t, "bucket", cells[layout.HistBuckets+layout.BucketIndex(3, v)-int(hi.BucketMin)], 1)
	}
	ihi := m.find("ih")
	cells = m.last(ihi, 0).of(t, ihi)
	equal(t, "int histogram sum", cells[layout.HistSum], 1001)
	equal(t, "int histogram count", histogramCount(cells), 2)
	equal(t, "int histogram zero", cells[layout.HistZero], 0)

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m = load(t, files[0])
	equal(t, "state", m.control().State, layout.StateClosed)
	final := m.last(m.find("h"), 0)
	equal(t, "final flag", final.Flags, layout.RowFinal)
	s.Record(1) // goes nowhere
	w.Counter("later").Inc()
	w.Tick()
	if w.Err() == nil || w.Stats().DroppedSeries != 1 {
		t.Errorf("want a registration after Close to be an error and counted, got %v, %d", w.Err(), w.Stats().DroppedSeries)
	}
}
