// Package archiver moves rows from segments into the archive, and decides what is written when.
//
// The segments are the write-ahead log: a table's rows stay in its ring until they are half of it, and are then taken, with
// those of up to 63 other tables of the same schema and owner, into one block. Nothing else is held: no unflushed
// rows, no labels, no file of positions. How far a table is archived is what the archive says of it (FORMAT.md
// 19.4), so that whenever this process is killed, the next one goes on with the row behind the last one written.
// When a writer has ended, its last rows are written at once; then its segment may be unlinked.
//
//	poll ─▶ ended? ──▶ drain ───┐
//	     └▶ half a ring? ─ cohort ─▶ take ─▶ batch ─▶ Append ─▶ position
//
// Rows that a ring went over before they were written are counted by reason. When the disk fails, writing stops, says so, and
// is tried again; reading and everything else in the daemon goes on.
package archiver

import (
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// Segment is what is archived. It is safe for concurrent use, and comparable: while nothing changes it is the same one. *source.Segment is one.
type Segment interface {
	ID() string    // 32 hexadecimal digits, as the next two
	Group() string // of the incarnation: equal for segments that one process grew
	BootID() string
	UID() int
	Inode() (dev, ino uint64)
	Labels() []reader.Pair
	Attributes() []reader.Pair
	Series() []*reader.Series // the same slice until one is registered or retired
	Tables() []reader.Table
	Start() int64
	End() (int64, bool)
	Epoch() uint32
	Head(table, tier int) uint64
	// ExemplarHead is the number of the newest exemplar as of the last poll.
	ExemplarHead() uint64
	// Take yields a tier's rows from a number on, oldest first, together with what they mean: begin is told series, head and
	// epoch as of one poll, which no row is newer than, and says where to begin. A row is valid during its call. False: the
	// segment is no longer there.
	Take(table, tier int, begin func(series []*reader.Series, head uint64, epoch uint32) (from uint64, ok bool), yield func(*reader.Row) bool) bool
}

// Options of New.
type Options struct {
	Archive archive.Writer
	// SyncInterval is how often what was written is made to outlive a loss of power. 0: 5 s.
	SyncInterval time.Duration
	// UserBytesPerSecond bounds what one user's rows may add to a tier, over some minutes. What is over it stays in the rings, and
	// is lost where they go round, in that tier only. 0: no bound.
	UserBytesPerSecond int64
	// Exemplars is where those wait that are to be archived: they are written at least each SyncInterval. nil: none are.
	Exemplars Exemplars
	// Missing is told of rows that a table's ring no longer has and that were not archived, before what follows them is: the
	// writer's coarser rings may still tell of that time. It may be nil.
	Missing func(Missing)
	// Swept is called at the end of each Poll that could write: what is folded into coarser tiers. It may be nil.
	Swept  func(now time.Time)
	Logger *slog.Logger     // nil: none
	Now    func() time.Time // nil: time.Now
}

// Missing are rows of a table's tier 0 that were not archived.
type Missing struct {
	Segment    Segment
	Source     *archive.Source
	Table      int
	From, To   uint64 // numbers
	After      int64  // unix ms of the newest row archived before them, 0 if there is none
	Before     int64  // unix ms of the first row that is still there
	Overwrites bool   // they were lost by this process; else they were gone when it saw the segment first
}

// Reasons of a loss, as Stats counts rows.
const (
	LostOverrun    = "overrun"    // the ring went over them before they were written: the disk was slow or failed, or the daemon was down
	LostBudget     = "budget"     // the same while their user had written more than UserBytesPerSecond
	LostUnreadable = "unreadable" // torn or broken in the segment
	LostGone       = "gone"       // somebody unlinked the segment, or it could not be held any longer
	LostTooLarge   = "too_large"  // a row alone is larger than an extent
)

var lostReasons = []string{LostOverrun, LostBudget, LostUnreadable, LostGone, LostTooLarge}

// Stats are what an Archiver counted.
type Stats struct {
	Tiers    []TierStats
	Lost     map[string]uint64 // rows, by reason
	Oldest   time.Duration     // age of the oldest row that is not yet written
	Polls    uint64
	Segments int    // known
	Drained  uint64 // ended segments of which everything was written
	Cohorts  int
	Syncs    uint64
	SyncTime time.Duration // of all of them
	Failures uint64        // times that archiving stopped
	Stopped  string        // why it is stopped; empty: it is not
	Over     int           // users over UserBytesPerSecond, just now

	Exemplars, ExemplarBlocks uint64        // written
	ExemplarBytes             uint64        // of those blocks, with the labels that were new to their extent
	ExemplarsLost             uint64        // over the user's budget when their writer ended, or of series that are not in the segment any more
	ExemplarTime              time.Duration // that writing them took
}

// TierStats are what was written into a tier, flushed or folded.
type TierStats struct {
	Step                  time.Duration
	Blocks, Rows, Samples uint64
	Bytes                 uint64
	Time                  time.Duration // that writing took
}

// Archiver writes an archive. Run, Poll and Close belong to one goroutine; everything else is safe from any.
type Archiver struct {
	o        Options
	segments func() []Segment
	w        *meter
	steps    []time.Duration // of the archive's tiers, finest first
	kick     chan struct{}

	polls  uint64
	states map[ident]*segment // under mu for writing
	order  []*segment         // as the last poll saw them
	ids    map[[16]byte][]*segment
	plans  plans
	groups map[groupKey]*group
	batch  batch
	values int // taken in this poll
	users  limits

	due      []*cohort
	alive    []*segment // memory of living
	mend     time.Time  // when a mend is tried next
	wait     time.Duration
	synced   time.Time
	dirty    bool
	lossSaid time.Time
	lossRows uint64 // since

	stopped atomic.Pointer[error]

	mu    sync.Mutex
	stats Stats
}

// ident tells open segments apart: a copied file has the id of the one that it is a copy of.
type ident struct {
	id       string
	dev, ino uint64
}

func identOf(s Segment) ident {
	dev, ino := s.Inode()
	return ident{s.ID(), dev, ino}
}

// New makes an archiver of what segments answers.
func New(o Options, segments func() []Segment) *Archiver {
	if o.SyncInterval == 0 {
		o.SyncInterval = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Archiver{o: o, segments: segments, w: newMeter(o.Archive), kick: make(chan struct{}, 1), states: map[ident]*segment{}, ids: map[[16]byte][]*segment{}, groups: map[groupKey]*group{}}
	a.users = limits{rate: o.UserBytesPerSecond, at: map[userTier]*bucket{}}
	for _, t := range o.Archive.Tiers() {
		a.steps = append(a.steps, t.Step)
	}
	a.w.wrote = func(uid, tier int, bytes int64) {
		a.dirty = true
		a.users.spend(uid, tier, bytes, a.o.Now())
	}
	a.stats.Lost = map[string]uint64{}
	for _, r := range lostReasons {
		a.stats.Lost[r] = 0
	}
	return a
}

// Writer is the archive as everybody in this process writes it, counted and held against the budgets. It belongs to the
// goroutine of Poll.
func (a *Archiver) Writer() archive.Writer { return a.w }

// Kick has Run poll now. It never waits.
func (a *Archiver) Kick() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Run polls after each Kick until the context ends.
func (a *Archiver) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.kick:
			a.Poll()
		}
	}
}

