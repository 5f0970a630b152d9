package reader

import (
	"errors"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
)

// shadowOf is a shadow with two rows, in a store.
func shadowOf(t *testing.T, store string, boot [16]byte) (*segtest.Segment, *layout.SeriesInfo) {
	s := segtest.New(t, segtest.Options{ID: 7})
	c := s.Series(t, 0, "c", layout.Counter, layout.U64, layout.BucketRange{})
	for i := range s.H.ShadowOf {
		s.H.ShadowOf[i] = 0xab
	}
	s.H.UID, s.H.BootID = 4321, boot
	s.H.Encode(s.W)
	s.Publish(0, 0, 1, []uint64{10})
	s.Publish(0, 0, 2, []uint64{20})
	s.Birth(t, store)
	return s, c
}

// A shadow has the identity of what it stands for, ends with its state and not by its lock, and has no last words of its own.
func TestShadow(t *testing.T) {
	dir := segtest.Store(t)
	s, _ := shadowOf(t, dir, [16]byte{})
	store, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	poll := func() Events {
		t.Helper()
		ev, err := store.Poll()
		if err != nil || len(ev.Refused) > 0 {
			t.Fatal(err, ev.Refused)
		}
		return ev
	}
	poll()
	g := store.Segments()[0]
	if !g.Shadow() || g.ID() != "abababababababababababababababab" || g.UID() != 4321 || g.Owner() != store.euid {
		t.Errorf("want the identity of what it stands for, got %v %s of %d, file of %d", g.Shadow(), g.ID(), g.UID(), g.Owner())
	}
	s.Die()
	for range 3 {
		poll()
	}
	if g.Liveness().Ended() || g.Head(0, 0) != 2 {
		t.Errorf("want it go on though nobody holds it, with 2 rows, got %v, %d", g.Liveness(), g.Head(0, 0))
	}
	if err := store.Unlink(g); !errors.Is(err, ErrAlive) {
		t.Errorf("want it kept, got %v", err)
	}
	if live, err := g.Live(0); err != nil {
		t.Error(err)
	} else if v, ok := live.Value(g.Find("c")); !ok || v.Float != 20 {
		t.Errorf("want the newest row as a sample, got %+v", v)
	}
}

// How it ended is what its last row says.
func TestShadowEnd(t *testing.T) {
	for flags, want := range map[uint16]Liveness{layout.RowFinal: Closed, layout.RowEstimated: Dead} {
		dir := segtest.Store(t)
		s, _ := shadowOf(t, dir, [16]byte{})
		h := layout.RowHeader{RowNo: 3, BaseRow: 3, TBegin: s.H.BirthUnix, T: s.H.BirthUnix + 5e9, Flags: flags}
		s.PublishRow(0, 0, &h, []uint64{30})
		s.Close()
		g, err := OpenSegment(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		end, ended := g.End()
		if g.Liveness() != want || !ended || end != h.T || g.Head(0, 0) != 3 {
			t.Errorf("flags %d: want it %v at %d with 3 rows, got %v at %d with %d", flags, want, h.T, g.Liveness(), end, g.Head(0, 0))
		}
	}
}

// A segment of another boot is dead, whoever holds its lock and whatever its heartbeat says; its rows and last words are there. A shadow
// of another boot has its rows.
func TestAnotherBoot(t *testing.T) {
	if thisBoot() == [16]byte{} {
		t.Skip("no /proc/sys/kernel/random/boot_id to tell boots apart by")
	}
	other := [16]byte{1, 2, 3}
	for _, boot := range [][16]byte{{}, thisBoot(), other} {
		dir := segtest.Store(t)
		s := segtest.New(t, segtest.Options{})
		c := s.Series(t, 0, "c", layout.Counter, layout.U64, layout.BucketRange{})
		s.H.BootID = boot
		s.H.Encode(s.W)
		s.Publish(0, 0, 1, []uint64{10})
		s.Birth(t, dir)
		s.Lane(0, 0)[c.LaneCell] = 12
		store, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		for i := range 3 {
			s.Control(layout.CtlHeartbeat, uint64(segtest.BirthMono+int64(i)*int64(time.Second)))
			if _, err := store.Poll(); err != nil {
				t.Fatal(err)
			}
		}
		g := store.Segments()[0]
		if got := g.Liveness().Ended(); got != (boot == other) {
			t.Errorf("boot %x: want it ended %v, got %v", boot, boot == other, g.Liveness())
		}
		if boot != other {
			continue
		}
		var values []float64
		for row := range g.Rows(0, 0, 1) {
			v, _ := row.Value(g.Find("c"))
			values = append(values, v.Float)
		}
		if len(values) != 2 || values[0] != 10 || values[1] != 12 {
			t.Errorf("want its row of 10 and last words of 12, got %v", values)
		}
	}
	dir := segtest.Store(t)
	s, c := shadowOf(t, dir, other)
	g, err := OpenSegment(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if g.Liveness() != Dead || g.Head(0, 0) != 2 || c == nil {
		t.Errorf("want a shadow of another boot dead with 2 rows, got %v, %d", g.Liveness(), g.Head(0, 0))
	}
}
