package archiver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// Rows of each epoch are another incarnation's, and the epoch is the whole one, of which a row has 16 bits.
func TestEpochs(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 2, ring(20))
	w.step(12)
	id := w.id("a")
	k.w.SetEpoch(1<<16 + 5)
	w.step(3)
	k.w.SetEpoch(1<<16 + 6)
	w.restart()
	w.step(1)
	k.w.SetEpoch(1<<17 + 7) // 16 bits that are near
	w.step(30)
	w.end(k)
	w.poll()
	rows := w.archived(id, 0, 0)
	whole(t, rows, 1, k.n)
	for no, key := range rows {
		want := uint32(0)
		switch {
		case no > 16:
			want = 1<<17 + 7
		case no > 15:
			want = 1<<16 + 6
		case no > 12:
			want = 1<<16 + 5
		}
		if key.Epoch != want || key.Copy != 0 {
			t.Errorf("row %d: want epoch %#x, got %+v", no, want, key)
		}
	}
}

func TestFullEpoch(t *testing.T) {
	for _, c := range []struct {
		now  uint32
		low  uint16
		want uint32
	}{{0, 0, 0}, {5, 4, 4}, {0x10000, 0xffff, 0xffff}, {0xffff, 0, 0x10000}, {0x2ffff, 1, 0x30001}, {0x30001, 0xfffe, 0x2fffe}} {
		equal(t, fmt.Sprintf("epoch %#x, row's %#x", c.now, c.low), new(segment).fullEpoch(c.now, c.low), c.want)
	}
	st := &segment{}
	for e := range uint32(20) {
		st.see(e << 17)
		st.see(3)
	}
	equal(t, "epochs kept in mind", len(st.epochs), epochsSeen)
	equal(t, "one that was seen", st.fullEpoch(7<<17, 3), 3)
}

// A copied file is another copy of the incarnation, also after a restart.
func TestCopies(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 2, ring(20))
	w.step(13)
	id := w.id("a")
	path := w.r.Segments()[0].Path()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A copy has no lock: its writer is dead, and its last words are those of row 14.
	name := filepath.Base(path)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "b"+name), b, 0o444); err != nil {
		t.Fatal(err)
	}
	w.step(4)
	w.restart()
	w.step(30)
	w.end(k)
	w.poll()
	found, err := w.w.Find(id)
	if err != nil || len(found) != 2 || found[0].Inode == found[1].Inode {
		t.Fatalf("want two copies, got %d, %v", len(found), err)
	}
	byCopy := map[uint32]map[uint64]bool{}
	w.each(id, 0, 0, func(inc *archive.Incarnation, c *archive.Chunk, _ []archive.Column) {
		if byCopy[inc.Copy] == nil {
			byCopy[inc.Copy] = map[uint64]bool{}
		}
		for _, no := range c.Numbers {
			if byCopy[inc.Copy][no] {
				t.Errorf("copy %d: row %d twice", inc.Copy, no)
			}
			byCopy[inc.Copy][no] = true
		}
	})
	live, dead := 0, 1
	if len(byCopy[0]) < len(byCopy[1]) {
		live, dead = 1, 0
	}
	equal(t, "rows of the living one", len(byCopy[uint32(live)]), int(k.n))
	equal(t, "rows of the copy, with its last words", len(byCopy[uint32(dead)]), 14)
	// What the archive has of it is behind its rings now.
	w.restart()
	w.poll()
	equal(t, "rows written after a restart", w.a.Stats().Tiers[0].Rows, 0)
}

