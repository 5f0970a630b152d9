package archive

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/testenv"
)

// what a test knows that it has appended to a tier.
type appended struct {
	generation uint64
	rows       map[rowID]bool
	synced     bool
}

// A run is an archive on a sim, and what must be in it.
type run struct {
	t       testing.TB
	seed    uint64
	r       *rand.Rand
	w       *world
	s       *sim
	a       *Archive
	o       Options
	all     [][]appended
	floor   []uint64 // generations up to it may have been evicted
	last    []uint64
	extents []int
	marks   []uint64 // set
	synced  []uint64 // marks that are synced
}

func newRun(t testing.TB, seed uint64) *run {
	r := rand.New(rand.NewPCG(seed, 99))
	n := len(testTiers)
	return &run{t: t, seed: seed, r: r, w: newWorld(t), s: newSim(r), o: Options{Dir: "d", Tiers: testTiers, ExtentSize: minExtentSize},
		all: make([][]appended, n), floor: make([]uint64, n), last: make([]uint64, n), extents: make([]int, n), marks: make([]uint64, n), synced: make([]uint64, n)}
}

// open opens the archive, which may fail where the power is cut.
func (r *run) open() error {
	r.o.Files = r.s
	for i, t := range r.o.Tiers {
		if n := extents(t.Budget, minExtentSize); r.extents[i] == 0 || n < r.extents[i] { // what a shrinking takes may be gone from now on
			r.extents[i] = n
		}
		r.look(i)
	}
	a, err := Open(r.o)
	if err != nil {
		return err
	}
	for i, t := range r.o.Tiers {
		r.extents[i] = extents(t.Budget, minExtentSize)
		r.last[i] = max(r.last[i], a.tiers[i].w.last)
	}
	r.a = a
	return nil
}

// look notes what may have been evicted of a tier by now.
func (r *run) look(tier int) {
	if r.a != nil {
		r.last[tier] = max(r.last[tier], r.a.tiers[tier].w.last)
	}
	if n := uint64(r.extents[tier]); r.last[tier] > n {
		r.floor[tier] = max(r.floor[tier], r.last[tier]-n)
	}
}

// act does something at random. An error is that of the files.
func (r *run) act() error {
	tier := r.r.IntN(len(r.o.Tiers))
	switch k := r.r.IntN(46); {
	case k >= 40:
		var sources []int
		for i := range 1 + r.r.IntN(4) {
			sources = append(sources, r.r.IntN(30)*8+2*i)
		}
		parts := r.w.exemplars(r.r, sources, 1+r.r.IntN(200))
		err := r.a.AppendExemplars(parts...)
		r.look(0)
		if err == nil {
			r.all[0] = append(r.all[0], appended{r.a.End(0).Generation, exemplarIDs(parts), false})
		}
		return err
	case k < 30:
		var blocks []*Block
		for range 1 + r.r.IntN(2) {
			first, n := r.r.IntN(30)*2, 1+r.r.IntN(4)
			var sources []int
			for i := range n {
				sources = append(sources, first+2*i)
			}
			rows := 1 + r.r.IntN(20)
			if r.r.IntN(10) == 0 {
				rows = 300
			}
			blocks = append(blocks, r.w.block(r.r, r.w.schemas[r.r.IntN(3)], tier > 0, sources, rows))
		}
		err := r.a.Append(tier, blocks...)
		r.look(tier)
		if errors.Is(err, ErrTooLarge) {
			return nil
		}
		if err != nil {
			return err
		}
		rows := map[rowID]bool{}
		for _, b := range blocks {
			for id := range rowsOf(b) {
				rows[id] = true
			}
		}
		r.all[tier] = append(r.all[tier], appended{r.a.End(tier).Generation, rows, false})
	case k < 33:
		err := r.a.SetMark(tier, Mark{r.marks[tier] + 1, 7})
		r.look(tier)
		r.marks[tier]++ // it may be there, too, if it failed
		return err
	case k < 38:
		if err := r.a.Sync(); err != nil {
			return err
		}
		for i := range r.all {
			for j := range r.all[i] {
				r.all[i][j].synced = true
			}
			r.synced[i] = r.marks[i]
		}
	default: // opened again, with another budget
		if err := r.a.Close(); err != nil {
			return err
		}
		tiers := make([]TierOptions, len(testTiers))
		for i, t := range testTiers {
			tiers[i] = TierOptions{t.Step, 4096 + int64(2+r.r.IntN(4))*minExtentSize}
		}
		r.o.Tiers = tiers
		return r.open()
	}
	return nil
}

