// Package source is the daemon's register of segments: which are there, whose they are, what their
// series are called, and when a dead one may go.
//
// A Register polls a reader.Store and answers snapshots of it to the query engine and the exporters.
// It keeps a segment whose writer closed or died until its time to live is over and everybody
// who holds it has finished with it, and then unlinks it. Segments are grouped into
// sources (owner and labels, FORMAT.md 4.4), so that two of one source never give the same series twice.
package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/internal/shadow"
	"github.com/shmts/shmts/reader"
)

// MinDeadTTL is the least time from a writer's death to the unlinking of its segment. FORMAT.md 10.5.
const MinDeadTTL = 5 * time.Second

// unlinkRetry is how long a segment that could not be unlinked is left alone.
const unlinkRetry = time.Minute

// Options of Open. The zero value reads the default store each second.
type Options struct {
	Store   reader.Options
	Every   time.Duration // from poll to poll; 0: 1 s
	DeadTTL time.Duration // how long a dead or closed segment is kept; 0: 60 s, at least MinDeadTTL

	// HoldLimit is how much longer than DeadTTL one is kept for those who have not finished with it, see Hold.
	// It bounds what a collector that is down can make the store grow to. 0: 10 min.
	HoldLimit time.Duration

	// Shadows has segments that never tick sampled (FORMAT.md 10.8), before each poll. Shown are then their shadows, under
	// their identity. Dir is Store's. nil: nothing is sampled, and of such segments there are no rows but for what another daemon samples.
	Shadows *shadow.Options

	Logger *slog.Logger     // nil: none
	Now    func() time.Time // nil: time.Now

	// Polled is called after each poll, with how long it took and what Poll answers. It may be nil.
	Polled func(took time.Duration, err error)
}

// Register is a store's segments, grouped into sources. Poll, Run and Close belong to one
// goroutine; everything else is safe from any.
type Register struct {
	o     Options
	store *reader.Store

	polling sync.RWMutex // write-held by Poll: a reader.Store belongs to one goroutine at a time
	lives   map[*reader.Segment]*life
	sources map[string][]*life // oldest first
	dead    []*life            // in the order of their deaths
	recheck map[string]bool    // sources to look at again at the next poll
	spare   map[string]bool    // empty, to take turns with recheck
	polls   uint64
	failing bool
	open    []*life // for order and counting

	shadows  *shadow.Keeper   // nil: nothing is sampled
	sampled  map[string]*life // segments whose shadows stand for them, by id
	standing map[string]*life // those shadows

	snapshot atomic.Pointer[[]*Segment]
	asOf     atomic.Int64 // when the last poll began, unix ns
	left     atomic.Int64 // of the newest row of any segment that left, unix ns

	mu    sync.Mutex
	holds []hold
	stats Stats
	gone  reader.Counters // of segments that were released

	told map[overKey]time.Time // when the log said so last
}

type hold struct {
	name     string
	finished func(*Segment) bool
}

// Stats are what a Register counted. FORMAT.md 5 has the writers' own counts.
type Stats struct {
	Alive, Stalled, Closed, Dead int // segments, as of the last poll
	Sources                      int
	Series                       int
	Bytes                        int64 // of the segments' files
	Overlapped                   int   // series that carry OverlapLabel

	Polls, FailedPolls uint64
	LastPoll           time.Duration
	Found              uint64            // segments ever found
	Unlinked           uint64            // dead segments unlinked
	Early              uint64            // of those, before their time to live was over, for want of room
	UnlinkFailed       uint64            // attempts that failed
	Unfinished         uint64            // unlinked at HoldLimit although somebody had not finished
	Vanished           uint64            // segments that somebody else unlinked
	Refused            map[string]uint64 // files not read, by reason: see Reason
	Readers            reader.Counters   // sums over all segments that were ever open

	Shadows shadow.Stats

	Budget reader.Usage   // of all users' segments, as of the last poll
	Users  []reader.Usage // of each user's, by uid; not changed afterwards
}