// Row numbers that began anew, in the same file, are another copy's.
func TestRewound(t *testing.T) {
	w := newWorld(t, Options{})
	k := w.writer("a", 2, ring(20))
	w.step(25)
	id := w.id("a")
	// As if the archive had seen rows up to 1,000 of this very file.
	st := w.a.know(w.a.segments()[0])
	src := *st.source(0)
	p := st.tables[0].plan
	block := &archive.Block{Schema: p.Schema, Step: time.Second, Sources: []archive.Rows{{Source: &src, Numbers: []uint64{1000}, Times: []int64{1}, Base: 1000,
		Starts: make([]int64, len(p.Series)), Cells: make([][]uint64, p.columns)}}}
	for i, s := range p.shapes {
		for f := range s.fields {
			block.Sources[0].Cells[s.column+f] = make([]uint64, p.shapes[i].width)
		}
	}
	if err := w.w.Append(0, block); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.step(30)
	w.end(k)
	w.poll()
	var second []uint64
	w.each(id, 0, 0, func(inc *archive.Incarnation, c *archive.Chunk, _ []archive.Column) {
		if inc.Copy == 1 {
			second = append(second, c.Numbers...)
		}
	})
	slices.Sort(second)
	if len(second) < 31 || second[len(second)-1] != k.n || len(slices.Compact(slices.Clone(second))) != len(second) {
		t.Errorf("want the rows up to %d once each, as copy 1's, got %v", k.n, second)
	}
}

// Series come and go, and their descriptors and cells are used again: each has its rows, and no other's.
func TestChurn(t *testing.T) {
	w := newWorld(t, Options{})
	tables := ring(20)
	tables[0].Tiers = tables[0].Tiers[:1] // or a descriptor is kept for ten minutes
	k := w.writer("a", 3, tables)
	want := map[string]map[uint64]uint64{}
	seen := func() {
		seg := w.a.segments()[0]
		head := seg.Head(0, 0)
		seg.Take(0, 0, func([]*reader.Series, uint64, uint32) (uint64, bool) { return head, true }, func(r *reader.Row) bool {
			for _, s := range seg.Series() {
				if v, ok := r.Value(s); ok && strings.HasPrefix(s.Name, "x") {
					if want[s.Name] == nil {
						want[s.Name] = map[uint64]uint64{}
					}
					want[s.Name][r.No] = uint64(v.Int)
				}
			}
			return true
		})
	}
	w.step(1)
	id := w.id("a")
	var alive []*writer.Counter
	for i := range 150 {
		// Names of its own, and some that come again.
		name := fmt.Sprint("x", i)
		if i%5 == 0 {
			name = "xagain"
		}
		c := k.w.Counter(name, writer.Label("n", fmt.Sprint(i%2)))
		c.Add(uint64(1000 + i))
		alive = append(alive, c)
		if len(alive) > 3 {
			alive[0].Retire()
			alive = alive[1:]
		}
		w.step(1)
		seen()
		if i%40 == 39 {
			w.restart()
		}
	}
	again := uint32(0)
	for _, s := range w.r.Segments()[0].Series() {
		_, generation := s.Descriptor()
		again = max(again, generation)
	}
	if again < 2 || len(w.r.Segments()) != 1 {
		t.Fatalf("want one segment whose descriptors were used again, got %d, the latest generation %d", len(w.r.Segments()), again)
	}
	w.end(k)
	w.poll()
	got := map[string]map[uint64]uint64{}
	w.each(id, 0, 0, func(_ *archive.Incarnation, c *archive.Chunk, cols []archive.Column) {
		for j, col := range cols {
			for i, no := range c.Numbers {
				if name := col.Series.Name; c.Cells[j] != nil && (c.Present[j] == nil || c.Present[j][i]) && strings.HasPrefix(name, "x") && no < k.n {
					if got[name] == nil {
						got[name] = map[uint64]uint64{}
					}
					got[name][no] = c.Cells[j][i]
				}
			}
		}
	})
	for name, rows := range want {
		for no, v := range rows {
			if have, ok := got[name][no]; name != "xagain" && (!ok || have != v) {
				t.Errorf("%s, row %d: want %d, got %d, %v", name, no, v, have, ok)
			}
		}
		if name != "xagain" && len(got[name]) != len(rows) {
			t.Errorf("%s: want %d rows, got %d", name, len(rows), len(got[name]))
		}
	}
	if len(got["xagain"]) == 0 {
		t.Error("want rows of a name that came again, got none")
	}
	whole(t, w.archived(id, 0, 0), 1, k.n)
	if n := w.a.plans.n; n > 3*plansKept {
		t.Errorf("want schemas that nobody has forgotten, got %d", n)
	}
}

