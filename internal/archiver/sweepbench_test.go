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
		s := &reader.Series{Name: fmt.Sprint("metric_", i), Kind: reader.Counter, Number: reader.U64}
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
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