// check holds an opened archive against what must be in it, and forgets what is not, and need not be.
func (r *run) check(killed bool) {
	r.t.Helper()
	for tier := range r.o.Tiers {
		got, wrong := r.w.read(r.a, tier)
		for _, word := range wrong {
			r.t.Fatalf("seed %d: %s", r.seed, word)
		}
		var left []appended
		for _, ap := range r.all[tier] {
			there := true
			for id := range ap.rows {
				there = there && got[id]
			}
			if !there && (ap.synced || killed) && ap.generation > r.floor[tier] {
				r.t.Fatalf("seed %d: tier %d: rows of generation %d are gone: synced %v, killed %v, evicted at most up to %d of %d, extents %d", r.seed, tier, ap.generation, ap.synced, killed, r.floor[tier], r.last[tier], r.extents[tier])
			}
			if there {
				left = append(left, ap)
			}
		}
		r.all[tier] = left
		if m, _ := r.a.Marked(tier); m.Generation > r.marks[tier] || m.Generation < r.synced[tier] {
			r.t.Fatalf("seed %d: tier %d: mark: want %d to %d, got %d", r.seed, tier, r.synced[tier], r.marks[tier], m.Generation)
		} else {
			r.marks[tier] = m.Generation
		}
	}
}

// beside has a process that only reads find all that the writer has: it goes by trailers, which may be older than what they are of.
func (r *run) beside() {
	r.t.Helper()
	a, err := openReader(r.o.Dir, r.s)
	if err != nil {
		r.t.Fatalf("seed %d: %v", r.seed, err)
	}
	for tier := range r.o.Tiers {
		got, wrong, err := r.w.readAll(a, tier)
		if err != nil || len(wrong) > 0 {
			r.t.Fatalf("seed %d: tier %d, as others read it: %v %v", r.seed, tier, err, wrong)
		}
		for _, ap := range r.all[tier] {
			for id := range ap.rows {
				if !got[id] {
					r.t.Fatalf("seed %d: tier %d, as others read it: row %d of generation %d is not there", r.seed, tier, id.no, ap.generation)
				}
			}
		}
	}
	if err := a.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// fork is the run as it goes on from an image.
func (r *run) fork(s *sim) *run {
	c := *r
	c.s, c.a = s, nil
	c.all = append([][]appended(nil), r.all...)
	for _, list := range []*[]uint64{&c.floor, &c.last, &c.marks, &c.synced} {
		*list = append([]uint64(nil), *list...)
	}
	c.extents = append([]int(nil), r.extents...)
	next := map[Key]uint64{}
	for k, v := range r.w.next {
		next[k] = v
	}
	c.w = &world{r.w.schemas, next, r.w.spoiled, r.w.known}
	return &c
}

// The power is cut, or the process killed, at any write, sync, allocation and truncation, under appends, marks, syncs, reuse and
// changed budgets: never a wrong value afterwards, nothing gone that was synced, and it goes on.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	want := testenv.Number(t, "SHMTS_CRASHES", 1500, 1500)
	images, cuts, recovering := 0, 0, 0
	for seed := uint64(0); images < want; seed++ {
		r := newRun(t, seed)
		if seed%2 == 1 { // cut while it is made
			r.s.left = r.r.IntN(20)
		}
		for err := r.open(); err != nil; err = r.open() {
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			r = r.fork(r.s.image(r.r.IntN(2) == 0))
			cuts++
			images++
		}
		for range 12 {
			r.s.left = r.r.IntN(120)
			var err error
			for err == nil {
				err = r.act()
			}
			if !errors.Is(err, errCut) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			cuts++
			var next *run
			for i := range 6 {
				killed := i == 0
				c := r.fork(r.s.image(killed))
				if r.r.IntN(3) == 0 { // once more, while it is recovered
					c.s.left = r.r.IntN(15)
				}
				err := c.open()
				if errors.Is(err, errCut) {
					again := r.r.IntN(2) == 0
					killed = killed && again
					c = c.fork(c.s.image(again))
					err = c.open()
					images++
					recovering++
				}
				if err != nil {
					t.Fatalf("seed %d: cut %d: open: %v", seed, cuts, err)
				}
				c.s.left = -1
				c.check(killed)
				images++
				if next == nil || r.r.IntN(2) == 0 {
					next = c
				}
			}
			// It goes on, with all that it has: also where it was not the last loss.
			r = next
			for range 5 {
				if err := r.act(); err != nil {
					t.Fatalf("seed %d: after cut %d: %v", seed, cuts, err)
				}
			}
			r.check(true)
			r.beside()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
	t.Logf("%d images after %d cuts, %d of them while one was recovered", images, cuts, recovering)
}

var errIO = errors.New("input/output error")

// Writes and syncs fail: the archive stops and says why, Mend goes on with what is on the disk, and that is right.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	for seed := range uint64(testenv.Number(t, "SHMTS_CRASHES", 1500, 1500) / 50) {
		r := newRun(t, seed)
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			for range r.r.IntN(30) {
				if err := r.act(); err != nil {
					t.Fatal(err)
				}
			}
			if r.r.IntN(2) == 0 {
				r.s.failW = errIO
			} else {
				r.s.failS = errIO
			}
			failed := false
			for !failed {
				tier := r.r.IntN(2)
				err := r.a.Append(tier, r.w.block(r.r, r.w.schemas[0], tier > 0, []int{2}, 5))
				r.look(tier)
				if err == nil {
					err = r.a.Sync()
				}
				if failed = err != nil; failed && !errors.Is(err, errIO) {
					t.Fatalf("seed %d: want %v, got %v", seed, errIO, err)
				}
			}
			if err := r.a.Err(); !errors.Is(err, errIO) {
				t.Fatalf("seed %d: Err: want %v, got %v", seed, errIO, err)
			}
			if err := r.a.Append(0, r.w.block(r.r, r.w.schemas[0], false, []int{4}, 5)); !errors.Is(err, ErrStopped) {
				t.Fatalf("seed %d: stopped: want %v, got %v", seed, ErrStopped, err)
			}
			if err := r.a.Sync(); !errors.Is(err, ErrStopped) {
				t.Fatalf("seed %d: stopped: want %v, got %v", seed, ErrStopped, err)
			}
			if err := r.a.Mend(); err == nil && r.s.failW != nil && r.a.Tiers()[0].Used+r.a.Tiers()[1].Used > 0 {
				t.Fatalf("seed %d: mend of a disk that fails: want an error", seed)
			} else if err != nil && r.a.Err() == nil {
				t.Fatalf("seed %d: mend failed, and the archive goes on", seed)
			}
			r.s.failW, r.s.failS = nil, nil
			if err := r.a.Mend(); err != nil || r.a.Err() != nil {
				t.Fatalf("seed %d: mend: %v, %v", seed, err, r.a.Err())
			}
			for i := range r.all {
				r.look(i)
			}
			r.check(false)
			// What it shows now outlives the process and, synced, the power.
			if err := r.a.Sync(); err != nil {
				t.Fatal(err)
			}
			r.check(true)
			c := r.fork(r.s.image(false))
			if err := c.open(); err != nil {
				t.Fatal(err)
			}
			c.check(true)
		}
	}
}

