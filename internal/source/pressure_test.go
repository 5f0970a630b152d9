package source

import (
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// Where segments are turned away for want of room, the dead ones that nobody holds go before their time, and the others stay.
func TestShortOfRoom(t *testing.T) {
	f := newFixture(t, Options{Store: reader.Options{PerUser: reader.Budget{Segments: 3}}, DeadTTL: time.Minute})
	held := map[string]bool{}
	f.r.Hold("archive", func(s *Segment) bool { return !held[s.Labels()[1].Value] })
	a, b := f.writer("a", "1"), f.writer("b", "1")
	f.writer("c", "1")
	f.poll()
	held["b"] = true
	a.Close()
	b.Close()
	f.poll()
	f.now = f.now.Add(MinDeadTTL)
	equal(t, "segments while there is room", len(f.poll()), 3)
	f.writer("d", "1")
	f.poll() // it is turned away
	f.poll()
	f.now = f.now.Add(time.Second)
	f.poll()
	f.poll()
	var jobs []string
	for _, s := range f.poll() {
		jobs = append(jobs, s.Labels()[1].Value)
	}
	// d is looked at again a little later.
	if slices.Contains(jobs, "a") || !slices.Contains(jobs, "b") || !slices.Contains(jobs, "c") {
		t.Errorf("want b, which is held, and c, which lives, without a, got %q", jobs)
	}
	s := f.r.Stats()
	equal(t, "unlinked", s.Unlinked, 1)
	equal(t, "of those early", s.Early, 1)
}
