package promshm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

const traceID = "0102030405060708090a0b0c0d0e0f10"

func (b *bench) exemplars() (all []*reader.Exemplar) {
	b.t.Helper()
	for x := range b.store.Segments()[0].Exemplars(0) {
		all = append(all, x)
	}
	return all
}

// What a registry has of counters and histograms, native and classic, is offered once.
func TestExemplars(t *testing.T) {
	b := newBench(t, writer.Options{})
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "c"})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native", NativeHistogramBucketFactor: 1.1})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "classic", Buckets: []float64{1, 10}})
	b.reg.MustRegister(c, native, classic)
	began := time.Now()
	ids := prometheus.Labels{"trace_id": traceID, "span_id": "1112131415161718"}
	c.(prometheus.ExemplarAdder).AddWithExemplar(2.5, ids)
	native.(prometheus.ExemplarObserver).ObserveWithExemplar(0.25, ids)
	classic.(prometheus.ExemplarObserver).ObserveWithExemplar(5, ids)
	classic.(prometheus.ExemplarObserver).ObserveWithExemplar(50, prometheus.Labels{"traceID": "00000000000000ff"}) // of 64 bits
	for range 3 {
		b.step()
	}
	got := map[string]string{}
	for _, x := range b.exemplars() {
		name := x.Series.Name
		for _, l := range x.Series.Labels {
			name += "{" + l.Name + "=" + l.Value + "}"
		}
		if got[name] != "" {
			t.Errorf("%s: two exemplars", name)
		}
		got[name] = fmt.Sprintf("%g %x %x", x.Value, x.TraceID, x.SpanID)
		if at := time.Unix(0, x.Time); at.Before(began.Add(-time.Second)) || at.After(time.Now()) {
			t.Errorf("%s: want the time of the observation, got %v", name, at)
		}
	}
	want := map[string]string{"c": "2.5 " + traceID + " 1112131415161718", "native": "0.25 " + traceID + " 1112131415161718",
		"classic_bucket{le=10}": "5 " + traceID + " 1112131415161718", "classic_bucket{le=+Inf}": "50 000000000000000000000000000000ff 0000000000000000"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("want %v, got %v", want, got)
	}
	native.(prometheus.ExemplarObserver).ObserveWithExemplar(0.5, ids)
	b.step()
	if n := len(b.exemplars()); n != 5 {
		t.Errorf("want a fifth, got %d", n)
	}
	// No trace, or none that is one: counted, once.
	for _, id := range []string{"", "xyz", traceID + "00", "0g"} {
		c.(prometheus.ExemplarAdder).AddWithExemplar(1, prometheus.Labels{"trace_id": id})
		b.step()
		b.step()
	}
	if s := b.b.Stats(); s.Untraced != 4 || len(b.exemplars()) != 5 {
		t.Errorf("want 4 without a trace, got %+v and %d exemplars", s, len(b.exemplars()))
	}
}
