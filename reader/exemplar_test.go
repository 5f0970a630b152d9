package reader_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// numbers of the exemplars from a number on.
func numbers(g *reader.Segment, from uint64) (n []uint64) {
	for x := range g.Exemplars(from) {
		n = append(n, x.Number)
	}
	return n
}

func wantNumbers(t *testing.T, what string, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: want exemplars %d, got %d", what, want, got)
	}
}

// What a writer leaves is yielded whole, each once to who goes on behind the last, and what is overwritten is gone.
func TestExemplars(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 8})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		if g.ExemplarHead() != 0 || len(numbers(g, 0)) != 0 {
			t.Fatalf("want none yet, got %d", g.ExemplarHead())
		}
		for i := range 5 {
			f.Exemplar(f.size, float64(i)+0.5, segtest.Birth+int64(i), byte(i+1))
		}
		f.Exemplar(f.requests, 3, segtest.Birth+9, 77)
		wantNumbers(t, "before a poll", numbers(g, 0))
		poll(t, s)
		wantNumbers(t, "all", numbers(g, 0), 1, 2, 3, 4, 5, 6)
		wantNumbers(t, "behind 4", numbers(g, 5), 5, 6)
		wantNumbers(t, "behind all", numbers(g, 7))
		var all []*reader.Exemplar
		for x := range g.Exemplars(0) {
			all = append(all, x)
		}
		for i, x := range all[:5] {
			want := reader.Exemplar{Number: uint64(i + 1), Series: g.Find("size"), Value: float64(i) + 0.5, Time: segtest.Birth + int64(i),
				TraceID: [16]byte(slices.Repeat([]byte{byte(i + 1)}, 16)), SpanID: [8]byte(slices.Repeat([]byte{^byte(i + 1)}, 8))}
			if *x != want || x.Series == nil {
				t.Errorf("want %+v, got %+v", want, *x)
			}
		}
		if x := all[5]; x.Series.Name != "requests" || x.Value != 3 {
			t.Errorf("want that of the counter, got %+v", x)
		}
		for i := range 20 { // two rounds and a half
			f.Exemplar(f.size, 100+float64(i), 0, 1)
		}
		poll(t, s)
		if g.ExemplarHead() != 26 {
			t.Errorf("want a head of 26, got %d", g.ExemplarHead())
		}
		wantNumbers(t, "after two rounds", numbers(g, 7), 19, 20, 21, 22, 23, 24, 25, 26)
		if c := g.Counters(); c.SkippedExemplars != 0 || c.ExemplarsDropped != 0 {
			t.Errorf("want nothing counted, got %+v", c)
		}
		n := 0
		for range g.Exemplars(0) {
			if n++; n == 2 {
				break
			}
		}
	})
}

// A number that may just be being written ends the iteration, until another poll has gone by or the writer has ended; it is yielded when
// it has come by then, and passed over if not.
func TestExemplarsAwaited(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 8})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		take := func() uint64 { return atomic.AddUint64(&f.W[f.H.Control.Offset/8+layout.CtlExemplars], 1) }
		late := func(n uint64) {
			layout.StoreExemplar(f.Slot(n), f.H.ExemplarIdentity(), n, &layout.Exemplar{Generation: f.size.Generation(), Series: uint32(f.size.Index), TraceID: [16]byte{1}})
		}
		f.Exemplar(f.size, 1, 1, 1)
		slow, dead, never := uint64(0), uint64(0), uint64(0)
		slow = take() // 2
		f.Exemplar(f.size, 1, 1, 1)
		poll(t, s)
		wantNumbers(t, "2 awaited", numbers(g, 0), 1)
		late(slow)
		wantNumbers(t, "2 there", numbers(g, 2), 2, 3)
		dead = take() // 4: begins, and is never finished
		f.Slot(dead)[0] = dead<<1 | 1
		f.Exemplar(f.size, 1, 1, 1)
		poll(t, s)
		wantNumbers(t, "4 awaited", numbers(g, 4))
		f.Exemplar(f.size, 1, 1, 1)
		never = take() // 7
		f.Exemplar(f.size, 1, 1, 1)
		poll(t, s)
		wantNumbers(t, "4 passed over, 7 awaited", numbers(g, 4), 5, 6)
		poll(t, s)
		wantNumbers(t, "7 passed over", numbers(g, 7), 8)
		late(never)
		wantNumbers(t, "7 came too late, and who asks for it has it", numbers(g, 0), 1, 2, 3, 5, 6, 7, 8)
		for range 4 { // 9 to 12; 12 finds 4's slot held
			f.Exemplar(f.size, 1, 1, 1)
		}
		take() // 13
		f.Exemplar(f.size, 1, 1, 1)
		f.Die()
		until(t, s, "the end", func(reader.Events) bool { return g.Liveness().Ended() })
		wantNumbers(t, "after the end", numbers(g, 9), 9, 10, 11, 14)
		if c := g.Counters(); c.ExemplarsDropped != 1 || c.SkippedExemplars != 0 {
			t.Errorf("want one dropped and none skipped, got %+v", c)
		}
	})
}

