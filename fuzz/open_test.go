package fuzz

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// seeds are the images of spec/vectors, and a segment built here.
func seeds(f *testing.F) (images [][]byte) {
	f.Helper()
	files, err := filepath.Glob("../spec/vectors/*.shmts")
	if err != nil || len(files) == 0 {
		f.Fatalf("want images in ../spec/vectors, got %d (%v)", len(files), err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, b)
	}
	s := segtest.New(f, segtest.Options{Exemplars: 4})
	c := s.Series(f, 0, "c", layout.Counter, layout.U64, layout.BucketRange{})
	for n := uint64(1); n <= 10; n++ {
		s.Publish(0, 0, n, []uint64{n, 2 * n, 3 * n})
		s.Exemplar(c, float64(n), int64(n), byte(n))
	}
	return append(images, s.Bytes())
}

// mend makes size and checksum of an image right, so that what lies behind them is looked at.
func mend(b []byte) []byte {
	size := max((len(b)+4095)/4096*4096, 4096)
	w := make([]uint64, size/8)
	copy(layout.Bytes(w), b)
	sb := layout.View[layout.Superblock](w, 0)
	sb.Magic, sb.Major, sb.Incompat, sb.TotalSize = layout.Magic, layout.Major, 0, uint64(size)
	sb.HeaderSize = min(max(sb.HeaderSize/64*64, layout.SuperblockSize), min(uint32(size), layout.MaxHeaderSize))
	sb.Checksum = 0
	sb.Checksum = layout.Sum(0x53, w[:sb.HeaderSize/8])
	return layout.Bytes(w)
}

// FuzzOpen opens arbitrary bytes as a segment. An error means no segment; Check says the same; what opens can be read, all of
// it, in memory that the file's size bounds.
func FuzzOpen(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, false)
		f.Add(b, true)
	}
	fd, err := unix.MemfdCreate("fuzz.shmts", unix.MFD_CLOEXEC) // goes with its process, however that ends
	if err != nil {
		f.Fatal(err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		if len(b) > 1<<20 {
			return
		}
		if whole {
			b = mend(b)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		g, err := reader.OpenSegment(path)
		if (g == nil) != (err != nil) {
			t.Fatalf("want a segment or an error, got %v and %v", g, err)
		}
		found := reader.Check(path)
		if err != nil {
			if len(found) != 1 || found[0].Error() != err.Error() {
				t.Fatalf("open says %v, check %v", err, found)
			}
			return
		}
		defer g.Close()
		readAll(t, g)
		runtime.ReadMemStats(&after)
		// A ring's rows are read several times over, and a histogram's buckets copied, but nothing is sized by a number
		// that the file claims.
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<20+64*len(b)); used > most {
			t.Fatalf("a file of %d bytes: want at most %d bytes allocated, got %d", len(b), most, used)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
			t.Fatal("the reader wrote")
		}
	})
}

func readAll(t *testing.T, g *reader.Segment) {
	series := g.Series()
	for _, s := range series {
		if s.Name == "" || len(s.Labels) > layout.MaxPairs || s.Table >= len(g.Tables()) {
			t.Fatalf("a series that breaks the rules: %+v", s)
		}
	}
	for table, tt := range g.Tables() {
		for tier, r := range tt.Tiers {
			n, last := 0, uint64(0)
			for row := range g.Rows(table, tier, 0) {
				if row.No <= last {
					t.Fatalf("row %d after row %d", row.No, last)
				}
				n, last = n+1, row.No
				for _, s := range series[:min(len(series), 100)] {
					row.Value(s)
				}
			}
			if n > r.Rows+1 || last > g.Head(table, tier) {
				t.Fatalf("table %d, tier %d: want at most %d rows up to %d, got %d up to %d", table, tier, r.Rows+1, g.Head(table, tier), n, last)
			}
		}
		if row, err := g.Live(table); (row == nil) != (err != nil) {
			t.Fatalf("live: want a row or an error, got %v and %v", row, err)
		}
	}
	last := uint64(0)
	for x := range g.Exemplars(0) {
		if x.Number <= last || x.Number > g.ExemplarHead() || x.Series == nil || x.TraceID == [16]byte{} {
			t.Fatalf("exemplar %d behind %d of %d: %+v", x.Number, last, g.ExemplarHead(), x)
		}
		last = x.Number
	}
	for _, s := range series[:min(len(series), 10)] {
		if d, err := g.Delta(s, 10e9); err == nil {
			d.PerSecond()
			d.Quantile(0.9)
		}
	}
}
