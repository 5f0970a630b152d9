package writer

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// measured is the mix of 100 series that sizes are told of.
func measured(sampled bool) Options {
	return Options{Job: "j", Instance: "i", Sampled: sampled, Tables: []Table{
		{Name: "scalars", Counters: 60, Gauges: 20, Stats: 10},
		{Name: "histograms", Histograms: 10},
	}}
}

// A sampled segment of 100 series with 10 histograms takes 48 to 60 kB, to the byte what the parts say: on any machine under 64.
func TestSampledPlan(t *testing.T) {
	up := func(n, to int) int { return (n + to - 1) / to * to }
	for _, procs := range []int{1, 2, 4, 64} {
		old := runtime.GOMAXPROCS(procs)
		h, err := Plan(measured(true))
		more := measured(true)
		more.Tables[1].Histograms++
		dearer, _ := Plan(more)
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		scalarLanes, histogramLanes := min(procs, 4)+1, min(procs, 2)+1
		want := up(256+8*32+2*256+2+(4+len("job")+1)+(4+len("instance")+1)+2, 64) + 640 + 125*64 + 125*128
		want += scalarLanes*up((60+10*8)*8, 64) + up((20+10)*8, 64) + histogramLanes*up(10*83*8, 64)
		want += DefaultExemplars * 64
		if want = up(want, 4096); h.TotalSize != uint64(want) || want > 64<<10 {
			t.Errorf("%d Ps: want %d bytes, and no more than 64 kB, got %d", procs, want, h.TotalSize)
		}
		if h.Flags != layout.FlagSampled || h.Rows.Length != 0 {
			t.Errorf("want the flag of a sampled segment and no rows, got %#x and %d bytes", h.Flags, h.Rows.Length)
		}
		// A histogram of 80 buckets: 664 bytes a lane, and a descriptor with its strings.
		wantCost := histogramLanes*(up(11*83*8, 64)-up(10*83*8, 64)) + 64 + 128
		if got := int(dearer.Lanes.Offset-h.Lanes.Offset) + int(dearer.Lanes.Length-h.Lanes.Length)*1; got != wantCost {
			t.Errorf("%d Ps: want a further histogram to cost %d bytes, got %d", procs, wantCost, got)
		}
	}
}

// What is recorded is in the cells, nothing is in rows, and ticks say nothing.
func TestSampled(t *testing.T) {
	o, clock := testOptions(t)
	m := measured(true)
	o.Sampled, o.Tables = true, m.Tables
	o.Tables[0].Tiers = []Tier{{time.Second, 8}} // goes for nothing
	w := mustOpen(t, o)
	all := allHandles(w)
	for range 3 {
		all.record()
		clock.unix.Add(int64(time.Hour)) // no epoch either: nobody would see when
		clock.advance(time.Second)
		w.Tick()
	}
	if got := w.nextTick(); got < time.Hour {
		t.Errorf("want no tick due, got one in %v", got)
	}
	path := w.Stats().Paths[0]
	h, err := Plan(o)
	st, statErr := os.Stat(path)
	if err != nil || statErr != nil || uint64(st.Size()) != h.TotalSize {
		t.Errorf("want a file of the planned %d bytes, got %v, %v, %v", h.TotalSize, st.Size(), err, statErr)
	}
	c := load(t, path).control()
	if c.Ticks != 0 || c.Heartbeat != 0 || c.Epoch != 0 || c.Table[0].OpenRow != 1 || c.Table[0].Head != [layout.MaxTiers]uint64{} {
		t.Errorf("want no sign of a tick, got %+v", c)
	}
	if w.NewEpoch() != 1 || load(t, path).control().Epoch != 1 {
		t.Error("want the application's word on the epoch to count")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := load(t, path).control().State; got != layout.StateClosed {
		t.Errorf("want it closed, got state %d", got)
	}
}

// A retired series' cells stay its own, since nobody says when its last value was seen.
func TestSampledRetire(t *testing.T) {
	o, clock := testOptions(t)
	o.Sampled, o.MaxSegments = true, 1
	o.Tables = []Table{{Name: "scalars", Counters: 2}}
	w := mustOpen(t, o)
	a := w.Counter("a")
	a.Add(7)
	a.Retire()
	for range 100 {
		clock.advance(time.Second)
		w.Tick()
	}
	w.Counter("b").Add(1)
	w.Counter("c").Add(1)
	if s := w.Stats(); s.DroppedSeries != 1 {
		t.Errorf("want the third series dropped, got %d", s.DroppedSeries)
	}
	for _, s := range load(t, w.Stats().Paths[0]).series() {
		if want := map[string]int{"a": layout.SeriesRetired, "b": layout.SeriesLive}[s.Name]; s.Life() != want {
			t.Errorf("%s: want life %d, got %d", s.Name, want, s.Life())
		}
	}
}

// Where there is no store yet, the ticker makes the segment once there is one, and leaves nothing behind in private memory.
func TestSampledLater(t *testing.T) {
	o, clock := testOptions(t)
	o.Dir = filepath.Join(o.Dir, "later")
	o.Sampled, o.Tables = true, measured(true).Tables
	w, err := Open(o)
	if err == nil {
		t.Fatal("want an error without a store, got none")
	}
	defer w.Close()
	n := w.Counter("n")
	n.Add(41)
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	if got := w.nextTick(); got != 0 {
		t.Errorf("want the next attempt due, got it in %v", got)
	}
	w.Tick()
	n.Add(1)
	if got := w.nextTick(); got != time.Second {
		t.Errorf("want ticks for records that are on their way, got one in %v", got)
	}
	m := load(t, segmentFiles(t, o.Dir)[0])
	sum := uint64(0)
	d := &m.h.Tables[0]
	for k := range uint64(d.Lanes) + 1 {
		sum += m.words[(d.LanesOffset+k*uint64(d.LaneStride))/8]
	}
	if sum != 42 {
		t.Errorf("want 42 in the cells, got %d", sum)
	}
}