// Open opens a store. It reads nothing yet: Poll does. An error is the reader's, or says which option is
// out of range.
func Open(o Options) (*Register, error) {
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.DeadTTL == 0 {
		o.DeadTTL = time.Minute
	}
	if o.HoldLimit == 0 {
		o.HoldLimit = 10 * time.Minute
	}
	if o.Every < 10*time.Millisecond {
		return nil, fmt.Errorf("shmts: poll interval: want at least 10ms, got %v", o.Every)
	}
	if o.DeadTTL < MinDeadTTL {
		return nil, fmt.Errorf("shmts: time to live of dead segments: want at least %v, got %v", MinDeadTTL, o.DeadTTL)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Store.SkipSampled = o.Shadows != nil
	store, err := reader.Open(o.Store)
	if err != nil {
		return nil, err
	}
	r := &Register{o: o, store: store, sampled: map[string]*life{}, standing: map[string]*life{}, lives: map[*reader.Segment]*life{}, sources: map[string][]*life{}, recheck: map[string]bool{}, spare: map[string]bool{}, told: map[overKey]time.Time{}}
	if o.Shadows != nil {
		s := *o.Shadows
		s.Dir = o.Store.Dir
		r.shadows = shadow.New(s)
	}
	r.snapshot.Store(new([]*Segment))
	r.left.Store(o.Now().UnixNano()) // what left before is not known
	r.stats.Refused = map[string]uint64{}
	return r, nil
}

// Segments is the newest snapshot, oldest segment first. Nobody changes it; two calls between
// which nothing changed answer the same slice.
func (r *Register) Segments() []*Segment { return *r.snapshot.Load() }

// Left is the time, unix ns, up to which rows may be of segments that have left: asked after Segments, of those that are missing there. It
// begins with the time of Open.
func (r *Register) Left() int64 { return r.left.Load() }

// leaves remembers what others must know of a segment that leaves.
func (r *Register) leaves(l *life, now time.Time) {
	last := now.UnixNano()
	if end, ended := l.g.End(); ended {
		last = end
	}
	r.left.Store(max(r.left.Load(), last))
	remember(r.sources[l.source], l, r.polls)
}

// Hold has a dead segment kept until finished says true of it, or HoldLimit is over: an exporter that
// still has rows to send, an archive that has not drained it. It is asked from Poll, again at each,
// once the time to live is over; it may not call the Register. name appears in the log.
func (r *Register) Hold(name string, finished func(*Segment) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = append(r.holds, hold{name, finished})
}

// Stats answers what was counted so far.
func (r *Register) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Refused = make(map[string]uint64, len(r.stats.Refused))
	for k, v := range r.stats.Refused {
		s.Refused[k] = v
	}
	return s
}

