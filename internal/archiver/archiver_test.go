package archiver

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive/archivetest"
)

// Rows are written when they are half of the ring, not before, and then every one once, with its values.
func TestLazily(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 5, ring(20))
	w.step(1)
	id := w.id("a")
	blocks := 0
	for i := range 100 {
		w.step(1)
		if n := int(w.a.Stats().Tiers[0].Blocks); n != blocks {
			blocks = n
		} else if last := uint64(i) + 2; w.unflushed() > 10 {
			t.Fatalf("row %d: want at most half of the ring unflushed, got %d", last, w.unflushed())
		}
	}
	if blocks < 9 || blocks > 12 {
		t.Errorf("101 rows of a ring of 20: want a block each 10 rows, got %d blocks", blocks)
	}
	w.end(k)
	w.poll()
	whole(t, w.archived(id, 0, 0), 1, k.n)
	s := w.a.Stats()
	equal(t, "rows", s.Tiers[0].Rows, k.n)
	equal(t, "drained", s.Drained, 1)
	equal(t, "stopped", s.Stopped, "")
	for reason, n := range s.Lost {
		equal(t, "lost, "+reason, n, 0)
	}
	found, _ := w.w.Find(id)
	if len(found) != 1 || found[0].Ended == 0 || found[0].UID != os.Getuid() {
		t.Errorf("want one incarnation, of this user, that has ended, got %+v", found[0].Source)
	}
}

func (w *world) unflushed() (most uint64) {
	for _, st := range w.a.states {
		for _, t := range st.tables {
			most = max(most, t.head-t.last)
		}
	}
	return most
}

// Whenever the process ends, the next one goes on with the row behind the last one written.
func TestRestarts(t *testing.T) {
	w := newWorld(t, Options{})
	k, other := w.writer("a", 5, ring(16)), w.writer("b", 3, ring(30))
	w.step(1)
	id, idOther := w.id("a"), w.id("b")
	for i := range 200 {
		w.step(1)
		switch {
		case i%7 == 3:
			w.restart()
		case i%31 == 5: // and the register as well
			w.r.Close()
			w.register()
			w.restart()
		case i%53 == 50: // nobody was there for a while
			w.tick(6)
			w.restart()
		}
	}
	w.end(k)
	w.end(other)
	w.poll()
	w.restart()
	w.poll()
	whole(t, w.archived(id, 0, 0), 1, k.n)
	whole(t, w.archived(idOther, 0, 0), 1, other.n)
	for _, s := range w.r.Segments() {
		if !w.a.Finished(s) {
			t.Errorf("%s: want it finished after a restart, got not", s.ID())
		}
	}
	rows := w.a.Stats().Tiers[0].Rows
	equal(t, "rows written by the last one, which had nothing to do", rows, 0)
}

// A cohort is one block; cohorts of the same birth are not all due in the same second.
func TestCohorts(t *testing.T) {
	w := newWorld(t, Options{})
	const writers = 150
	for i := range writers {
		w.writer(fmt.Sprint(i), 2, ring(40))
	}
	w.step(1)
	w.step(80)
	w.clock.Add(0)
	s := w.a.Stats()
	equal(t, "cohorts", s.Cohorts, 3)
	seconds := map[uint64]int{}
	for range 40 {
		before := w.a.Stats().Tiers[0].Blocks
		w.step(1)
		if n := w.a.Stats().Tiers[0].Blocks - before; n > 0 {
			seconds[n]++
		}
	}
	if seconds[1] != 6 {
		t.Errorf("3 cohorts, each twice in 40 s: want 6 seconds with one block, got %v", seconds)
	}
	// Half of them end at once: one block for each 64.
	before := w.a.Stats().Tiers[0].Blocks
	for _, k := range w.writers[:75] {
		w.end(k)
	}
	w.poll()
	if n := w.a.Stats().Tiers[0].Blocks - before; n != 2 {
		t.Errorf("75 ends: want 2 drain blocks, got %d", n)
	}
	w.step(30)
	equal(t, "cohorts of those left", w.a.Stats().Cohorts, 2)
}

