package export_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
)

// sink is an Encoder that looks at every value, and a receiver that takes everything.
type sink struct{ n, all int }

func (s *sink) Add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	for i := range src.Series {
		if src.Series[i].Table != row.Table {
			continue
		}
		if v, ok := row.Value(i); ok && !v.Unset {
			src.Seen.Set(i)
			s.n++
		}
	}
	return at, true
}

func (s *sink) End(*export.Source, *export.Row, export.Cursor) (export.Cursor, bool) {
	return export.Cursor{}, true
}
func (s *sink) Full() bool  { return s.n >= 50_000 }
func (s *sink) Points() int { return s.n }
func (s *sink) Reset()      { s.n = 0 }
func (s *sink) Send(context.Context) export.Result {
	s.all += s.n
	return export.Result{Taken: s.n}
}

// What it costs to send an hour out of the archive: 40 sources of 63 series.
func BenchmarkCatchUp(b *testing.B) {
	s := newStage(b, three(400, 400, 40)...)
	for i := range 40 {
		l := s.born("i" + string(rune('a'+i%26)) + string(rune('a'+i/26)))
		for k := range 60 {
			l.Counter("requests_" + string(rune('a'+k%26)) + string(rune('a'+k/26))).Add(uint64(i * k))
		}
	}
	s.run(time.Second)
	path := filepath.Join(b.TempDir(), "positions")
	flush := func(k *sink) time.Duration {
		e, err := export.New(export.Options{Name: "bench", Archive: s.archive, Positions: path, Now: s.clock, CatchUpRate: 1 << 40}, k, s.segments)
		if err != nil {
			b.Fatal(err)
		}
		defer e.Close()
		began := time.Now()
		if err := e.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	flush(&sink{})
	for b.Loop() {
		b.StopTimer()
		s.run(time.Hour)
		k := &sink{}
		b.StartTimer()
		took := flush(k)
		b.ReportMetric(float64(k.all), "points")
		b.ReportMetric(float64(took.Nanoseconds())/float64(max(k.all, 1)), "ns/point")
	}
}
