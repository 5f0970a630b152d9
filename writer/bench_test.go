package writer

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// Each benchmark runs on a segment's file and, beside it, on its private-memory
// twin: a writer that could not have a file. The ratio of the two is what
// sharing costs; it is meant to be 1. The loops are classic ones: b.Loop keeps calls in its body
// from being inlined as an application's are.

func bothMemories(b *testing.B, f func(b *testing.B, w *Writer)) {
	for _, m := range []struct{ name, dir string }{{"shared", testStore(b)}, {"private", "/nonexistent"}} {
		b.Run(m.name, func(b *testing.B) {
			w, err := Open(Options{Job: "bench", Dir: m.dir, NoTicker: true})
			if (err != nil) != (m.name == "private") {
				b.Fatal(err)
			}
			defer w.Close()
			b.ReportAllocs()
			f(b, w)
		})
	}
}

func BenchmarkCounterAdd(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		c := w.Counter("c")
		for range b.N {
			c.Add(1)
		}
	})
}

func BenchmarkCounterAddInTurn(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		var cs [64]*Counter
		for i := range cs {
			cs[i] = w.Counter("c", Label("i", fmt.Sprint(i)))
		}
		for i := range b.N {
			cs[i&63].Add(1)
		}
	})
}

func BenchmarkCounterAddParallel(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		c := w.Counter("c")
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.Add(1)
			}
		})
	})
}

// A P beyond the lanes: the overflow lane, with atomic instructions.
func BenchmarkCounterAddOverflow(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		c := w.Counter("c")
		at := c.s.place.Load()
		for range b.N {
			at.addShared(1)
		}
	})
}

func BenchmarkFloatCounterAdd(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		c := w.FloatCounter("c")
		for range b.N {
			c.Add(1.5)
		}
	})
}

func BenchmarkGaugeSet(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		g := w.Gauge("g")
		for i := range b.N {
			g.Set(float64(i))
		}
	})
}

func BenchmarkStatRecord(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		s := w.Stat("s")
		for i := range b.N {
			s.Record(float64(i & 1023))
		}
	})
}

// samples spread a histogram's values over its range, as latencies are.
var samples = func() (s [1024]float64) {
	x := uint64(88172645463325252)
	for i := range s {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		s[i] = 0.001 * math.Exp2(10*float64(x>>11)/(1<<53))
	}
	return s
}()

func BenchmarkHistogramRecord(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		h := w.Histogram("h")
		for i := range b.N {
			h.Record(samples[i&1023])
		}
	})
}

func BenchmarkIntHistogramRecord(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		h := w.IntHistogram("h")
		for i := range uint64(b.N) {
			h.Record(i & 1023)
		}
	})
}

func ownedLane(b *testing.B, w *Writer) *Lane {
	l, err := w.Lane()
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func BenchmarkOwnedCounterAdd(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		c := ownedLane(b, w).Counter(w.Counter("c"))
		for range b.N {
			c.Add(1)
		}
	})
}

func BenchmarkOwnedHistogramRecord(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		h := ownedLane(b, w).Histogram(w.Histogram("h"))
		for i := range b.N {
			h.Record(samples[i&1023])
		}
	})
}

func BenchmarkOwnedStatRecord(b *testing.B) {
	bothMemories(b, func(b *testing.B, w *Writer) {
		s := ownedLane(b, w).Stat(w.Stat("s"))
		for i := range b.N {
			s.Record(float64(i & 1023))
		}
	})
}

