package writer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// A full table grows into further segments of the same incarnation, four in all; then come
// sinks, counted. Handles that are held go on.
func TestGrowth(t *testing.T) {
	o, clock := testOptions(t)
	o.Descriptors = 8
	o.Tables = []Table{{Name: "t", Scalars: 4, Histograms: 1, Buckets: 16, Tiers: []Tier{{time.Second, 4}}}}
	w := mustOpen(t, o)
	var cs []*Counter
	for i := range 18 * 4 {
		c := w.Counter("c", Label("i", fmt.Sprint(i)))
		c.Add(uint64(i + 1))
		cs = append(cs, c)
	}
	s := w.Stats()
	equal(t, "segments", s.Segments, 4)
	equal(t, "series", s.Series, 4*8) // by descriptors
	equal(t, "dropped", s.DroppedSeries, 72-32)
	equal(t, "bytes", s.Bytes, 4*int64(w.segments[0].hdr.TotalSize))
	if w.Err() == nil || !strings.Contains(w.Err().Error(), "at most 4 segments") {
		t.Errorf("want an error that says why, got %v", w.Err())
	}
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		l.Counter(c).Add(1000)
	}
	clock.advance(time.Second)
	w.Tick()
	seen, group := map[string]uint64{}, [16]byte{}
	files := segmentFiles(t, o.Dir)
	equal(t, "files", len(files), 4)
	indices := map[uint32]bool{}
	for _, f := range files {
		m := load(t, f)
		if m.h.GroupIndex == 0 {
			group = m.h.SegmentID
		}
		indices[m.h.GroupIndex] = true
		for _, s := range m.series() {
			i := layout.Value(s.Labels, "i")
			if _, twice := seen[i]; twice {
				t.Errorf("series %s is in two segments", i)
			}
			seen[i] = m.last(s, 0).of(t, s)[0]
		}
	}
	equal(t, "group indices", len(indices), 4)
	for _, f := range files {
		equal(t, "group_id", load(t, f).h.GroupID, group)
	}
	equal(t, "series found", len(seen), 32)
	for i, v := range seen {
		n, _ := strconv.Atoi(i)
		equal(t, "series "+i, v, uint64(n+1+1000))
	}

	// What is too wide for any segment makes none.
	o2, _ := testOptions(t)
	o2.Tables = o.Tables
	w2 := mustOpen(t, o2)
	w2.Histogram("wide", Buckets(0.001, 1000)).Record(1)
	equal(t, "segments for what never fits", w2.Stats().Segments, 1)
	equal(t, "dropped", w2.Stats().DroppedSeries, 1)
}

// A name that comes and goes: its cells are another's two rows later, the descriptor only when
// the rings have no row of it, and no row ever shows one series' value as another's.
func TestRetireAndReuse(t *testing.T) {
	o, clock := testOptions(t)
	o.Descriptors, o.HeapBytes = 40, 600
	o.MaxSegments = 1
	o.Tables = []Table{{Name: "t", Scalars: 4, Stats: 1, Lanes: 2, Tiers: []Tier{{time.Second, 4}, {2 * time.Second, 4}}}}
	w := mustOpen(t, o)
	file := segmentFiles(t, o.Dir)[0]
	keep := w.Counter("keep")
	for n := uint64(1); n <= 200; n++ {
		c := w.Counter("c", Label("n", fmt.Sprint(n)))
		s := w.Stat("s", Label("n", fmt.Sprint(n)))
		c.Add(1_000_000 + n)
		s.Record(float64(n))
		keep.Inc()
		clock.advance(time.Second)
		w.Tick()
		c.Retire()
		s.Retire()
		c.Add(5) // nowhere
		s.Record(-1e9)
		for range 3 { // the last values, then out, then free
			clock.advance(time.Second)
			w.Tick()
		}
		if w.Err() != nil {
			t.Fatalf("round %d: want room again, got %v", n, w.Err())
		}
		m := load(t, file)
		for _, info := range m.series() {
			if info.Name == "keep" {
				continue
			}
			id, _ := strconv.ParseUint(info.Labels[0].Value, 10, 64)
			for tier := range 2 {
				head := m.head(0, tier)
				for no := max(head, 4) - 3; no <= head && no > 0; no++ {
					r := m.row(0, tier, no)
					if !info.In(r.BaseRow, len(r.cells)) {
						continue
					}
					cells := r.of(t, info)
					if info.Kind == layout.Counter && cells[0] != 1_000_000+id {
						t.Fatalf("round %d, tier %d, row %d: want %d of series %d, got %d", n, tier, no, 1_000_000+id, id, cells[0])
					}
					if info.Kind == layout.Stat {
						equal(t, "stat count", cells[layout.StatCount], 1)
						if max := cells[layout.StatMax]; max != layout.UnsetF64 && max != math.Float64bits(float64(id)) {
							t.Fatalf("round %d, tier %d, row %d: want max %d or unset, got %#x", n, tier, no, id, max)
						}
					}
				}
			}
		}
	}
	if used := w.segments[0].tables[0].row.used; used > 1+3*6 {
		t.Errorf("want cells used again, got %d used", used)
	}
	if n := len(w.segments[0].descriptors); n > 30 {
		t.Errorf("want descriptors used again, got %d", n)
	}
	equal(t, "keep", load(t, file).value("keep"), 200)
	equal(t, "open row is base row + 1", load(t, file).control().Table[0].OpenRow, 801)
}

