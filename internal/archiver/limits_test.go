package archiver

import (
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/writer"
)

// A user may write a minute's worth at once, waits when that and more is spent, and is told of as newly over once; tiers and users are apart.
func TestLimits(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := limits{rate: 10, at: map[userTier]*bucket{}}
	debt := func(what string, over, newly bool) {
		t.Helper()
		if o, n := l.debt(7, 1, now); o != over || n != newly {
			t.Errorf("%s: want over %v, newly %v, got %v, %v", what, over, newly, o, n)
		}
	}
	debt("nothing was written", false, false)
	l.spend(7, 1, burst*10, now)
	debt("a minute's worth", false, false)
	l.spend(7, 1, 1, now)
	debt("a byte more", true, true)
	debt("asked again", true, false)
	equal(t, "users over", l.over(now), 1)
	for _, other := range []userTier{{7, 0}, {8, 1}} {
		if over, _ := l.debt(other.uid, other.tier, now); over {
			t.Errorf("%+v: want it not over, got it over", other)
		}
	}
	l.spend(7, 1, 19, now) // 20 bytes
	now = now.Add(1900 * time.Millisecond)
	debt("before two seconds are over", true, false)
	equal(t, "users over", l.over(now), 1)
	now = now.Add(200 * time.Millisecond)
	equal(t, "users over", l.over(now), 0)
	debt("after two seconds", false, false)
	l.spend(7, 1, 30, now)
	debt("over again", true, true)
	now = now.Add(-time.Hour) // a clock that is stepped back gives nothing
	debt("an hour before", true, false)
	now = now.Add(2 * time.Hour)
	l.over(now)
	equal(t, "users that are kept in mind", len(l.at), 0)
	l.spend(7, 1, 1, now)
	l.over(now)
	equal(t, "users that have written", len(l.at), 1)
	now = now.Add(time.Hour)
	l.spend(7, 1, burst*10, now) // not more than a minute's worth was saved up
	debt("a minute's worth after an hour", false, false)
	l.spend(7, 1, 1, now)
	debt("and a byte", true, true)
	none := limits{at: map[userTier]*bucket{}}
	none.spend(7, 1, 1<<40, now)
	equal(t, "users without a rate", len(none.at), 0)
}

// turning is an archive whose extents are of 1,000 bytes, each block 100.
type turning struct {
	*archivetest.Memory
	end archive.Mark
}

func (w *turning) End(int) archive.Mark { return w.end }

func (w *turning) Append(tier int, blocks ...*archive.Block) error {
	if err := w.Memory.Append(tier, blocks...); err != nil {
		return err
	}
	if w.end.Generation == 0 || w.end.Offset+uint64(100*len(blocks)) > 1000 {
		w.end = archive.Mark{Generation: w.end.Generation + 1, Offset: extentHeader}
	}
	w.end.Offset += uint64(100 * len(blocks))
	return nil
}

// What is written is counted by tier, also where an extent is sealed in between, and its user is told of it.
func TestMeter(t *testing.T) {
	w := newSwept(t, 1, SweepOptions{})
	m := newMeter(&turning{Memory: archivetest.New(sweepSteps...)})
	spent := map[userTier]int64{}
	m.wrote = func(uid, tier int, bytes int64) { spent[userTier{uid, tier}] += bytes }
	block := func() *archive.Block {
		s := w.birth("j", 0)
		s.row(w.now, 1)
		s.row(w.now+1000, 1)
		return &archive.Block{Schema: s.schema, Step: time.Second, Sources: []archive.Rows{s.rows(false)}}
	}
	for range 20 {
		if err := m.Append(0, block()); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Append(0, block(), block()); err != nil {
		t.Fatal(err)
	}
	if err := m.Append(1, &archive.Block{Schema: w.schemas[0], Step: time.Second, Folded: true, Sources: []archive.Rows{{}}}); err == nil {
		t.Error("want no such block taken")
	}
	got := m.stats()
	if s := got[0]; s.Step != time.Second || s.Blocks != 22 || s.Rows != 44 || s.Samples != 88 || s.Bytes != 2200 || s.Time <= 0 {
		t.Errorf("want 22 blocks, 44 rows, 88 samples, 2200 bytes, got %+v", s)
	}
	if s := got[1]; s.Blocks != 0 || s.Bytes != 0 {
		t.Errorf("want nothing counted of what failed, got %+v", s)
	}
	equal(t, "bytes of user 7", spent[userTier{7, 0}], 2200)
	equal(t, "users", len(spent), 1)
}

// A source may get further rows as long as its segment is there, is this copy, is not drained, and is of this epoch or of one before.
func TestLive(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 2, ring(20))
	w.tick(3)
	if err := w.r.Poll(); err != nil {
		t.Fatal(err)
	}
	id := w.id("a")
	live := func(what string, key archive.Key, want bool) {
		t.Helper()
		equal(t, what, w.a.Live(key), want)
	}
	live("before it was looked at", archive.Key{Segment: id}, false)
	st := w.a.know(w.a.segments()[0])
	live("not looked up in the archive yet", archive.Key{Segment: id, Copy: 9}, true)
	w.step(15)
	live("this one", archive.Key{Segment: id}, true)
	live("another copy", archive.Key{Segment: id, Copy: 1}, false)
	live("another segment", archive.Key{Segment: [16]byte{1}}, false)
	k.w.SetEpoch(4)
	w.step(15)
	equal(t, "epoch of the newest row written", st.epoch, 4)
	live("an epoch that is over", archive.Key{Segment: id, Epoch: 3}, false)
	live("this epoch", archive.Key{Segment: id, Epoch: 4}, true)
	live("one that is to come", archive.Key{Segment: id, Epoch: 5}, true)
	w.end(k)
	w.poll()
	live("drained", archive.Key{Segment: id, Epoch: 4}, false)
}

// Rows of a table without series hold nothing: they are passed over, not lost, and those with series are written.
func TestNoSeries(t *testing.T) {
	w := newWorld(t, Options{})
	tables := append(ring(20), ring(10)...)
	tables[1].Name = "u"
	k := w.writer("a", 2, tables)
	w.step(25)
	id := w.id("a")
	seg := w.a.segments()[0]
	st := w.a.know(seg)
	if u := st.tables[1]; u.last != seg.Head(1, 0) || u.last != 25 || u.cohort != nil || u.time != 0 {
		t.Errorf("want the rows of a table without series passed over, up to 25, got %d, cohort %v", u.last, u.cohort)
	}
	late := k.w.Counter("late", writer.InTable("u"))
	late.Add(1)
	w.step(15)
	w.end(k)
	w.poll()
	whole(t, w.archived(id, 0, 0), 1, k.n)
	for reason, n := range w.a.Stats().Lost {
		equal(t, "lost, "+reason, n, 0)
	}
}