// There is no room: an error that says so, and nothing left behind; a tier that can't grow keeps its size.
func TestNoSpace(t *testing.T) {
	s := newSim(rand.New(rand.NewPCG(1, 1)))
	s.space = 4096 + 5*minExtentSize
	o := Options{Dir: "d", Tiers: testTiers, ExtentSize: minExtentSize, Files: s}
	if a, err := Open(o); !errors.Is(err, errNoSpace) {
		t.Fatalf("want %v, got %v, %v", errNoSpace, a, err)
	}
	if names, _ := s.List("d"); len(names) != 1 || s.locked {
		t.Errorf("want the first tier and no lock, got %q, locked %v", names, s.locked)
	}
	o.Tiers = testTiers[:1]
	a := mustOpen(t, o)
	w, r := newWorld(t), rand.New(rand.NewPCG(1, 2))
	b := w.block(r, w.schemas[0], false, []int{0}, 10)
	if err := a.Append(0, b); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	o.Tiers = []TierOptions{{time.Second, 4096 + 9*minExtentSize}}
	a = mustOpen(t, o)
	checkWorld(t, w, a, 0, rowsOf(b))
	if st := a.Tiers()[0]; st.Extents != 4 || st.Size != 4096+4*minExtentSize {
		t.Errorf("no room to grow: want 4 extents, got %+v", st)
	}
}
