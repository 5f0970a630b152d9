package otlp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

// Exemplars go with the next row of their series' table, each once, whatever the batch, and also by an exporter that comes later.
func TestExemplars(t *testing.T) {
	for _, batch := range []int{0, 1} {
		r := &receiver{}
		w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r), BatchPoints: batch}})
		positions := t.TempDir() + "/positions"
		w.positions = positions
		w.open(t)
		wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
		c, h := wr.Counter("c"), wr.Histogram("h", writer.Buckets(1, 4), writer.Scale(0))
		ex := func(n byte, span bool) writer.Exemplar {
			x := writer.Exemplar{TraceID: [16]byte{n, 15: 1}, Time: time.Unix(0, epoch+int64(w.Now)+1)}
			if span {
				x.SpanID = [8]byte{n}
			}
			return x
		}
		c.AddExemplar(3, ex(1, true))
		h.RecordExemplar(2, ex(2, false))
		w.Run(10 * time.Second)
		c.AddExemplar(4, ex(3, true)) // of the row to come
		w.flush()
		w.Run(10 * time.Second)
		w.flush()
		h.RecordExemplar(3, ex(4, true))
		w.Run(10 * time.Second)
		w.e.Close()
		w.open(t)
		w.flush()
		w.flush()
		got := r.exemplars()
		slices.Sort(got)
		want := []string{"c@10 3 @0 01/01", "c@20 4 @10 03/03", "h@10 2 @0 02/-", "h@30 3 @20 04/04"}
		if !slices.Equal(got, want) {
			t.Errorf("batches of %d: want\n\t%s\ngot\n\t%s", batch, strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
		}
	}
}

// exemplars are those that came: metric, the point's time, value, time, beginnings of the trace's and the span's id.
func (r *receiver) exemplars() (out []string) {
	for _, m := range r.all {
		for _, rm := range m.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				for _, m := range sm.Metrics {
					for _, p := range m.GetSum().GetDataPoints() {
						for _, x := range p.Exemplars {
							out = append(out, text(m.Name, p.TimeUnixNano, x.GetAsDouble(), x.TimeUnixNano, x.TraceId, x.SpanId))
						}
					}
					for _, p := range m.GetExponentialHistogram().GetDataPoints() {
						for _, x := range p.Exemplars {
							out = append(out, text(m.Name, p.TimeUnixNano, x.GetAsDouble(), x.TimeUnixNano, x.TraceId, x.SpanId))
						}
					}
				}
			}
		}
	}
	return out
}

func text(name string, at uint64, v float64, t uint64, trace, span []byte) string {
	s := "-"
	if len(span) == 8 {
		s = fmt.Sprintf("%02x", span[0])
	}
	return fmt.Sprintf("%s@%s %v @%s %02x/%s", name, since(at), v, since(t), trace[0], s)
}