// Run polls until the context ends. Polls that a busy machine missed are not made up for.
func (r *Register) Run(ctx context.Context) {
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	for {
		r.Poll()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Poll looks at the store once: it takes in what is new, relabels what changed, and lets go what is
// finished with. A bad file, or one that can't be unlinked, is counted and stops nothing. The error is the
// store's: it could not be listed, and the snapshot is as before.
func (r *Register) Poll() error {
	began, asOf := time.Now(), r.o.Now().UnixNano()
	r.polling.Lock()
	r.polls++
	err := r.poll()
	if err == nil {
		r.asOf.Store(asOf)
	}
	r.polling.Unlock()
	took := time.Since(began)

	if err != nil && !r.failing {
		r.o.Logger.Error("the store can't be read", "err", err)
	} else if err == nil && r.failing {
		r.o.Logger.Info("the store can be read again")
	}
	r.failing = err != nil
	r.mu.Lock()
	r.stats.Polls++
	r.stats.LastPoll = took
	if err != nil {
		r.stats.FailedPolls++
	}
	r.mu.Unlock()
	if r.o.Polled != nil {
		r.o.Polled(took, err)
	}
	return err
}

func (r *Register) poll() error {
	r.sample(r.store.Segments())
	ev, err := r.store.Poll()
	if slices.ContainsFunc(ev.New, (*reader.Segment).Sampled) {
		r.sample(r.store.Segments()) // their shadows are found by the next poll
	}
	now := r.o.Now()
	dirty := r.recheck // sources to relabel
	r.recheck = r.spare
	for _, g := range ev.New {
		l := r.admit(g)
		if dirty[l.source] = true; l.view.ended {
			r.end(l, now)
		}
	}
	for _, g := range ev.Ended {
		if l := r.lives[g]; l != nil && l.died.IsZero() {
			r.end(l, now)
			dirty[l.source] = true
		}
	}
	for _, g := range ev.Changed {
		if l := r.lives[g]; l != nil {
			dirty[l.source] = true
		}
	}
	for _, g := range ev.Gone {
		if l := r.lives[g]; l != nil {
			r.release(l)
			dirty[l.source] = true
		}
	}
	if len(ev.Refused) > 0 {
		r.refuse(ev.Refused, now)
	}
	r.budgets(now)
	for _, l := range r.expired(now) {
		dirty[l.source] = true
	}
	changed := len(dirty) > 0
	for source := range dirty {
		r.rebuild(source)
	}
	clear(dirty)
	r.spare = dirty
	if r.count() || changed {
		r.publish()
	}
	return err
}

func (r *Register) admit(g *reader.Segment) *life {
	l := &life{polling: &r.polling, asOf: &r.asOf, g: g, id: g.ID(), group: g.Group(), path: g.Path(), tables: g.Tables(), start: g.Start(), source: sourceKey(g), since: r.polls}
	l.view = &Segment{life: l, labels: g.Labels(), attributes: g.Attributes(), liveness: g.Liveness()}
	l.view.end, l.view.ended = g.End()
	r.lives[g] = l
	r.open = append(r.open, l)
	if r.stand(l); l.hidden {
		return l
	}
	members := append(r.sources[l.source], l)
	slices.SortStableFunc(members, func(a, b *life) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id)) })
	r.sources[l.source] = members
	r.mu.Lock()
	r.stats.Found++
	r.mu.Unlock()
	r.o.Logger.Debug("segment found", "path", l.path, "job", g.Job(), "instance", g.Instance(), "pid", g.Pid())
	return l
}

func (r *Register) end(l *life, now time.Time) {
	l.died = now
	r.dead = append(r.dead, l)
	r.o.Logger.Debug("segment ended", "path", l.path, "closed", l.g.Liveness() == reader.Closed)
}

// release forgets a segment whose file is gone. Its rows can't be read any more, through whatever snapshot.
func (r *Register) release(l *life) {
	if !l.dropped {
		r.leaves(l, r.o.Now())
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	is := func(x *life) bool { return x == l }
	r.fall(l)
	delete(r.lives, l.g)
	r.open = slices.DeleteFunc(r.open, is)
	r.dead = slices.DeleteFunc(r.dead, is)
	if members := slices.DeleteFunc(r.sources[l.source], is); len(members) > 0 {
		r.sources[l.source] = members
	} else {
		delete(r.sources, l.source)
	}
	r.mu.Lock()
	r.gone.Add(l.g.Counters())
	if !l.dropped {
		r.stats.Vanished++
	}
	r.mu.Unlock()
}

func (r *Register) refuse(refused []reader.Refusal, now time.Time) {
	r.mu.Lock()
	for _, f := range refused {
		r.stats.Refused[Reason(f.Err)]++
	}
	r.mu.Unlock()
	for _, f := range refused {
		if r.overBudget(f, now) {
			continue
		}
		r.o.Logger.Warn("segment refused", "path", f.Path, "reason", Reason(f.Err), "err", f.Err)
	}
}

// expired unlinks what has outlived its time and is finished with, and answers what left the register so.
func (r *Register) expired(now time.Time) (left []*life) {
	ttl, early := r.deadTTL()
	for _, l := range r.dead {
		age := now.Sub(l.died)
		if age < ttl {
			break
		}
		if now.Before(l.retry) || l.hidden && r.standing[l.id] != nil {
			continue // goes with its shadow
		}
		if l.hidden && age < r.o.DeadTTL+r.o.HoldLimit {
			continue // its shadow could not be had yet, and with it its last words
		}
		if !l.dropped {
			if holder := r.held(l); holder != "" && !l.hidden {
				if age < r.o.DeadTTL+r.o.HoldLimit {
					continue
				}
				l.late = true
				r.o.Logger.Warn("segment dropped unfinished", "path", l.path, "held_by", holder, "age", age)
			}
			r.leaves(l, now)
			l.dropped = true
			left = append(left, l)
		}
		failpoint.Here("source.unlink.begun")
		err := r.unlink(l)
		failpoint.Here("source.unlink.done")
		r.mu.Lock()
		switch {
		case err == nil:
			if r.stats.Unlinked++; early && age < r.o.DeadTTL {
				r.stats.Early++
			}
		default:
			r.stats.UnlinkFailed++
		}
		if l.late {
			r.stats.Unfinished++
			l.late = false
		}
		r.mu.Unlock()
		// Unlinked, it is gone at the next poll. If not, it stays open, in no snapshot, to be tried
		// again; or, where it is another user's to unlink, the file stays and is not read any more.
		l.retry = now.Add(unlinkRetry)
		if err != nil {
			r.o.Logger.Warn("segment can't be unlinked", "path", l.path, "err", err)
		}
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			r.letGo(l)
		}
	}
	return left
}