// narrow is an archive whose extents hold blocks of few values.
type narrow struct {
	*archivetest.Memory
	most int
}

func (n *narrow) Append(tier int, blocks ...*archive.Block) error {
	for _, b := range blocks {
		values := 0
		for _, s := range b.Sources {
			values += len(s.Times) * len(b.Schema.Series)
		}
		if values > n.most {
			return archive.ErrTooLarge
		}
	}
	return n.Memory.Append(tier, blocks...)
}

// A block that does not fit is split by sources, then by rows.
func TestSplits(t *testing.T) {
	n := &narrow{archivetest.New(time.Second), 20}
	w := newWorld(t, Options{Archive: n})
	var ks []*ticking
	for i := range 5 {
		ks = append(ks, w.writer(fmt.Sprint(i), 2, ring(40)))
	}
	w.step(60)
	var ids [][16]byte
	for i := range ks {
		ids = append(ids, w.id(fmt.Sprint(i)))
	}
	for _, k := range ks {
		w.end(k)
	}
	w.poll()
	for i, k := range ks {
		whole(t, w.archived(ids[i], 0, 0), 1, k.n)
		found, _ := w.w.Find(ids[i])
		if len(found) != 1 || found[0].Ended == 0 {
			t.Errorf("%d: want it ended, got it not", i)
		}
	}
	// Not even a row: counted, and the next one is tried.
	n.most = 0
	k := w.writer("broad", 2, ring(40))
	w.step(5)
	w.end(k)
	w.poll()
	equal(t, "lost", w.a.Stats().Lost[LostTooLarge], 6)
}

// owned is a segment of another user.
type owned struct {
	*source.Segment
	uid int
}

func (o owned) UID() int { return o.uid }

// A user that writes too much loses rows of that tier, counted, but not its totals; others lose nothing.
func TestBudget(t *testing.T) {
	w := newWorld(t, Options{Archive: archivetest.New(time.Second), UserBytesPerSecond: 1})
	inner := w.a.segments
	w.a.segments = func() (out []Segment) {
		for _, s := range inner() {
			seg := s.(*source.Segment)
			uid := 7
			if slices.Contains(seg.Labels(), reader.Pair{Name: "instance", Value: "loud"}) {
				uid = 8
			}
			out = append(out, owned{seg, uid})
		}
		return out
	}
	// A block of this archive has 8 bytes: the loud one has so many schemas that it writes many.
	w.a.w.wrote = func(uid, tier int, n int64) {
		if uid == 8 {
			n *= 50
		}
		w.a.users.spend(uid, tier, n, w.o.Now())
	}
	quiet, loud := w.writer("quiet", 2, ring(10)), w.writer("loud", 2, ring(10))
	w.step(80)
	id, idLoud := w.id("quiet"), w.id("loud")
	if s := w.a.Stats(); s.Over != 1 {
		t.Errorf("want one user over, got %d", s.Over)
	}
	w.end(quiet)
	w.end(loud)
	w.poll()
	whole(t, w.archived(id, 0, 0), 1, quiet.n)
	rows := w.archived(idLoud, 0, 0)
	s := w.a.Stats()
	if s.Lost[LostBudget] == 0 || s.Lost[LostOverrun] != 0 {
		t.Errorf("want rows lost for the budget alone, got %v", s.Lost)
	}
	equal(t, "archived and lost", uint64(len(rows))+s.Lost[LostBudget], loud.n)
	if _, ok := rows[loud.n]; !ok {
		t.Error("want the final row kept, got it lost")
	}
}