// Rows hold a retired series exactly until retired_row.
func TestRetiredRow(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	c := w.Counter("c")
	c.Add(3)
	c.Retire() // while row 1 is open
	other := w.Counter("c")
	if other == c {
		t.Fatal("want a new series after Retire")
	}
	other.Add(4)
	for range 2 {
		clock.advance(time.Second)
		w.Tick()
	}
	all := load(t, segmentFiles(t, o.Dir)[0])
	s := all.series()
	equal(t, "series", len(s), 2)
	equal(t, "life", s[0].Life(), layout.SeriesRetired)
	equal(t, "retired_row", s[0].RetiredRow, 2)
	equal(t, "last value", all.row(0, 0, 1).of(t, s[0])[0], 3)
	r := all.row(0, 0, 2)
	equal(t, "in row 2", s[0].In(r.BaseRow, len(r.cells)), false)
	equal(t, "new one", r.of(t, s[1])[0], 4)
}

// The plan is the file, for any options; MaxBytes is kept, rings not below MinRows.
func TestPlan(t *testing.T) {
	for _, lanes := range []int{1, 2, 16} {
		old := runtime.GOMAXPROCS(lanes)
		h, err := Plan(Options{Job: "j", Instance: "i"})
		runtime.GOMAXPROCS(old)
		if err != nil || h.TotalSize > 512_000 {
			t.Errorf("GOMAXPROCS %d: want 100 series in 512 kB, got %d, %v", lanes, h.TotalSize, err)
		}
	}
	for _, budget := range []int{0, 450_000, 300_000, 200_000} {
		o, _ := testOptions(t)
		o.MaxBytes = budget
		h, err := Plan(o)
		if err != nil {
			t.Fatal(err)
		}
		if budget > 0 && (h.TotalSize > uint64(budget) || h.TotalSize < uint64(budget)*9/10) {
			t.Errorf("MaxBytes %d: want it used, got %d", budget, h.TotalSize)
		}
		for _, table := range h.Tables {
			for _, tier := range table.Tier[:table.Tiers] {
				if tier.Rows < MinRows {
					t.Errorf("MaxBytes %d: want at least %d rows, got %d", budget, MinRows, tier.Rows)
				}
			}
		}
		w := mustOpen(t, o)
		st, err := os.Stat(w.Stats().Paths[0])
		if err != nil || uint64(st.Size()) != h.TotalSize {
			t.Errorf("MaxBytes %d: want a file of %d bytes, got %v, %v", budget, h.TotalSize, st.Size(), err)
		}
	}
	if _, err := Plan(Options{MaxBytes: 50_000}); err == nil || !strings.Contains(err.Error(), "want at least") {
		t.Errorf("want the least budget named, got %v", err)
	}
	// 100 series of the measured mix fit the default tables.
	o, _ := testOptions(t)
	w := mustOpen(t, o)
	for i := range 10 {
		for j := range 6 {
			w.Counter("some_subsystem_events_total", Labels("i", fmt.Sprint(i), "j", fmt.Sprint(j)), Unit("{event}"), Help("Events of a kind."))
		}
		for j := range 2 {
			w.Gauge("some_subsystem_level", Labels("i", fmt.Sprint(i), "j", fmt.Sprint(j)), Help("A level, in its unit."))
		}
		w.Stat("some_subsystem_depth", Label("i", fmt.Sprint(i)))
		w.Histogram("some_subsystem_duration_seconds", Label("i", fmt.Sprint(i)), Unit("s"))
	}
	if w.Err() != nil || w.Stats().Segments != 1 {
		t.Errorf("want 100 series in one segment, got %d segments, %v", w.Stats().Segments, w.Err())
	}
}