// What a ring went over is counted, and told to who may fill it.
func TestOverrun(t *testing.T) {
	var missing []Missing
	w := newWorld(t, Options{Missing: func(m Missing) { missing = append(missing, m) }})
	k := w.writer("a", 2, ring(10))
	w.step(10)
	id := w.id("a")
	before := w.archived(id, 0, 0)
	w.tick(35)
	w.poll()
	w.end(k)
	w.poll()
	rows := w.archived(id, 0, 0)
	lost := w.a.Stats().Lost[LostOverrun]
	equal(t, "lost and archived", lost+uint64(len(rows)), k.n)
	if len(missing) != 1 || missing[0].To-missing[0].From+1 != lost || !missing[0].Overwrites || missing[0].After >= missing[0].Before || int(missing[0].From) != len(before)+1 {
		t.Errorf("want the %d rows behind %d told of as missing, got %+v", lost, len(before), missing)
	}
}

// A segment that goes away by itself: what is archived stays, the rest is counted.
func TestGone(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 2, ring(40))
	w.step(30)
	id := w.id("a")
	left := w.unflushed()
	for _, s := range w.r.Segments() {
		if err := os.Remove(s.Path()); err != nil {
			t.Fatal(err)
		}
	}
	w.poll()
	w.poll()
	w.poll()
	equal(t, "lost", w.a.Stats().Lost[LostGone], left)
	whole(t, w.archived(id, 0, 0), 1, k.n-left)
	equal(t, "known", w.a.Stats().Segments, 0)
	equal(t, "cohorts", w.a.Stats().Cohorts, 0)
}

// The disk fails: nothing counts as drained, nothing is unlinked; once it works again, every row is there once.
func TestStopped(t *testing.T) {
	w := newWorld(t, Options{Archive: archivetest.New(time.Second)})
	m := w.w.(*archivetest.Memory)
	k, dying := w.writer("a", 2, ring(200)), w.writer("b", 2, ring(200))
	w.step(25)
	id, idDying := w.id("a"), w.id("b")
	m.Stop(errors.New("no disk"))
	w.step(30)
	w.end(dying)
	w.step(8)
	s := w.a.Stats()
	if s.Stopped == "" || w.a.Stopped() == nil || s.Failures != 1 {
		t.Errorf("want it stopped once, with a reason, got %+v", s)
	}
	equal(t, "segments held", len(w.r.Segments()), 2)
	m.Stop(nil)
	w.step(30)
	equal(t, "stopped", w.a.Stats().Stopped, "")
	w.end(k)
	w.poll()
	whole(t, w.archived(id, 0, 0), 1, k.n)
	equal(t, "lost", w.a.Stats().Lost[LostOverrun], 0)
	whole(t, w.archived(idDying, 0, 0), 1, dying.n)
	w.clock.Add(int64(6 * time.Second))
	w.poll()
	w.poll()
	equal(t, "segments left", len(w.r.Segments()), 0)
}

// Whoever asks while it polls is answered: the register's hold, /metrics, /-/ready.
func TestAskedMeanwhile(t *testing.T) {
	w := newWorld(t, Options{Archive: archivetest.New(time.Second)})
	for i := range 5 {
		w.writer(fmt.Sprint(i), 2, ring(10))
	}
	w.step(1)
	segments := w.a.segments()
	done, asked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-done:
				asked <- n
				return
			default:
			}
			for _, s := range segments {
				if w.a.Finished(s) {
					n++
				}
			}
			_, _ = w.a.Stats(), w.a.Stopped()
			w.a.Kick()
		}
	}()
	for _, k := range w.writers[:3] {
		w.step(10)
		w.end(k)
	}
	w.step(5)
	close(done)
	if n := <-asked; n == 0 {
		t.Error("want it asked, got no chance")
	}
	equal(t, "drained", w.a.Stats().Drained, 3)
}
