package archiver

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// fileSegment is a Segment of one file.
type fileSegment struct{ *reader.Segment }

func (s fileSegment) Take(table, tier int, begin func([]*reader.Series, uint64, uint32) (uint64, bool), yield func(*reader.Row) bool) bool {
	if from, ok := begin(s.Series(), s.Head(table, tier), s.Epoch()); ok {
		s.Rows(table, tier, from)(yield)
	}
	return true
}

// Rows that the base ring lost come from the coarser rings, those of the finer one where it still has them: each once, in their order, also
// after a restart in between, and what follows is folded behind them. Totals are those of the writer.
func TestCoarserRings(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-copies-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const start, mono = int64(1_700_000_100_000_000_000), int64(1e12)
	now := start
	w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: dir, NoTicker: true, NewID: func() [16]byte { return [16]byte{15: 9} },
		Clock:  func() (int64, int64) { return now, now - start + mono },
		Tables: []writer.Table{{Name: "t", Scalars: 4, Stats: 1, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 50}, {Step: 5 * time.Second, Rows: 40}, {Step: time.Minute, Rows: 60}}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c, g, st := w.Counter("c"), w.Gauge("g"), w.Stat("s")
	tick := func(n int) {
		for range n {
			now += 1e9
			c.Add(1)
			g.Set(float64((now - start) / 1e9))
			st.Record(float64((now - start) / 1e9))
			w.Tick()
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one segment, got %v, %v", files, err)
	}
	seg, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	mem := archivetest.New(sweepSteps...)
	s := NewSweeper(SweepOptions{Archive: mem})
	restart := func() { s = NewSweeper(SweepOptions{Archive: mem}) }
	s.Sweep(time.Unix(0, now))

	src := &archive.Source{Key: archive.Key{Segment: [16]byte{15: 9}}, Birth: start, UID: os.Geteuid(), Labels: []reader.Pair{{Name: "instance", Value: "i"}, {Name: "job", Value: "j"}}}
	var schema *archive.Schema
	put := func(from uint64) uint64 { // writes the base rows that the ring has, from one on
		t.Helper()
		if err := seg.Refresh(); err != nil {
			t.Fatal(err)
		}
		cp := &copies{m: Missing{Segment: fileSegment{seg}, Source: src, From: from, To: math.MaxUint64}, to: math.MaxUint64}
		cp.gather() // of tier 0
		if schema == nil {
			if schema, err = archive.NewSchema(0, "t", cp.series); err != nil {
				t.Fatal(err)
			}
		}
		r := cp.rows
		r.Source, r.Coverage, r.Starts = src, nil, make([]int64, len(cp.series))
		if err := s.Append(0, &archive.Block{Schema: schema, Step: time.Second, Sources: []archive.Rows{r}}); err != nil {
			t.Fatal(err)
		}
		return r.Base
	}
	rows := func(tier int) []foldedRow {
		return (&swept{t: t, mem: mem}).read(src.Key, tier)
	}

	tick(45)
	last := put(1)
	tick(500) // the daemon is away
	if err := seg.Refresh(); err != nil {
		t.Fatal(err)
	}
	m := Missing{Segment: fileSegment{seg}, Source: src, From: last + 1, To: seg.Head(0, 0) - 50}
	s.Missing(m)
	if s.Stats().Copied == 0 || s.Stats().Failed > 0 {
		t.Errorf("want rows copied and no failure, got %+v", s.Stats())
	}
	once := [][]foldedRow{rows(1), rows(2)}
	restart() // killed before what follows was written
	s.Missing(m)
	if again := [][]foldedRow{rows(1), rows(2)}; !slices.Equal(once[0], again[0]) || !slices.Equal(once[1], again[1]) {
		t.Fatalf("want nothing twice, got\n%v\nafter\n%v", again, once)
	}
	s.Sweep(time.Unix(0, now))
	last = put(m.To + 1)
	tick(40)
	put(last + 1)
	for range 4 {
		now += 3600e9
		s.Sweep(time.Unix(0, now))
	}
	if s.Stats().Failed > 0 {
		t.Errorf("want no failure, got %+v", s.Stats())
	}
	for tier := 1; tier <= 2; tier++ {
		var before foldedRow
		covered, copied := uint64(0), 0
		for i, r := range rows(tier) {
			if i > 0 && (r.ms <= before.ms || r.no < before.no || r.value < before.value) {
				t.Errorf("tier %d: want rows that rise, got %+v behind %+v", tier, r, before)
			}
			// A second's row has the second's number as the counter's value, so a folded row's value is that of its time.
			if want := uint64(r.ms - start/1e6); r.value*1000 != want {
				t.Errorf("tier %d: want the value of second %d, got %d", tier, want/1000, r.value)
			}
			if r.copied {
				copied++
			}
			covered += r.coverage
			before = r
		}
		if copied == 0 {
			t.Errorf("tier %d: want copies that say so, got none", tier)
		}
		// Of 585 rows, what no ring has is missing, and the few that a ring tells of only together with some that a finer one has.
		if least := []uint64{0, 45 + 150 + 90 - 5, 585 - 60}[tier]; covered > 585 || covered < least || before.value != 585 {
			t.Errorf("tier %d: want about all rows covered, none twice, got %d", tier, covered)
		}
	}
	// Gauges of copied rows are one value each; extremes of a stat are the ring's, over all of the window.
	found, err := mem.Find(src.Segment)
	if err != nil || len(found) != 1 {
		t.Fatal(len(found), err)
	}
	inc := found[0]
	for chunk, err := range mem.Read(inc, 0, 1, math.MinInt64, math.MaxInt64, fold.Columns(inc.Series, true)) {
		if err != nil {
			t.Fatal(err)
		}
		if !chunk.Copied {
			continue
		}
		got := map[string]uint64{}
		for i, col := range fold.Columns(inc.Series, true) {
			got[fmt.Sprint(col.Series.Name, col.Field)] = chunk.Cells[i][1]
		}
		if n := got[fmt.Sprint("g", archive.Count)]; n != 2 { // two rows of 5 s in one of 10 s
			t.Errorf("want a gauge of 2 values, got %d", n)
		}
		low, high := math.Float64frombits(got[fmt.Sprint("s", archive.Min)]), math.Float64frombits(got[fmt.Sprint("s", archive.Max)])
		if sec := float64(chunk.Times[1]-start/1e6) / 1000; high != sec || low != sec-9 {
			t.Errorf("want a stat from %g to %g, got %g to %g", sec-9, sec, low, high)
		}
	}
}