// Close writes what exemplars wait, and syncs the archive. Rows that are not written yet stay in the segments, for who comes next. The archive itself is
// closed by who opened it.
func (a *Archiver) Close() error {
	if a.Stopped() != nil {
		return nil // that was said
	}
	a.flushExemplars(a.living(), false) // which the rings may not hold any more
	return a.sync(a.o.Now())
}

// Finished tells whether everything of an ended segment is written, so that it may be unlinked.
func (a *Archiver) Finished(s Segment) bool {
	a.mu.Lock()
	st := a.states[identOf(s)]
	a.mu.Unlock()
	return st != nil && st.drained.Load()
}

// Stopped says why nothing is archived just now; nil: it is.
func (a *Archiver) Stopped() error {
	if p := a.stopped.Load(); p != nil {
		return *p
	}
	return nil
}

// Live tells of a key whether its segment is there and may get further rows. It belongs to the goroutine of Poll.
func (a *Archiver) Live(k archive.Key) bool {
	for _, st := range a.ids[k.Segment] {
		if !st.located {
			return true // perhaps
		}
		if st.copy == k.Copy && !st.drained.Load() {
			return k.Epoch >= st.epoch
		}
	}
	return false
}

// Stats answers what was counted so far.
func (a *Archiver) Stats() Stats {
	tiers := a.w.stats()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Tiers = tiers
	s.Lost = make(map[string]uint64, len(a.stats.Lost))
	for k, v := range a.stats.Lost {
		s.Lost[k] = v
	}
	s.Stopped = ""
	if err := a.Stopped(); err != nil {
		s.Stopped = err.Error()
	}
	return s
}

