package archiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/writer"
)

// nowhere is an archive that keeps nothing: what is measured is the way from the ring to columns.
type nowhere struct{ *archivetest.Memory }

func (nowhere) Append(int, ...*archive.Block) error           { return nil }
func (nowhere) Find([16]byte) ([]*archive.Incarnation, error) { return nil, nil }

// BenchmarkFlush writes rows of 64 writers with 100 counters and gauges each, half a ring of 120 at a time, and says what a
// sample costs: read with pread, proven, transposed; and, where the archive is a real one, encoded and written.
func BenchmarkFlush(b *testing.B) {
	for _, c := range []struct {
		name string
		open func(testing.TB) archive.Writer
	}{
		{"nowhere", func(testing.TB) archive.Writer { return nowhere{archivetest.New(time.Second)} }},
		{"disk", func(tb testing.TB) archive.Writer { return open(tb, tb.TempDir(), 64<<20) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, Options{Archive: c.open(b)})
			for i := range 64 {
				wr, err := writer.Open(writer.Options{Job: "j", Instance: fmt.Sprint(i), Dir: w.dir, NoTicker: true, Histograms: -1, Stats: -1, Series: 100,
					Clock: func() (int64, int64) { now := w.clock.Load(); return now, now - w.started + 1e12 }})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { wr.Close() })
				k := &ticking{w: wr}
				for j := range 80 {
					k.counters = append(k.counters, wr.Counter(fmt.Sprint("c", j)))
				}
				for j := range 19 {
					wr.Gauge(fmt.Sprint("g", j)).Set(float64(i*j) / 8)
				}
				k.gauge, k.stat, k.hist = wr.IntGauge("none"), nil, nil
				w.writers = append(w.writers, k)
			}
			w.bench = true
			w.step(130)
			before := w.a.Stats().Tiers[0]
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for w.unflushed() < 59 {
					w.tick(1)
					if err := w.r.Poll(); err != nil {
						b.Fatal(err)
					}
					for _, st := range w.a.states {
						for _, t := range st.tables {
							t.head = st.seg.Head(t.n, 0)
						}
					}
				}
				w.tick(1)
				if err := w.r.Poll(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				w.a.Poll()
			}
			b.StopTimer()
			after := w.a.Stats().Tiers[0]
			if n := after.Samples - before.Samples; n > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/sample")
				b.ReportMetric(float64(after.Bytes-before.Bytes)/float64(n), "B/sample")
				b.ReportMetric(float64(n)/float64(after.Blocks-before.Blocks), "samples/block")
			}
		})
	}
}

// open opens a real archive of one tier for each of the default steps.
func open(t testing.TB, dir string, budget int64) archive.Writer {
	t.Helper()
	w, err := archive.Open(archive.Options{Dir: dir, Tiers: []archive.TierOptions{{Step: time.Second, Budget: budget}, {Step: 10 * time.Second, Budget: budget}, {Step: 5 * time.Minute, Budget: budget}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// BenchmarkPoll looks at 1,000 segments with 100 series each, of which nothing is due; and, as a new process, finds where each of
// them is in the archive.
func BenchmarkPoll(b *testing.B) {
	w := newWorld(b, Options{Archive: open(b, b.TempDir(), 64<<20)})
	w.bench = true
	tables := []writer.Table{{Name: "t", Tiers: []writer.Tier{{Step: time.Second, Rows: 20}}, Counters: 100}}
	for i := range 1000 {
		wr, err := writer.Open(writer.Options{Job: "j", Instance: fmt.Sprint(i), Dir: w.dir, NoTicker: true, Tables: tables, Series: 100,
			Clock: func() (int64, int64) { now := w.clock.Load(); return now, now - w.started + 1e12 }})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { wr.Close() })
		k := &ticking{w: wr}
		for j := range 100 {
			k.counters = append(k.counters, wr.Counter(fmt.Sprint("c", j)))
		}
		w.writers = append(w.writers, k)
	}
	w.step(31)
	b.Run("nothing due", func(b *testing.B) {
		for range b.N {
			w.a.Poll()
		}
	})
	b.Run("restart", func(b *testing.B) {
		for range b.N {
			w.restart()
			w.a.Poll()
		}
	})
}