// BenchmarkTick is a tick that publishes, in ns and in ns a lane-cell and a cell: DESIGN.md wants
// 0.2 x lane-cells + 0.3 x cells, on a processor of 4.35 GHz. goal is that sum, over what it took. twin is what the same memory costs
// without any rule of the format: each lane copied once, the row copied and summed up.
func BenchmarkTick(b *testing.B) {
	for _, c := range []struct {
		name  string
		lanes int
		table Table
	}{
		{"counters=1000,lanes=2", 2, Table{Counters: 1000}},
		{"counters=1000,lanes=8", 8, Table{Counters: 1000}},
		{"counters=10000,lanes=8", 8, Table{Counters: 10000}},
		{"gauges=1000,lanes=2", 2, Table{Gauges: 1000}},
		{"histograms=10,lanes=4", 4, Table{Histograms: 10}},
		{"mix=60+20+10+10,lanes=2", 2, Table{Counters: 60, Gauges: 20, Stats: 10, Histograms: 10}},
		{"mix=60+20+10+10,lanes=8", 8, Table{Counters: 60, Gauges: 20, Stats: 10, Histograms: 10}},
	} {
		b.Run(c.name, func(b *testing.B) {
			clock := newClock()
			table := c.table
			table.Name, table.Lanes = "t", c.lanes
			table.Tiers = []Tier{{time.Second, 16}}
			w := mustOpen(b, Options{Job: "bench", Instance: "i", Dir: testStore(b), NoTicker: true, Clock: clock.now, Tables: []Table{table}})
			for i := range table.Counters {
				w.Counter("c", Label("i", fmt.Sprint(i)))
			}
			for i := range table.Gauges {
				w.Gauge("g", Label("i", fmt.Sprint(i)))
			}
			for i := range table.Stats {
				w.Stat("s", Label("i", fmt.Sprint(i))).Record(1)
			}
			for i := range table.Histograms {
				w.Histogram("h", Label("i", fmt.Sprint(i)))
			}
			t := w.segments[0].tables[0]
			laneCells, cells := t.lane.used*c.lanes, t.row.used
			clock.advance(time.Second)
			w.Tick() // which orders the series
			b.ResetTimer()
			for range b.N {
				clock.advance(time.Second)
				w.Tick()
			}
			ns := float64(b.Elapsed()) / float64(b.N)
			goal := 0.2*float64(laneCells) + 0.3*float64(cells)
			b.ReportMetric(ns/goal, "x-of-goal")
			b.ReportMetric(ns/twinTick(t, c.lanes), "x-of-twin")
			b.ReportMetric(goal, "goal-ns")
		})
	}
}

// twinTick is the least of some runs, in ns.
func twinTick(t *table, lanes int) float64 {
	buf, row := make([]uint64, t.lane.used), make([]uint64, t.row.used)
	best, sum := time.Duration(math.MaxInt64), uint64(0)
	for range 50 {
		began := time.Now()
		for range 20 {
			for k := range lanes {
				copy(buf, t.seg.words[(t.d.LanesOffset+uint64(k)*uint64(t.d.LaneStride))/8:])
			}
			copy(row, t.tick.cells)
			sum += layout.Sum(0, row)
		}
		best = min(best, time.Since(began)/20)
	}
	runtime.KeepAlive(sum)
	return float64(best)
}

// What an exemplar adds to a record: one that is not taken, as most are, and one that is.
func BenchmarkHistogramExemplar(b *testing.B) {
	ex, grown := Exemplar{TraceID: [16]byte{1}, SpanID: [8]byte{2}}, 0.0
	bothMemories(b, func(b *testing.B, w *Writer) {
		for _, c := range []struct {
			name string
			f    func(b *testing.B, h *Histogram)
		}{
			{"none", func(b *testing.B, h *Histogram) {
				for i := range b.N {
					h.Record(samples[i&1023])
				}
			}},
			{"declined", func(b *testing.B, h *Histogram) {
				h.RecordExemplar(1000, ex)
				for i := range b.N {
					h.RecordExemplar(samples[i&1023], ex)
				}
			}},
			{"taken", func(b *testing.B, h *Histogram) {
				for range b.N {
					grown++
					h.RecordExemplar(grown, ex)
				}
			}},
		} {
			b.Run(c.name, func(b *testing.B) { c.f(b, w.Histogram(c.name)) })
		}
	})
}