// What breaks FORMAT.md 8.4 is passed over, and counted once.
func TestExemplarsSkipped(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 16})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		good := layout.Exemplar{Series: uint32(f.size.Index), Generation: f.size.Generation(), Value: 1, TraceID: [16]byte{15: 1}}
		breaks := []func(x *layout.Exemplar){
			func(x *layout.Exemplar) { x.TraceID = [16]byte{} },
			func(x *layout.Exemplar) { x.Generation++ },
			func(x *layout.Exemplar) { x.Series = 7 }, // not registered
			func(x *layout.Exemplar) { x.Series = 1 << 31 },
			func(x *layout.Exemplar) { x.Series, x.Generation = uint32(f.level.Index), f.level.Generation() }, // a gauge
			func(x *layout.Exemplar) { x.Series, x.Generation = uint32(f.inflight.Index), f.inflight.Generation() },
			func(x *layout.Exemplar) { x.Series, x.Generation = uint32(f.wait.Index), f.wait.Generation() },
		}
		f.StoreExemplar(&good)
		for _, b := range breaks {
			x := good
			b(&x)
			f.StoreExemplar(&x)
		}
		n := f.StoreExemplar(&good)
		f.Slot(n)[4]++ // torn
		f.StoreExemplar(&good)
		f.Retire(f.size)
		poll(t, s)
		for range 3 {
			wantNumbers(t, "broken ones", numbers(g, 0), 1, n+1)
		}
		for x := range g.Exemplars(0) {
			if !x.Series.Retired {
				t.Error("want the series as it is by now, retired")
			}
		}
		if c := g.Counters(); c.SkippedExemplars != uint64(len(breaks)+1) {
			t.Errorf("want %d skipped, got %d", len(breaks)+1, c.SkippedExemplars)
		}
		f.Control(layout.CtlExemplars, 1<<63)
		poll(t, s)
		if g.ExemplarHead() != 0 || len(numbers(g, 0)) != 0 {
			t.Errorf("a head that is nonsense: want none, got %d", g.ExemplarHead())
		}
	})
}

// Elements may be wider than they are known to be, and a segment may have no ring.
func TestExemplarsOfOtherShapes(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 8, Job: "wide"})
		at := layout.SuperblockSize + 7*layout.SectionSize
		wide := layout.View[layout.Section](f.W, uint64(at))
		wide.Count, wide.ElementSize = 4, 128
		f.H.Sections[7], f.H.Exemplars = *wide, *wide
		f.H.Encode(f.W)
		f.Birth(t, dir)
		none := newFixture(t, segtest.Options{Job: "none", ID: 2})
		none.Control(layout.CtlExemplars, 5)
		none.Birth(t, dir)
		s := open(t, dir, o)
		for range 6 {
			f.Exemplar(f.size, 1, 1, 1)
		}
		poll(t, s)
		for _, g := range s.Segments() {
			if g.Job() == "none" {
				wantNumbers(t, "no ring", numbers(g, 0))
				if g.ExemplarHead() != 0 {
					t.Errorf("no ring: want a head of 0, got %d", g.ExemplarHead())
				}
				continue
			}
			wantNumbers(t, "wide elements", numbers(g, 0), 3, 4, 5, 6)
		}
	})
}

