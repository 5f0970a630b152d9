package archiver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// lossy is an archive on a disk that fails when it is told to, and then holds what was synced, and nothing else.
type lossy struct {
	archive.Writer
	t       testing.TB
	dir     string
	saved   map[string][]byte // as of the last sync
	failing error             // what Append answers
	err     error             // why it is stopped
	unread  error             // what Find answers
	syncs   int
}

func newLossy(t testing.TB) *lossy {
	l := &lossy{t: t, dir: t.TempDir()}
	l.Writer = open(t, l.dir, 4<<20)
	l.save()
	return l
}

func (l *lossy) save() {
	l.t.Helper()
	paths, err := filepath.Glob(filepath.Join(l.dir, "*.tier"))
	if err != nil || len(paths) == 0 {
		l.t.Fatalf("want tiers, got %q, %v", paths, err)
	}
	l.saved = map[string][]byte{}
	for _, path := range paths {
		if l.saved[path], err = os.ReadFile(path); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lossy) Append(tier int, blocks ...*archive.Block) error {
	if l.failing != nil {
		l.err = l.failing
		return l.err
	}
	return l.Writer.Append(tier, blocks...)
}

func (l *lossy) Find(segment [16]byte) ([]*archive.Incarnation, error) {
	if l.unread != nil {
		return nil, l.unread
	}
	return l.Writer.Find(segment)
}

func (l *lossy) Sync() error {
	l.syncs++
	err := l.Writer.Sync()
	l.save()
	return err
}

func (l *lossy) Err() error { return l.err }

func (l *lossy) Mend() error {
	l.t.Helper()
	if l.failing != nil {
		return l.failing
	}
	if err := l.Writer.Close(); err != nil {
		l.t.Fatal(err)
	}
	for path, b := range l.saved {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	l.Writer = open(l.t, l.dir, 4<<20)
	l.err = nil
	return nil
}

// finished tells of every segment of the store whether it may be unlinked, by instance.
func (w *world) finished() map[string]bool {
	out := map[string]bool{}
	for _, s := range w.r.Segments() {
		for _, p := range s.Labels() {
			if p.Name == "instance" {
				out[p.Value] = w.a.Finished(s)
			}
		}
	}
	return out
}

// A failing disk takes back what was not synced: it is written again, all of it, once; what had been drained is not finished any more.
func TestTakenBack(t *testing.T) {
	l := newLossy(t)
	w := newWorld(t, Options{Archive: l, SyncInterval: time.Hour})
	w.a.synced = w.o.Now() // the first sync is an hour away
	living, drained, ending := w.writer("living", 2, ring(40)), w.writer("drained", 2, ring(40)), w.writer("ending", 2, ring(40))
	w.step(25)
	ids := map[string][16]byte{}
	for _, name := range []string{"living", "drained", "ending"} {
		ids[name] = w.id(name)
	}
	w.end(drained)
	w.poll()
	if f := w.finished(); !f["drained"] || w.a.Stats().Tiers[0].Rows <= drained.n {
		t.Fatalf("want one drained and the others written in part, got %v and %+v", f, w.a.Stats().Tiers[0])
	}
	l.failing = errors.New("no disk")
	w.end(ending)
	w.poll()
	if f := w.finished(); f["drained"] || f["ending"] || w.a.Stopped() == nil {
		t.Errorf("stopped by the drain of another: want nothing finished, got %v, stopped %v", f, w.a.Stopped())
	}
	l.failing = nil
	w.step(3)
	if f := w.finished(); !f["drained"] || !f["ending"] || w.a.Stopped() != nil {
		t.Errorf("mended: want both finished, got %v, stopped %v", f, w.a.Stopped())
	}
	equal(t, "syncs", l.syncs, 0)
	// What was synced is found again, and not written again.
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	have, before := len(w.archived(ids["living"], 0, 0)), w.a.Stats().Tiers[0].Rows
	l.err = errors.New("no disk")
	w.step(3)
	w.end(living)
	w.poll()
	equal(t, "rows written once it was mended again", w.a.Stats().Tiers[0].Rows-before, living.n-uint64(have))
	for name, k := range map[string]*ticking{"living": living, "drained": drained, "ending": ending} {
		whole(t, w.archived(ids[name], 0, 0), 1, k.n)
	}
	for reason, n := range w.a.Stats().Lost {
		equal(t, "lost, "+reason, n, 0)
	}
	if err := w.a.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "syncs, the one by Close included", l.syncs, 2)
}

// A segment that the archive can't be asked about is not finished, however it ended.
func TestNotLocated(t *testing.T) {
	l := newLossy(t)
	w := newWorld(t, Options{Archive: l})
	k := w.writer("a", 2, ring(40))
	w.tick(5)
	if err := w.r.Poll(); err != nil {
		t.Fatal(err)
	}
	id := w.id("a")
	l.unread = errors.New("can't be read")
	w.end(k)
	w.poll()
	if f := w.finished(); f["a"] || w.a.Stats().Drained > 0 {
		t.Errorf("want it not finished, got %v, %+v", f, w.a.Stats())
	}
	l.unread = nil
	w.poll()
	if f := w.finished(); !f["a"] {
		t.Errorf("want it finished, got %v", f)
	}
	whole(t, w.archived(id, 0, 0), 1, k.n)
}

// What is written is synced within the interval, and what is not is not.
func TestSynced(t *testing.T) {
	l := newLossy(t)
	w := newWorld(t, Options{Archive: l})
	w.writer("a", 2, ring(20))
	for range 60 {
		blocks, syncs := w.a.Stats().Tiers[0].Blocks, l.syncs
		if w.step(1); w.a.Stats().Tiers[0].Blocks == blocks {
			continue
		}
		w.clock.Add(5e9)
		w.poll()
		equal(t, "syncs after a block", l.syncs, syncs+1)
		w.clock.Add(5e9)
		w.poll()
		equal(t, "syncs after nothing", l.syncs, syncs+1)
	}
	if l.syncs == 0 {
		t.Error("want blocks, and syncs, got none")
	}
}

// Copies of one file that are found at once are each a copy of their own, and have the row that a dead writer's ring has no room for.
func TestCopiesAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	w.writer("a", 2, ring(20))
	w.tick(20)
	if err := w.r.Poll(); err != nil {
		t.Fatal(err)
	}
	id, path := w.id("a"), w.r.Segments()[0].Path()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name+filepath.Base(path)), b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	w.poll()
	w.poll()
	rows := map[uint32]int{}
	w.each(id, 0, 0, func(inc *archive.Incarnation, c *archive.Chunk, _ []archive.Column) { rows[inc.Copy] += len(c.Numbers) })
	n := 0
	for _, have := range rows {
		if have == 21 {
			n++
		}
	}
	if len(rows) < 2 || n != 2 {
		t.Errorf("want two copies of 21 rows, got %v by copy", rows)
	}
}

