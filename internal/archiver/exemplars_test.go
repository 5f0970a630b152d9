package archiver

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// waiting is Exemplars of which tests say what is there.
type waiting struct {
	of     map[string][]reader.Exemplar
	hidden map[string]bool // not all of an ended one's are there yet

	archived uint64
	said     []uint64
	crowded  bool
}

func (x *waiting) Newest(segment string, inode uint64) uint64 {
	if n := len(x.of[segment]); n > 0 {
		return x.of[segment][n-1].Number
	}
	return 0
}

func (x *waiting) Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool) {
	for i := range x.of[segment] {
		if e := &x.of[segment][i]; e.Number > after && !yield(e) {
			return
		}
	}
}

func (x *waiting) Archived(segment string, inode, number uint64) {
	x.archived = number
	x.said = append(x.said, number)
}

func (x *waiting) Crowded() bool { return x.crowded }

func (x *waiting) Whole(segment string, inode, head uint64) bool { return !x.hidden[segment] }

// leave has a series of a writer leave an exemplar: what it says follows from its number.
func (x *waiting) leave(w *world, instance, series string) {
	w.t.Helper()
	for _, s := range w.r.Segments() {
		if !slices.Contains(s.Labels(), reader.Pair{Name: "instance", Value: instance}) {
			continue
		}
		i := slices.IndexFunc(s.Series(), func(sr *reader.Series) bool { return sr.Name == series })
		if i < 0 {
			w.t.Fatalf("%s has no series %s", instance, series)
		}
		no := x.Newest(s.ID(), 0) + 1
		x.of[s.ID()] = append(x.of[s.ID()], reader.Exemplar{Number: no, Series: s.Series()[i], Value: float64(no) / 2, Time: w.clock.Load(), TraceID: [16]byte{byte(no), 1}, SpanID: [8]byte{byte(no)}})
		return
	}
	w.t.Fatalf("no segment of %s", instance)
}

// exemplars are what the archive has: by source's instance, "number series".
func (w *world) exemplars() map[string][]string {
	w.t.Helper()
	out := map[string][]string{}
	for p, err := range w.w.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for _, x := range p.List {
			if x.Value != float64(x.Number)/2 || x.TraceID != [16]byte{byte(x.Number), 1} || x.SpanID != [8]byte{byte(x.Number)} {
				w.t.Errorf("exemplar %d says %+v", x.Number, x)
			}
			instance := p.Source.Labels[0].Value
			out[instance] = append(out[instance], fmt.Sprint(x.Number, " ", p.Schema.Series[x.Series].Name))
		}
	}
	for _, list := range out { // parts of two tables lie behind one another
		slices.Sort(list)
	}
	return out
}

func (w *world) hasExemplars(what, instance string, want ...string) {
	w.t.Helper()
	if got := w.exemplars()[instance]; !slices.Equal(got, want) {
		w.t.Errorf("%s: want %q of %s, got %q", what, want, instance, got)
	}
}

// What waits is written with each sync, under the labels that rows have, goes on behind the last one after a restart, and after the end before
// the segment may go.
func TestExemplars(t *testing.T) {
	x := &waiting{of: map[string][]reader.Exemplar{}, hidden: map[string]bool{}}
	w := newWorld(t, Options{Exemplars: x})
	a, b := w.writer("a", 2, ring(60)), w.writer("b", 2, ring(60))
	w.step(1)
	x.leave(w, "a", "c0")
	x.leave(w, "a", "length")
	x.leave(w, "b", "c1")
	w.step(5)
	w.hasExemplars("before any row was written", "a", "1 c0", "2 length")
	w.hasExemplars("the same block", "b", "1 c1")
	if s := w.a.Stats(); s.Exemplars != 3 || s.ExemplarBlocks != 1 || s.ExemplarsLost != 0 {
		t.Errorf("want 3 exemplars in a block, got %+v", s)
	}
	w.step(40) // rows were written by now
	x.leave(w, "a", "c0")
	x.crowded = true
	w.step(1)
	w.hasExemplars("where there is no room to wait", "a", "1 c0", "2 length", "3 c0")
	equal(t, "which is said", x.archived, 3)
	x.crowded = false
	late := a.w.Counter("late") // its rows are not written yet
	late.Add(1)
	w.step(1)
	x.leave(w, "a", "late")
	w.step(6)
	w.hasExemplars("of a series that is new", "a", "1 c0", "2 length", "3 c0", "4 late")
	x.leave(w, "a", "c1")
	w.restart()
	w.step(6)
	w.hasExemplars("after a restart", "a", "1 c0", "2 length", "3 c0", "4 late", "5 c1")
	equal(t, "written after the restart", w.a.Stats().Exemplars, 1)
	x.leave(w, "a", "c0")
	if err := w.a.Close(); err != nil {
		t.Fatal(err)
	}
	w.hasExemplars("at the daemon's end", "a", "1 c0", "2 length", "3 c0", "4 late", "5 c1", "6 c0")
	w.restart()
	w.step(1)

	// After the writer's end, all are written before the segment may go: also those that come late.
	idB := w.id("b")
	segB := hex.EncodeToString(idB[:])
	x.hidden[segB] = true
	x.leave(w, "b", "c0")
	w.end(b)
	w.poll()
	w.poll()
	w.hasExemplars("at once", "b", "1 c1", "2 c0")
	for _, s := range w.r.Segments() {
		if s.ID() == segB && w.a.Finished(s) {
			t.Error("want the segment kept until it is known that there are no others")
		}
	}
	x.leave(w, "b", "c1")
	x.hidden[segB] = false
	w.poll()
	w.hasExemplars("and the last one", "b", "1 c1", "2 c0", "3 c1")
	found := false
	for _, s := range w.r.Segments() {
		found = found || s.ID() == segB && w.a.Finished(s)
	}
	if !found {
		t.Error("want the segment finished with")
	}
	// Sources and schemas are there once: exemplars have those of the rows.
	found2, err := w.w.Find(idB)
	if err != nil || len(found2) != 1 {
		t.Fatalf("want b found once, got %d (%v)", len(found2), err)
	}
}

