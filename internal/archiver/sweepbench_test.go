package archiver

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// BenchmarkSweep folds 1 s rows of 128 sources x 100 series, a third of them gauges, that lie in blocks of 64 sources x 60 rows, into 10 s.
func BenchmarkSweep(b *testing.B) {
	const sources, series, rows, blocks = 128, 100, 60, 6
	var list []*reader.Series
	for i := range series {
		s := &reader.Series{Definition: &reader.Definition{Name: fmt.Sprint("metric_", i), Kind: reader.Counter, Number: reader.U64}}
		if i%3 == 0 {
			s.Kind, s.Number = reader.Gauge, reader.F64
		}
		list = append(list, s)
	}
	schema, err := archive.NewSchema(0, "scalars", list)
	if err != nil {
		b.Fatal(err)
	}
	var took time.Duration
	samples := 0
	for b.Loop() {
		a, err := archive.Open(archive.Options{Dir: b.TempDir(), Tiers: []archive.TierOptions{{Step: time.Second, Budget: 64 << 20}, {Step: 10 * time.Second, Budget: 64 << 20}}})
		if err != nil {
			b.Fatal(err)
		}
		s := NewSweeper(SweepOptions{Archive: a})
		s.Sweep(time.UnixMilli(0)) // loaded
		for k := range blocks {
			for c := range sources / 64 {
				blk := &archive.Block{Schema: schema, Step: time.Second}
				for i := range 64 {
					n := c*64 + i
					r := archive.Rows{Source: &archive.Source{Key: archive.Key{Segment: [16]byte{byte(n), byte(n >> 8), 9}}, Birth: 1_700_000_000_000_000_000,
						Labels: []reader.Pair{{Name: "instance", Value: fmt.Sprint(n)}, {Name: "job", Value: "j"}}}, Starts: make([]int64, series)}
					for x := range rows {
						no := uint64(k*rows + x + 1)
						r.Numbers, r.Times, r.Base = append(r.Numbers, no), append(r.Times, 1_700_000_000_000+int64(no)*1000+int64(n)), no
					}
					for f := range series {
						var col []uint64
						for _, no := range r.Numbers {
							col = append(col, no*uint64(f*n)%1000+no*1000)
						}
						r.Cells = append(r.Cells, col)
					}
					blk.Sources = append(blk.Sources, r)
				}
				if err := s.Append(0, blk); err != nil {
					b.Fatal(err)
				}
			}
		}
		begin := cpu(b)
		s.Sweep(time.UnixMilli(1_700_000_000_000 + blocks*rows*1000))
		took += cpu(b) - begin
		if s.Stats().Folded != sources {
			b.Fatalf("want %d folded, got %+v", sources, s.Stats())
		}
		samples += sources * series * rows * blocks
		a.Close()
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(samples), "cpu-ns/sample")
	b.ReportMetric(0, "ns/op")
}

// cpu is what this process has used of all processors.
func cpu(b testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChurn says what a VM of 45 s with 100 series, of which a third are gauges, takes in each tier, with ephemeral sources and without, and the
// CPU time to write it and fold it twice.
func BenchmarkChurn(b *testing.B) {
	const second, perSecond, seconds, life = int64(1000), 10, 600, 45
	var list []*reader.Series
	for i := range 100 {
		s := &reader.Series{Definition: &reader.Definition{Name: fmt.Sprint("metric_", i), Kind: reader.Counter, Number: reader.U64}}
		if i%3 == 0 {
			s.Kind, s.Number = reader.Gauge, reader.F64
		}
		list = append(list, s)
	}
	schema, err := archive.NewSchema(0, "scalars", list)
	if err != nil {
		b.Fatal(err)
	}
	for _, ephemeral := range []bool{false, true} {
		b.Run(fmt.Sprint("ephemeral=", ephemeral), func(b *testing.B) {
			var took time.Duration
			var bytes [3]int64
			for b.Loop() {
				w := open(b, b.TempDir(), 64<<20)
				s := NewSweeper(SweepOptions{Archive: w, Ephemeral: ephemeral})
				m := newMeter(s)
				m.wrote = func(int, int, int64) {}
				s.Through(m, func(archive.Key) bool { return false })
				now := int64(1_700_000_000_000)
				s.Sweep(time.UnixMilli(now))
				n := 0
				for range seconds {
					blk := &archive.Block{Schema: schema, Step: time.Second}
					for range perSecond {
						n++
						r := archive.Rows{Final: true, Source: &archive.Source{Key: archive.Key{Segment: [16]byte{byte(n), byte(n >> 8), 9, byte(n * 77)}}, Birth: (now - life*second) * 1e6,
							Labels: []reader.Pair{{Name: "instance", Value: fmt.Sprintf("vm-%08x", uint32(n)*2654435761)}, {Name: "job", Value: "vm"}, {Name: "zone", Value: "a"}}}}
						for range list {
							r.Starts = append(r.Starts, now-life*second)
						}
						for x := range int64(life) {
							r.Numbers, r.Times, r.Base = append(r.Numbers, uint64(x+1)), append(r.Times, now-(life-x-1)*second+int64(n%7)-7), uint64(x+1)
						}
						for f := range list {
							var col []uint64
							v := uint64(0)
							for x := range life {
								if f%2 == 0 {
									v += uint64((n*f*x)%97) + 3
								}
								col = append(col, v)
							}
							r.Cells = append(r.Cells, col)
						}
						blk.Sources = append(blk.Sources, r)
					}
					begin := cpu(b)
					if err := m.Append(0, blk); err != nil {
						b.Fatal(err)
					}
					s.Sweep(time.UnixMilli(now))
					took += cpu(b) - begin
					now += second
				}
				begin := cpu(b)
				for range 700 {
					s.Sweep(time.UnixMilli(now))
					now += second
				}
				took += cpu(b) - begin
				for i, t := range m.stats() {
					bytes[i] = int64(t.Bytes) / int64(n)
				}
			}
			n := float64(b.N * perSecond * seconds)
			b.ReportMetric(float64(took.Microseconds())/n, "cpu-us/VM")
			b.ReportMetric(float64(bytes[0]), "B/VM-1s")
			b.ReportMetric(float64(bytes[1]), "B/VM-10s")
			b.ReportMetric(float64(bytes[2]), "B/VM-5m")
			b.ReportMetric(0, "ns/op")
		})
	}
}
