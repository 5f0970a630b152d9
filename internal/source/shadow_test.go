package source

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/shadow"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// sampling is a fixture whose register samples, on the clock of the writers.
func sampling(t *testing.T) *fixture {
	var f *fixture
	f = newFixture(t, Options{DeadTTL: 10 * time.Second, Shadows: &shadow.Options{
		Clock: func() (int64, int64) { now := f.unix.Load(); return now, now }}})
	return f
}

func (f *fixture) sampled(job string) *writer.Writer {
	f.t.Helper()
	w, err := writer.Open(writer.Options{Job: job, Instance: "i", Dir: f.dir, Sampled: true,
		Clock: func() (int64, int64) { now := f.unix.Load(); return now, now }})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { w.Close() })
	return w
}

// seconds lets polls go by, a second apart.
func (f *fixture) seconds(n int) (last []*Segment) {
	f.t.Helper()
	for range n {
		f.step(time.Second)
		f.now = f.now.Add(time.Second)
		last = f.poll()
	}
	return last
}

func newest(t *testing.T, s *Segment, name string) (v reader.Value, row reader.Row) {
	t.Helper()
	head := s.Head(0, 0)
	s.Rows(0, 0, head, func(r *reader.Row) bool {
		for _, series := range s.Series() {
			if series.Name == name {
				v, _ = r.Value(series)
				row = *r
			}
		}
		return true
	})
	if row.No == 0 {
		t.Fatalf("want a row with %s, got none", name)
	}
	return v, row
}

// A sampled segment is shown as its shadow: one segment, its identity, rows that go on through a restart, and an end when its own
// writer has ended. Then both files go.
func TestSampled(t *testing.T) {
	f := sampling(t)
	w := f.sampled("s")
	n := w.Counter("n")
	if got := f.poll(); len(got) != 0 {
		t.Fatalf("want nothing shown before there are rows, got %d segments", len(got))
	}
	for range 5 {
		n.Add(2)
		f.seconds(1)
	}
	snap := f.r.Segments()
	if len(snap) != 1 {
		t.Fatalf("want one segment shown, got %d", len(snap))
	}
	s := snap[0]
	id := s.ID()
	if v, row := newest(t, s, "n"); v.Float != 10 || row.No != 6 || s.UID() != os.Getuid() || s.Liveness() != reader.Alive {
		t.Errorf("want row 6 of 10 of a living process of uid %d, got row %d of %g, %d, %v", os.Getuid(), row.No, v.Float, s.UID(), s.Liveness())
	}
	st := f.r.Stats()
	equal(t, "shadows", st.Shadows.Shadows, 1)
	equal(t, "alive", st.Alive, 1)
	equal(t, "sources", st.Sources, 1)

	// Another daemon.
	f.r.Close()
	var err error
	if f.r, err = Open(f.r.o); err != nil {
		t.Fatal(err)
	}
	n.Add(1)
	f.seconds(3)
	snap = f.r.Segments()
	if len(snap) != 1 || snap[0].ID() != id {
		t.Fatalf("want the same segment after a restart, got %d", len(snap))
	}
	if v, row := newest(t, snap[0], "n"); v.Float != 11 || row.No != 9 {
		t.Errorf("want 11 in row 9, got %g in %d", v.Float, row.No)
	}
	equal(t, "shadows gone on with", f.r.Stats().Shadows.Resumed, 1)

	n.Add(30)
	w.Close()
	snap = f.seconds(3)
	if len(snap) != 1 || snap[0].Liveness() != reader.Closed {
		t.Fatalf("want it shown as closed, got %v", snap)
	}
	v, row := newest(t, snap[0], "n")
	end, ended := snap[0].End()
	if v.Float != 41 || !row.Final || !ended || end != row.Time {
		t.Errorf("want a final row of 41 as the end, got %g in %+v, end %d", v.Float, row, end)
	}
	snap = f.seconds(15)
	left, _ := os.ReadDir(fmt.Sprintf("%s/%d", f.dir, os.Geteuid()))
	if len(snap) != 0 || len(left) != 0 || f.r.Stats().Unlinked != 1 {
		t.Errorf("want nothing shown, no file left and one unlinked, got %d, %v, %d", len(snap), left, f.r.Stats().Unlinked)
	}
}