// Poll looks at all segments once and writes what is due.
func (a *Archiver) Poll() {
	now := a.o.Now()
	a.polls++
	a.values = 0
	segments := a.segments()
	var ended []*segment
	oldest := now.UnixMilli()
	a.order = slices.Grow(a.order, max(len(segments)-len(a.order), 0))[:len(segments)]
	for i, seg := range segments {
		st := a.order[i]
		if st != nil && st.seg == seg && st.poll == a.polls-1 { // as at the poll before, mostly
			st.poll = a.polls
			st.see(seg.Epoch())
		} else {
			st = a.know(seg)
			a.order[i] = st
		}
		if st.drained.Load() {
			continue
		}
		if _, end := seg.End(); end {
			ended = append(ended, st)
			continue
		}
		oldest = min(oldest, a.look(st, now.UnixMilli()))
	}
	a.forgetGone()
	goes := a.mended(now)
	a.flushDue()
	if goes {
		a.drain(ended)
		if a.o.Swept != nil && a.Stopped() == nil {
			a.o.Swept(now)
		}
		due := now.Sub(a.synced) >= a.o.SyncInterval
		if x := a.o.Exemplars; x != nil && (due || x.Crowded()) {
			a.flushExemplars(a.living(), false)
		}
		if due && a.Stopped() == nil {
			_ = a.sync(now)
		}
	}
	a.sayLosses(now)
	over := a.users.over(now)
	a.mu.Lock()
	a.stats.Polls++
	a.stats.Segments, a.stats.Oldest, a.stats.Over = len(a.states), time.Duration(now.UnixMilli()-oldest)*time.Millisecond, over
	a.stats.Cohorts = 0
	for _, g := range a.groups {
		a.stats.Cohorts += len(g.cohorts)
	}
	a.mu.Unlock()
}

// living are the segments whose writers have not ended, as of this poll.
func (a *Archiver) living() []*segment {
	if a.o.Exemplars == nil {
		return nil
	}
	all := a.alive[:0]
	for _, st := range a.states {
		if _, ended := st.seg.End(); !ended {
			all = append(all, st)
		}
	}
	a.alive = all
	return all
}

// know is what is known of a segment.
func (a *Archiver) know(seg Segment) *segment {
	k := identOf(seg)
	st := a.states[k]
	if st == nil {
		st = a.newSegment(seg)
		a.ids[st.id] = append(a.ids[st.id], st)
		a.mu.Lock()
		a.states[k] = st
		a.mu.Unlock()
	}
	st.poll = a.polls
	st.seg = seg
	st.see(seg.Epoch())
	return st
}

// look puts those tables of a living segment that have enough new rows onto the list of what is due, and answers the
// time of the oldest row that is not written, unix ms.
func (a *Archiver) look(st *segment, now int64) (oldest int64) {
	oldest = now
	for _, t := range st.tables {
		t.head = st.seg.Head(t.n, 0)
		if t.head == t.last || t.head == 0 {
			continue
		}
		if !st.located && !a.locate(st) {
			continue
		}
		new := t.unflushed()
		if new == 0 {
			continue
		}
		if t.cohort == nil {
			if a.join(t); t.cohort == nil { // no series
				a.passOver(t)
				continue
			}
		}
		if t.time > 0 {
			oldest = min(oldest, t.time+t.step.Milliseconds())
		} else {
			oldest = min(oldest, now-int64(new)*t.step.Milliseconds())
		}
		if c := t.cohort; new >= c.enough() {
			if c.due == 0 {
				a.due = append(a.due, c)
			}
			c.due = max(c.due, float64(new)/float64(t.rows))
		}
	}
	return oldest
}

// A poll takes so many values at most of rows that no ring is about to go over.
const calmValues = 1 << 21

// urgent is the part of a ring above which rows are taken at any rate.
const urgent = 0.75

// flushDue writes the rows of all cohorts that are due, those first whose rings are fullest.
func (a *Archiver) flushDue() {
	slices.SortStableFunc(a.due, func(x, y *cohort) int {
		switch {
		case x.due > y.due:
			return -1
		case x.due < y.due:
			return 1
		}
		return 0
	})
	for _, c := range a.due {
		if a.Stopped() == nil && (c.due >= urgent || a.values < calmValues) {
			a.flushCohort(c)
		}
		c.due = 0
	}
	clear(a.due)
	a.due = a.due[:0]
}

