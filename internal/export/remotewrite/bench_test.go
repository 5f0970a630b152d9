package remotewrite

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

// What a sample takes from a segment's ring to a receiver that forgets it.
func BenchmarkFlush(b *testing.B) {
	for _, message := range []string{MessageV2, MessageV1} {
		b.Run(message, func(b *testing.B) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1000000000")
			}))
			defer s.Close()
			w := newWorld(b, Options{Message: message}, s.URL)
			for i := range 50 {
				wr := w.Writer(writer.Options{Job: "fleet", Instance: fmt.Sprint(i)})
				for n := range 60 {
					wr.Counter(fmt.Sprintf("c%02d_total", n), writer.Label("queue", fmt.Sprint(n%8))).Add(uint64(n))
				}
				for n := range 20 {
					wr.Gauge(fmt.Sprintf("g%02d", n)).Set(float64(n) / 7)
				}
				for n := range 10 {
					wr.Stat(fmt.Sprintf("s%02d", n)).Record(float64(n))
					h := wr.Histogram(fmt.Sprintf("h%02d_seconds", n), writer.Buckets(0.001, 1), writer.Unit("s"))
					for k := range 40 {
						h.Record(0.001 * float64(k*k))
					}
				}
			}
			w.Run(10 * time.Second)
			w.flush()
			before := w.e.Stats()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				w.Run(10 * time.Second)
				b.StartTimer()
				w.flush()
			}
			after := w.e.Stats()
			n := float64(after.Points - before.Points)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/sample")
			b.ReportMetric(float64(after.Bytes-before.Bytes)/n, "B/sample")
		})
	}
}
