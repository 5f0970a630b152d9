package archiver

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// maxWait bounds how long a row stays in its ring before it is due, however long that is: the rings are what
// a loss of power takes.
const maxWait = 10 * time.Minute

// segment is what is known of one. Of its labels and rows nothing is held.
type segment struct {
	seg    Segment
	id     [16]byte
	ino    uint64
	boot   [16]byte
	uid    int
	birth  int64 // unix ns
	tables []*table

	poll    uint64 // that saw it last
	located bool   // copy, and the tables' positions, are known
	copy    uint32
	epoch   uint32            // of the newest row written
	sources []*archive.Source // one an epoch, the newest last
	epochs  []uint32          // seen lately, the newest last

	exemplar uint64 // number of the last one written
	traced   bool   // that is known

	drained atomic.Bool
}

// table is one of a segment's.
type table struct {
	st   *segment
	n    int
	name string
	step time.Duration // of tier 0
	rows int           // of its ring
	half uint64        // so many are due
	home int           // archive tier
	fold bool          // its rows are finer than that tier

	last   uint64 // number of the last row written
	time   int64  // its time, unix ms; 0: unknown
	head   uint64 // as of the last poll
	plan   *plan
	cohort *cohort

	missed   missed
	over     bool // a flush was put off for the user's budget
	ending   bool // the writer has ended
	lastOnly bool // of what is left, the last row is all that is written
}

func (a *Archiver) newSegment(seg Segment) *segment {
	_, ino := seg.Inode()
	st := &segment{seg: seg, id: id16(seg.ID()), ino: ino, boot: id16(seg.BootID()), uid: seg.UID(), birth: seg.Start()}
	for n, t := range seg.Tables() {
		if len(t.Tiers) == 0 {
			continue
		}
		tier := t.Tiers[0]
		tb := &table{st: st, n: n, name: t.Name, step: tier.Step, rows: tier.Rows}
		tb.half = uint64(max(1, min(tier.Rows/2, int(maxWait/tier.Step))))
		tb.home, tb.fold = home(a.steps, tier.Step)
		st.tables = append(st.tables, tb)
	}
	return st
}

// home is the archive tier of rows of a step, and whether they are folded into it. FORMAT.md 14.
func home(steps []time.Duration, step time.Duration) (tier int, fold bool) {
	for i, s := range steps {
		if s <= step {
			tier = i
		}
	}
	return tier, step < steps[tier]
}

// epochsSeen is how many epochs of a segment are kept in mind.
const epochsSeen = 8

// see keeps an epoch in mind, of which rows have the low 16 bits only.
func (st *segment) see(epoch uint32) {
	if n := len(st.epochs); n > 0 && st.epochs[n-1] == epoch {
		return
	}
	st.epochs = append(slices.DeleteFunc(st.epochs, func(e uint32) bool { return e == epoch }), epoch)
	if len(st.epochs) > epochsSeen {
		st.epochs = st.epochs[1:]
	}
}

// fullEpoch is the epoch of which a row has the low 16 bits: one that was seen, else the one nearest to now.
func (st *segment) fullEpoch(now uint32, low uint16) uint32 {
	for _, e := range slices.Backward(st.epochs) {
		if uint16(e) == low {
			return e
		}
	}
	return now + uint32(int32(int16(low-uint16(now))))
}

func (st *segment) hasRows() bool {
	return slices.ContainsFunc(st.tables, func(t *table) bool { return st.seg.Head(t.n, 0) > 0 })
}

// release gives back what the tables hold of the archiver's.
func (st *segment) release(a *Archiver) {
	for _, t := range st.tables {
		a.leave(t)
		t.setPlan(nil)
	}
}

// source is the incarnation that rows of an epoch are of.
func (st *segment) source(epoch uint32) *archive.Source {
	for _, s := range st.sources {
		if s.Epoch == epoch && s.Copy == st.copy {
			return s
		}
	}
	s := &archive.Source{Key: archive.Key{Segment: st.id, Epoch: epoch, Copy: st.copy}, Group: id16(st.seg.Group()), Boot: st.boot,
		Birth: st.birth, Inode: st.ino, UID: st.uid, Labels: st.seg.Labels(), Attributes: st.seg.Attributes()}
	if len(st.sources) >= 4 {
		st.sources = slices.Delete(st.sources, 0, 1)
	}
	st.sources = append(st.sources, s)
	return s
}

func (t *table) setPlan(p *plan) {
	if p == t.plan {
		return
	}
	if t.plan != nil {
		t.plan.refs--
	}
	if p != nil {
		p.refs++
	}
	t.plan = p
}

// unflushed is how many rows are not written yet, as of the last poll: those that the ring still has.
func (t *table) unflushed() uint64 {
	if t.head < t.last {
		return min(t.head, uint64(t.rows)) // rewound
	}
	return min(t.head-t.last, uint64(t.rows))
}

// locate finds where the archive is with a segment. FORMAT.md 19.4.
func (a *Archiver) locate(st *segment) bool {
	found, err := a.w.Find(st.id)
	if err != nil {
		a.o.Logger.Warn("the archive can't be searched", "err", err)
		return false
	}
	next, known := uint32(0), false
	for _, inc := range found {
		next = max(next, inc.Copy+1)
		if inc.Inode == st.ino && inc.Boot == st.boot && (!known || inc.Copy > st.copy) {
			known, st.copy = true, inc.Copy
		}
	}
	for _, other := range a.ids[st.id] {
		if other != st && other.located {
			next = max(next, other.copy+1)
		}
	}
	if !known {
		st.copy = next
	}
	for _, inc := range found {
		if !known || inc.Copy != st.copy || inc.Inode != st.ino || inc.Boot != st.boot {
			continue
		}
		st.epoch = max(st.epoch, inc.Epoch)
		if !slices.Contains(st.epochs, inc.Epoch) {
			st.epochs = slices.Insert(st.epochs, 0, inc.Epoch)
		}
		for _, t := range st.tables {
			if t.n >= len(inc.Tables) {
				continue
			}
			for _, tt := range inc.Tables[t.n].Tiers {
				if tt.Tier != t.home || tt.Folded != t.fold {
					continue
				}
				last := tt.Last
				if t.fold {
					last = tt.Base
				}
				if last > t.last {
					t.last, t.time = last, tt.Newest
				}
			}
		}
	}
	a.mu.Lock()
	st.located = true
	a.mu.Unlock()
	return true
}