func (a *Archiver) flushCohort(c *cohort) {
	k := c.group.key
	if a.isOver(k.uid, k.home) {
		for _, t := range c.tables {
			t.over = true
		}
		return // it stays in the rings as long as they hold it
	}
	tables := slices.Clone(c.tables)
	a.flush(tables)
	c.flushed = true
	for _, t := range tables {
		if t.plan != k.plan {
			a.leave(t)
		}
	}
}

// drain writes what is left of ended segments.
func (a *Archiver) drain(ended []*segment) {
	var tables []*table
	for _, st := range ended {
		if !st.located && st.hasRows() && !a.locate(st) {
			st.poll = 0 // not now
			continue
		}
		for _, t := range st.tables {
			t.head = st.seg.Head(t.n, 0)
			a.leave(t)
			t.ending = true
			// Over its budget a user keeps the last row of each table: totals stay right.
			t.lastOnly = a.isOver(st.uid, t.home)
			if t.plan == nil {
				a.guess(t)
			}
			tables = append(tables, t)
		}
	}
	slices.SortStableFunc(tables, byPlan)
	a.flush(tables)
	a.flushExemplars(ended, true)
	if a.Stopped() != nil {
		return
	}
	n := uint64(0)
	for _, st := range ended {
		if st.poll == 0 {
			continue
		}
		if x := a.o.Exemplars; x != nil && (!x.Whole(st.seg.ID(), st.ino, st.seg.ExemplarHead()) || x.Newest(st.seg.ID(), st.ino) > st.exemplar) {
			continue // at the next poll
		}
		for _, t := range st.tables {
			if t.last < t.head { // what is left can't be read
				a.lost(LostUnreadable, t.head-t.last)
				t.last = t.head
			}
		}
		failpoint.Here("archiver.drain.written")
		st.drained.Store(true)
		st.release(a)
		n++
	}
	a.mu.Lock()
	a.stats.Drained += n
	a.mu.Unlock()
}

// forgetGone lets go of segments that are no longer there.
func (a *Archiver) forgetGone() {
	for k, st := range a.states {
		if st.poll == a.polls {
			continue
		}
		if !st.drained.Load() {
			n := uint64(0)
			for _, t := range st.tables {
				if t.plan != nil {
					n += t.unflushed()
				}
			}
			if n > 0 {
				a.lost(LostGone, n)
			}
			st.release(a)
		}
		if rest := slices.DeleteFunc(a.ids[st.id], func(x *segment) bool { return x == st }); len(rest) > 0 {
			a.ids[st.id] = rest
		} else {
			delete(a.ids, st.id)
		}
		a.mu.Lock()
		delete(a.states, k)
		a.mu.Unlock()
	}
}

// lost counts rows.
func (a *Archiver) lost(reason string, rows uint64) {
	a.mu.Lock()
	a.stats.Lost[reason] += rows
	a.mu.Unlock()
	a.lossRows += rows
}

// lossEvery is how often losses are said in the log.
const lossEvery = time.Minute

func (a *Archiver) sayLosses(now time.Time) {
	if a.lossRows == 0 || now.Sub(a.lossSaid) < lossEvery {
		return
	}
	a.mu.Lock()
	args := []any{"rows", a.lossRows}
	for _, r := range lostReasons {
		if n := a.stats.Lost[r]; n > 0 {
			args = append(args, r, n)
		}
	}
	a.mu.Unlock()
	a.o.Logger.Warn("rows were lost before they were archived (total by reason)", args...)
	a.lossRows, a.lossSaid = 0, now
}

func id16(text string) (id [16]byte) {
	_, _ = hex.Decode(id[:], []byte(text[:min(len(text), 2*len(id))]))
	return id
}

// isOver tells whether a user has written more into a tier than its budget.
func (a *Archiver) isOver(uid, tier int) bool {
	over, newly := a.users.debt(uid, tier, a.o.Now())
	if newly {
		a.o.Logger.Warn("a user is over the archive's bytes a second: rows stay in the rings, and are lost where they go round", "uid", uid, "tier", a.steps[tier], "want", a.users.rate)
	}
	return over
}