// A reader follows writers that go round and round: each exemplar it is given is whole, and none comes twice. Memory is mapped, which the race
// detector does not see: package layout's tests have it look.
func TestExemplarsFollowed(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 64})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		var wg sync.WaitGroup
		const each, writers = 3000, 2
		for k := range writers {
			wg.Go(func() {
				for i := range each {
					v := float64(k*each + i)
					x := layout.Exemplar{Series: uint32(f.size.Index), Generation: f.size.Generation(), Value: v, T: int64(v) * 3, TraceID: [16]byte{15: byte(int(v)%255 + 1)}}
					f.StoreExemplar(&x)
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		last, seen, values := uint64(0), 0, map[float64]bool{}
		for again := 0; again < 3; {
			select {
			case <-done:
				again++
			default:
			}
			poll(t, s)
			for x := range g.Exemplars(last + 1) {
				if x.Number <= last || values[x.Value] || x.Time != int64(x.Value)*3 || x.TraceID[15] != byte(int(x.Value)%255+1) {
					t.Fatalf("behind %d: torn or twice: %+v", last, x)
				}
				last, values[x.Value] = x.Number, true
				seen++
			}
		}
		if seen < 64 || g.Counters().SkippedExemplars != 0 {
			t.Errorf("want at least what is there at the end, 64, and none broken, got %d and %d", seen, g.Counters().SkippedExemplars)
		}
	})
}

// Check says what is wrong with a ring, and nothing of what a kill leaves.
func TestCheckExemplars(t *testing.T) {
	for _, c := range []struct {
		want string
		do   func(f *fixture)
	}{
		{"", func(*fixture) {}},
		{"", func(f *fixture) { f.Slot(3)[0]++ }},                                             // killed inside
		{"", func(f *fixture) { f.Retire(f.size) }},                                           // its exemplars stay
		{"", func(f *fixture) { f.Control(layout.CtlExemplars, 9); f.Slot(9)[0] = 9<<1 | 1 }}, // written over
		{"exemplar 2: want a check that holds, got", func(f *fixture) { f.Slot(3)[7]++ }},     //
		{"exemplar 2: want a number that is 3 modulo 8, got 4", func(f *fixture) { f.Slot(3)[0] = 8 }},
		{"exemplar 3: want a number of at most 6, as the control block says, got 12", func(f *fixture) { f.Slot(4)[0] = 24 }},
		{"exemplar 6: want a trace_id, got zeros", func(f *fixture) { f.StoreExemplar(&layout.Exemplar{}) }},
		{"exemplar 6: want a series below 8, got 8", func(f *fixture) { f.StoreExemplar(&layout.Exemplar{Series: 8, TraceID: [16]byte{1}}) }},
		{"exemplar 6: want a counter or a histogram, got series 3, a gauge", func(f *fixture) {
			f.StoreExemplar(&layout.Exemplar{Series: 3, TraceID: [16]byte{1}})
		}},
		{"control: want exemplars_dropped at most exemplars, 6, got 7", func(f *fixture) { f.Control(layout.CtlExemplarsDropped, 7) }},
		{"control: want exemplars at most 4611686018427387904, got", func(f *fixture) { f.Control(layout.CtlExemplars, 1<<63) }},
	} {
		f := newFixture(t, segtest.Options{Exemplars: 8})
		for range 6 {
			f.Exemplar(f.size, 1, 1, 1)
		}
		c.do(f)
		found := reader.Check(f.Leave(t, segtest.Store(t)))
		if text := fmt.Sprint(found); (c.want == "") != (len(found) == 0) || !strings.Contains(text, c.want) || len(found) > 1 {
			t.Errorf("want %q, got %v", c.want, found)
		}
	}
}