// A disk that is mended has lost what was folded since the last sync, as far as the sweeper knows it was: it is folded again, and nothing else twice.
func TestMendedSweep(t *testing.T) {
	w := newSwept(t, 3, SweepOptions{})
	l := newLossy(t)
	w.mem = l
	w.restart()
	var all []*sweptSource
	for range 3 {
		all = append(all, w.birth("j", 0))
	}
	live := func(seconds int) {
		for range seconds {
			w.now += 1000
			for _, s := range all {
				s.row(w.now, 2)
			}
			if len(all[0].waiting) == 60 {
				w.flush(all...)
			}
			w.sweep()
		}
	}
	lose := func() {
		t.Helper()
		l.err = errors.New("no disk")
		if err := w.s.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	live(900)
	if n := len(w.read(all[0].Key, 1)); n == 0 {
		t.Fatal("want rows folded, got none")
	}
	for _, s := range all { // the fine rows are on the disk, and nothing that was folded is
		if len(s.waiting) != 0 {
			t.Fatalf("want all flushed, got %d waiting", len(s.waiting))
		}
	}
	folded := w.s.Stats().Folded
	coarse := l.saved[filepath.Join(l.dir, "10s.tier")]
	l.save()
	l.saved[filepath.Join(l.dir, "10s.tier")] = coarse
	lose()
	if n := len(w.read(all[0].Key, 1)); n != 0 {
		t.Fatalf("want what was folded lost, got %d rows", n)
	}
	live(60)
	if w.s.Stats().Folded <= folded {
		t.Error("mended: want rows folded again, got none")
	}
	l.save()
	lose() // of nothing
	live(60)
	w.end()
	for _, s := range all {
		for tier := 1; tier <= 2; tier++ {
			rows, covered := w.read(s.Key, tier), uint64(0)
			for _, r := range rows {
				covered += r.coverage
			}
			if last := rows[len(rows)-1]; covered != uint64(len(s.all)) || last.value != s.all[len(s.all)-1].value || !last.end {
				t.Errorf("tier %d: want %d rows covered, each once, got %d, up to %+v", tier, len(s.all), covered, last)
			}
		}
	}
}