// A shadow whose segment can't be unlinked first stays: without it a daemon that starts would make another.
func TestSampledHeld(t *testing.T) {
	f := sampling(t)
	w := f.sampled("s")
	w.Counter("n").Add(2)
	held := true
	f.r.Hold("archive", func(*Segment) bool { return !held })
	f.seconds(3)
	w.Close()
	f.seconds(20)
	files := func() int {
		left, _ := os.ReadDir(fmt.Sprintf("%s/%d", f.dir, os.Geteuid()))
		return len(left)
	}
	equal(t, "files while it is held", files(), 2)
	held = false
	f.seconds(2)
	equal(t, "files afterwards", files(), 0)
}

// Without sampling, another daemon's shadow is shown all the same, and the sampled segment not.
func TestSampledByAnother(t *testing.T) {
	f := sampling(t)
	f.sampled("s").Counter("n").Add(2)
	f.seconds(3)
	o := f.r.o
	o.Shadows = nil
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Poll(); err != nil || len(r.Segments()) != 1 {
		t.Fatalf("want one segment, got %d, %v", len(r.Segments()), err)
	}
	if v, _ := newest(t, r.Segments()[0], "n"); v.Float != 2 {
		t.Errorf("want 2, got %g", v.Float)
	}
}

// Exemplars of a sampled segment are found through its shadow, with the shadow's series, also after its writer has ended, and after a
// restart; those of any other segment are its own.
func TestExemplars(t *testing.T) {
	f := sampling(t)
	w := f.sampled("s")
	h := w.Histogram("h")
	offer := func(v float64, trace byte) {
		h.RecordExemplar(v, writer.Exemplar{TraceID: [16]byte{trace}, Time: time.Unix(0, int64(trace))})
	}
	of := func(s *Segment, from uint64) (all []reader.Exemplar) {
		s.Exemplars(from, func(x *reader.Exemplar) bool {
			all = append(all, *x)
			return true
		})
		return all
	}
	offer(0.5, 1)
	offer(0.25, 2)
	s := f.seconds(2)[0]
	if got := of(s, 0); len(got) != 2 || got[0].Value != 0.5 || got[1].Value != 0.25 || got[1].TraceID != [16]byte{2} || got[1].Series != s.Series()[0] || s.ExemplarHead() != 2 {
		t.Fatalf("want the two that were offered, of the shadow's series, got %+v up to %d", got, s.ExemplarHead())
	}
	f.r.Close()
	var err error
	if f.r, err = Open(f.r.o); err != nil {
		t.Fatal(err)
	}
	offer(0.75, 3)
	s = f.seconds(2)[0]
	if got := of(s, 3); len(got) != 1 || got[0].TraceID != [16]byte{3} {
		t.Errorf("after a restart: want the third, got %+v", got)
	}
	offer(0.5, 4)
	w.Close()
	s = f.seconds(3)[0]
	if got := of(s, 0); len(got) != 4 || s.Liveness() != reader.Closed || s.ExemplarHead() != 4 {
		t.Errorf("after the end: want four, got %+v of one that is %v", got, s.Liveness())
	}
	if c := f.r.Stats().Readers; c.SkippedExemplars != 0 || c.ExemplarsDropped != 0 {
		t.Errorf("want nothing counted, got %+v", c)
	}
	f.seconds(20) // its time to live
	if got := of(s, 0); len(got) != 0 || s.ExemplarHead() != 0 {
		t.Errorf("of one that is gone: want none, got %+v", got)
	}

	f2 := newFixture(t, Options{})
	w2, err := writer.Open(writer.Options{Job: "own", Instance: "i", Dir: f2.dir, NoTicker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	w2.Counter("c").AddExemplar(3, writer.Exemplar{TraceID: [16]byte{9}})
	if got := of(f2.poll()[0], 0); len(got) != 1 || got[0].Value != 3 {
		t.Errorf("of a segment that ticks: want its own, got %+v", got)
	}
}