func (r *Register) held(l *life) (by string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.holds {
		if !h.finished(l.view) {
			return h.name
		}
	}
	return ""
}

// rebuild makes new views of a source's segments.
func (r *Register) rebuild(source string) {
	members := r.sources[source]
	kept := make([]*life, 0, len(members))
	for _, l := range members {
		if l.dropped {
			continue
		}
		v := *l.view
		v.liveness = l.g.Liveness()
		v.end, v.ended = l.g.End()
		l.view = &v
		kept = append(kept, l)
	}
	if !relabel(kept, r.polls) {
		r.recheck[source] = true
	}
}

// publish makes a snapshot.
func (r *Register) publish() {
	slices.SortStableFunc(r.open, func(a, b *life) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id)) })
	s := make([]*Segment, 0, len(r.open))
	for _, l := range r.open {
		if !l.dropped && !l.hidden {
			s = append(s, l.view)
		}
	}
	r.snapshot.Store(&s)
}

// count counts what is there, and answers whether a view's liveness had to be renewed.
func (r *Register) count() (changed bool) {
	var s Stats
	var c reader.Counters
	for _, l := range r.open {
		c.Add(l.g.Counters())
		s.Bytes += l.g.Size()
		if l.hidden {
			continue
		}
		live := l.g.Liveness()
		switch live {
		case reader.Alive:
			s.Alive++
		case reader.Stalled:
			s.Stalled++
		case reader.Closed:
			s.Closed++
		case reader.Dead:
			s.Dead++
		}
		if live != l.view.liveness {
			v := *l.view
			v.liveness = live
			l.view = &v
			changed = true
		}
		s.Series += len(l.view.series)
		s.Overlapped += len(l.view.overrides)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.stats
	t.Alive, t.Stalled, t.Closed, t.Dead = s.Alive, s.Stalled, s.Closed, s.Dead
	t.Series, t.Overlapped, t.Bytes, t.Sources = s.Series, s.Overlapped, s.Bytes, len(r.sources)
	t.Readers = r.gone
	t.Readers.Add(c)
	return changed
}

// Reasons of refusal, as Stats counts them.
const (
	ReasonCorrupt = "corrupt" // FORMAT.md says "refuse"
	ReasonVersion = "version" // of another major version, or needs an unknown feature
	ReasonBudget  = "budget"  // there is no room for it: see reader.Options. It is read when there is
	ReasonUnsafe  = "unsafe"  // owner, links, type, holes: FORMAT.md 2. Or the system said no
)

// Reason names why a file is not read.
func Reason(err error) string {
	var c *reader.CorruptError
	var v *reader.VersionError
	var b *reader.BudgetError
	switch {
	case errors.As(err, &b):
		return ReasonBudget
	case errors.As(err, &v):
		return ReasonVersion
	case errors.As(err, &c):
		return ReasonCorrupt
	}
	return ReasonUnsafe
}

// Close lets go of every segment and closes the store. Nothing is unlinked.
func (r *Register) Close() error {
	r.polling.Lock()
	defer r.polling.Unlock()
	for _, l := range r.open {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	}
	r.snapshot.Store(new([]*Segment))
	if r.shadows != nil {
		r.shadows.Close()
	}
	return r.store.Close()
}
