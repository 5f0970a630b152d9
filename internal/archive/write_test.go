package archive

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

var testTiers = []TierOptions{{time.Second, 4096 + 4*minExtentSize}, {10 * time.Second, 4096 + 3*minExtentSize}}

func mustOpen(t testing.TB, o Options) *Archive {
	t.Helper()
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func checkWorld(t testing.TB, w *world, a *Archive, tier int, want map[rowID]bool) {
	t.Helper()
	got, wrong := w.read(a, tier)
	for _, word := range wrong {
		t.Error(word)
	}
	for id := range want {
		if !got[id] {
			t.Fatalf("tier %d: row %d of %x is not there, of %d that should be, %d are", tier, id.no, id.key.Segment[:4], len(want), len(got))
		}
	}
}

func rowsOf(b *Block) map[rowID]bool {
	all := map[rowID]bool{}
	for _, s := range b.Sources {
		for _, no := range s.Numbers {
			all[rowID{s.Source.Key, no}] = true
		}
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(1, 1))
	o := Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize}
	a := mustOpen(t, o)
	if m := a.End(0); m != (Mark{}) {
		t.Errorf("a new tier's end: want none, got %v", m)
	}
	var reused []uint64
	a.OnReuse(func(tier int, generation uint64) { reused = append(reused, generation) })
	byGen := map[uint64]map[rowID]bool{}
	for i := range 150 {
		blocks := []*Block{w.block(r, w.schemas[i/50], i%2 == 1, []int{i % 5 * 2, i%5*2 + 2, 40}, 1+i), w.block(r, w.schemas[0], false, []int{1, 3}, 5)}
		if i == 30 {
			if err := a.SetMark(0, Mark{3, 99}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Append(0, blocks...); err != nil {
			t.Fatal(err)
		}
		gen := a.End(0).Generation
		for _, b := range blocks {
			for id := range rowsOf(b) {
				if byGen[gen] == nil {
					byGen[gen] = map[rowID]bool{}
				}
				byGen[gen][id] = true
			}
		}
	}
	last := a.End(0).Generation
	for _, e := range a.tiers[0].all() {
		if e.trailer == nil && e.generation != last {
			t.Errorf("generation %d: want it sealed: there was no room for its index", e.generation)
		}
		if free := e.limit() - e.end.Load() - indexLength(e); e.trailer != nil && free > minExtentSize*3/8 { // a block did not fit
			t.Errorf("generation %d: want it nearly full, got %d bytes free", e.generation, free)
		}
	}
	if last < 6 {
		t.Fatalf("want extents reused, got %d generations", last)
	}
	for i, gen := range reused {
		if gen != uint64(i+1) {
			t.Errorf("reuse %d: want generation %d, got %d", i, i+1, gen)
		}
	}
	look := func(what string) {
		t.Helper()
		for gen := last - 3; gen <= last; gen++ {
			checkWorld(t, w, a, 0, byGen[gen])
		}
		if m, ok := a.Marked(0); !ok || m != (Mark{3, 99}) {
			t.Errorf("%s: mark: want 3, 99, got %v, %v", what, m, ok)
		}
		st := a.Tiers()[0]
		if st.Used != 4 || st.Extents != 4 || st.Generation != last || st.Skipped != 0 || st.Size != 4096+4*minExtentSize {
			t.Errorf("%s: tier: got %+v", what, st)
		}
	}
	look("written")
	end := a.End(0)
	if err := errors.Join(a.Sync(), a.Close()); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, o)
	look("opened again")
	if a.End(0) != end {
		t.Errorf("end: want %v, got %v", end, a.End(0))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func indexLength(e *extent) uint32 {
	if e.trailer == nil {
		return 0
	}
	return e.trailer.IndexLength
}