// A user over the budget waits; what is still there when the writer ends is lost, and counted.
func TestExemplarsOverBudget(t *testing.T) {
	x := &waiting{of: map[string][]reader.Exemplar{}, hidden: map[string]bool{}}
	w := newWorld(t, Options{Exemplars: x, UserBytesPerSecond: 1})
	k := w.writer("a", 2, ring(60))
	w.step(1)
	x.leave(w, "a", "c0")
	w.step(6)
	w.hasExemplars("within the budget", "a", "1 c0")
	x.leave(w, "a", "c0")
	w.step(6) // the first block had the labels in it
	w.hasExemplars("over it", "a", "1 c0")
	w.end(k)
	w.poll()
	w.hasExemplars("at the end", "a", "1 c0")
	equal(t, "lost", w.a.Stats().ExemplarsLost, 1)
	w.poll()
	for _, s := range w.r.Segments() {
		if !w.a.Finished(s) {
			t.Error("want the segment finished with")
		}
	}
}

// Many of one segment go into as many blocks as it takes, in the order of their numbers.
func TestManyExemplars(t *testing.T) {
	x := &waiting{of: map[string][]reader.Exemplar{}, hidden: map[string]bool{}}
	w := newWorld(t, Options{Exemplars: x})
	w.w.Close()
	w.disk = ""
	small, err := archive.Open(archive.Options{Dir: t.TempDir(), ExtentSize: 64 << 10, Tiers: []archive.TierOptions{{Step: time.Second, Budget: 2 << 20}}})
	if err != nil {
		t.Fatal(err)
	}
	w.w = small
	w.restart()
	w.writer("a", 2, ring(60))
	w.step(1)
	for range 5000 { // three extents
		x.leave(w, "a", "c0")
	}
	w.step(6)
	got := w.exemplars()["a"]
	equal(t, "archived", len(got), 5000)
	if s := w.a.Stats(); s.ExemplarBlocks < 2 || s.ExemplarsLost != 0 {
		t.Errorf("want several blocks and nothing lost, got %+v", s)
	}
	at, err := small.FindExemplars(w.id("a"))
	if err != nil || len(at) != 1 || at[0].Last != 5000 {
		t.Errorf("want position 5000, got %+v (%v)", at, err)
	}
}

// The disk fails, and is mended: what was not synced is written again.
func TestExemplarsMended(t *testing.T) {
	x := &waiting{of: map[string][]reader.Exemplar{}, hidden: map[string]bool{}}
	w := newWorld(t, Options{Exemplars: x})
	w.writer("a", 2, ring(60))
	w.step(1)
	x.leave(w, "a", "c0")
	w.step(6)
	w.a.stop(archive.ErrStopped)
	x.leave(w, "a", "c1")
	w.step(3) // it is tried again after a second
	if w.a.Stopped() != nil {
		t.Fatal("want it to go on")
	}
	w.step(6)
	w.hasExemplars("afterwards", "a", "1 c0", "2 c1")
	equal(t, "said to be archived", fmt.Sprint(x.said), "[0 1 0 1 2]")
}