func TestOptionErrors(t *testing.T) {
	dir := testStore(t)
	for _, o := range []Options{
		{Mode: 0o666},
		{MaxSegments: 5},
		{Exemplars: 4097},
		{Labels: map[string]string{"job": "x"}},
		{Labels: map[string]string{"": "x"}},
		{Job: "bad\xff"},
		{OwnedLanes: 64},
		{Series: 1 << 21},
		{Tables: []Table{{Name: "a", Scalars: 1}}},
		{Tables: []Table{{Scalars: 1, Tiers: []Tier{{time.Second, 4}}}}},
		{Tables: []Table{{Name: "a", Scalars: -1, Tiers: []Tier{{time.Second, 4}}}}},
		{Tables: []Table{{Name: "a", Scalars: 1, Tiers: []Tier{{time.Second, 4}, {1500 * time.Millisecond, 4}}}}},
		{Tables: []Table{{Name: "a", Histograms: 1, Buckets: 4096, Tiers: []Tier{{time.Second, 4}}}}},
	} {
		o.Dir = dir
		w, err := Open(o)
		if err == nil || !strings.HasPrefix(err.Error(), "shmts: ") {
			t.Errorf("%+v: want an error of shmts, got %v", o, err)
		}
		allHandles(w).record()
		w.Close()
		if _, err := Plan(o); err == nil {
			t.Errorf("%+v: want Plan to say no too", o)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(files) != 0 {
		t.Errorf("want no files for wrong options, got %v", files)
	}
}

// The arena never hands out what is handed out, and forgets nothing.
func TestArena(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a := arena{cap: 200}
	owner := make([]int, 200)
	held := map[int]span{}
	for id := 1; id < 20_000; id++ {
		if rng.IntN(2) == 0 && len(held) > 0 {
			for k, s := range held {
				for i := range s.n {
					owner[s.at+i] = 0
				}
				a.give(s.at, s.n)
				delete(held, k)
				break
			}
			continue
		}
		n := 1 + rng.IntN(20)
		fits := a.fits(n)
		at, ok := a.take(n)
		if ok != fits {
			t.Fatalf("want fits to say what take does, got %v and %v", fits, ok)
		}
		if !ok {
			continue
		}
		for i := range n {
			if owner[at+i] != 0 {
				t.Fatalf("cell %d handed out twice", at+i)
			}
			owner[at+i] = id
		}
		held[id] = span{at, n}
	}
	for _, s := range held {
		a.give(s.at, s.n)
	}
	if len(a.free) != 1 || a.free[0] != (span{0, a.used}) {
		t.Errorf("want all of it free in one span, got %v of %d", a.free, a.used)
	}
}

// When exactly room comes back: cells with open_row at retired_row + 2, the descriptor when the last
// row that holds the series has left the longest ring. And what a cell published before does
// not hold up the next one's f64 total.
func TestWhenRoomComesBack(t *testing.T) {
	o, clock := testOptions(t)
	o.Descriptors = 20
	o.Tables = []Table{{Name: "t", Scalars: 8, Tiers: []Tier{{time.Second, 4}, {2 * time.Second, 3}}}}
	w := mustOpen(t, o)
	file := segmentFiles(t, o.Dir)[0]
	tick := func() uint64 {
		clock.advance(time.Second)
		w.Tick()
		return w.segments[0].tables[0].openRow
	}
	c := w.FloatCounter("old")
	c.Add(1000)
	tick()
	cell, index := c.s.info.RowCell, c.s.info.Index
	c.Retire()
	retired := c.s.info.RetiredRow
	equal(t, "retired_row", retired, 3)
	var others []*FloatCounter
	for open := uint64(2); ; open = tick() {
		n := w.FloatCounter("new", Label("n", fmt.Sprint(open)))
		n.Add(1)
		others = append(others, n)
		if reused := n.s.info.RowCell == cell; reused != (open >= retired+2) {
			t.Fatalf("open_row %d, retired_row %d: want the cell used again from %d on, got reused %v", open, retired, retired+2, reused)
		} else if reused {
			break
		}
	}
	tick()
	m := load(t, file)
	for _, n := range others {
		equal(t, "a new total", m.float("new{"+n.s.info.Labels[0].Value+"}"), 1)
	}
	for held := true; held; tick() { // rows of base_row < retired_row, in either ring
		m = load(t, file)
		held = false
		for tier := range 2 {
			head, rows := m.head(0, tier), uint64(m.h.Tables[0].Tier[tier].Rows)
			for n := max(head, rows) - rows + 1; n <= head; n++ {
				held = held || m.row(0, tier, n).BaseRow < retired
			}
		}
		state := layout.View[layout.Series](m.words, m.h.Series.Offset+uint64(index)*layout.SeriesSize)
		if life := state.Life(); (life == layout.SeriesRetired) != held {
			t.Fatalf("head %d: want the descriptor retired as long as a row holds it (%v), got life %d", m.head(0, 0), held, life)
		}
	}
	again := w.Counter("again")
	equal(t, "descriptor", again.s.info.Index, index)
	equal(t, "generation", again.s.info.Generation(), 2)
}
