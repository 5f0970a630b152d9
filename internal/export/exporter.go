package export

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// Options of New.
type Options struct {
	Name string // of the destination, in the log
	// Step is how far apart the rows are that go out: of each table, those of the coarsest tier that is not coarser,
	// thinned where it is much finer. 0: 10 s.
	Step time.Duration
	// Interval is how often new rows are looked for. 0: Step.
	Interval time.Duration
	// Delta has rows know what was sent before them.
	Delta bool

	Backoff    time.Duration // after the first failure; 0: 1 s. Twice as long each time, up to
	MaxBackoff time.Duration // 0: 30 s

	// Archive is where rows are looked for that the rings forgot. nil: they are lost then.
	Archive Archive
	// CatchUpRate bounds how many points of the archive are sent, a second. 0: 100,000.
	CatchUpRate int
	// SourceKey is what Segment.Source is of a source of the archive. nil: nobody asks.
	SourceKey func(uid int, labels []reader.Pair) string
	// Exemplars are put to the rows that follow them. nil: none are.
	Exemplars Exemplars
	// Positions is the file in which positions are kept. Empty: they are in memory, and after a start the rings are sent from their oldest
	// rows on, or with Delta from their newest.
	Positions string
	// SyncInterval is how often that is made to outlive a loss of power. 0: 5 s.
	SyncInterval time.Duration

	Logger *slog.Logger // nil: none
	// Sent is called after each attempt of a request, from the exporter's goroutine, with how long it took. It may be nil.
	Sent func(time.Duration)
	Now  func() time.Time // nil: time.Now
}

// Stats are what an Exporter counted.
type Stats struct {
	Requests  map[string]uint64 // attempts by outcome: see the Outcome constants
	Points    uint64            // that a receiver took
	Refused   map[string]uint64 // points that it did not, by reason; never sent again
	Lost      map[string]uint64 // rows that were gone before they could be sent, by reason
	RowsAhead uint64            // rows of a time that was still to come, since the wall clock was stepped back: the next row speaks for them
	Extents   uint64            // of the archive that were evicted before they were gone through: nobody knows what was in them that was not sent
	Bytes     uint64            // on the wire, before TLS, headers not counted
	Cycles    uint64
	LastError string        // of the last attempt that was not a success; empty after one
	LastSent  time.Time     // of the last success
	Lag       time.Duration // by how much what was sent lies behind what is there: 0 in health
	Behind    bool          // there is something in the archive to catch up with
	Waiting   int           // tables whose ring goes on only once the archive's rows were sent
	Positions int           // that are kept
	Failures  uint64        // of the disk that they are kept on
}

// Reasons of a loss, as Stats counts rows.
const (
	LostOverrun    = "overrun"    // the ring went over them before they could be sent, and no archive has them
	LostAgedOut    = "aged_out"   // the archive evicted them before they could be sent. Of a source of which nothing at all is left, one is counted
	LostUnreadable = "unreadable" // broken in the archive
	LostNoBase     = "no_base"    // with Delta: what they differ from is not known any more
)

// Exporter sends to one destination. Run and Flush belong to one goroutine, one after the other; Stats and
// Finished are safe from any.
type Exporter struct {
	o        Options
	segments func() []Segment
	enc      Encoder

	pos     *positions
	states  map[string]*state
	sources map[string][]*state // by Segment.Source
	ending  []*state            // whose last points are in the request
	cycles  uint64
	row     Row // that is being added
	traced  []exemplar
	synced  time.Time

	// What the request means once it is answered.
	moves []move
	marks []markMove
	gone  []*position

	leaving []*position // are to be let go of once the block at hand was gone through

	// Of the archive.
	cursors []*cursor
	present map[string]bool // segments as of refresh, until their states are there
	waiting int             // tables, as of the last cycle
	behind  bool            // what is in the archive was not gone through
	late    bool            // a request took so long that what was looked at is old
	seen    map[pastKey]*pastSource
	cols    map[columnsKey]*columns
	orphans []*position
	// unsettled are those that a process before this one left without an end: perhaps it had gone by that, and not said it.
	unsettled []*position
	bases     []uint64

	mu       sync.Mutex
	ended    time.Time // the last cycle
	stats    Stats
	finished map[string]bool // ids of ended segments of which everything was sent, or refused for good
}

// markMove is a place in a tier before which everything is in the request, or before.
type markMove struct {
	step time.Duration
	at   archive.Mark
}

// New makes an exporter of what segments answers.
func New(o Options, enc Encoder, segments func() []Segment) (*Exporter, error) {
	if o.Step == 0 {
		o.Step = 10 * time.Second
	}
	if o.Interval == 0 {
		o.Interval = o.Step
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CatchUpRate == 0 {
		o.CatchUpRate = 100_000
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = 5 * time.Second
	}
	o.Logger = o.Logger.With("destination", o.Name)
	e := &Exporter{o: o, segments: segments, enc: enc, states: map[string]*state{}, sources: map[string][]*state{}, finished: map[string]bool{},
		seen: map[pastKey]*pastSource{}, cols: map[columnsKey]*columns{}}
	e.stats = Stats{Requests: map[string]uint64{}, Refused: map[string]uint64{}, Lost: map[string]uint64{LostOverrun: 0, LostAgedOut: 0, LostUnreadable: 0, LostNoBase: 0}}
	var id [16]byte
	if o.Archive != nil {
		id = o.Archive.ID()
	}
	var err error
	if e.pos, err = openPositions(o.Positions, id, o.Now().UnixNano(), o.Logger); err != nil {
		return nil, err
	}
	for _, pos := range e.pos.known {
		if !pos.done {
			e.unsettled = append(e.unsettled, pos)
		}
	}
	if e.openCursors() {
		e.behind = !e.current() || len(e.unsettled) > 0
	}
	return e, nil
}

// Name is the destination's.
func (e *Exporter) Name() string { return e.o.Name }

// Stats answers what was counted so far.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	if over := time.Since(e.ended) - e.o.Interval; !e.ended.IsZero() && over > 0 {
		s.Lag += over // it is in the middle of one
	}
	s.Requests, s.Refused, s.Lost = clone(s.Requests), clone(s.Refused), clone(s.Lost)
	return s
}

func clone(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Finished tells whether everything of an ended segment was sent and answered, so that it may be unlinked.
func (e *Exporter) Finished(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.finished[id]
}

// Run exports each interval until the context ends. What is under way then stays where it is, for Flush.
func (e *Exporter) Run(ctx context.Context) {
	// Not all daemons of a fleet at once.
	wait := time.NewTimer(time.Duration(rand.Int64N(int64(e.o.Interval))))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return
	case <-wait.C:
	}
	tick := time.NewTicker(e.o.Interval)
	defer tick.Stop()
	for {
		if e.cycle(ctx) != nil {
			return
		}
		if e.behind || e.late {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Flush exports what there is now. It fails only when the context ends: a receiver that fails is
// waited for, as its protocol says, until then. Called again, it goes on where it stopped.
func (e *Exporter) Flush(ctx context.Context) error {
	for {
		if err := e.cycle(ctx); err != nil {
			return err
		}
		if !e.behind && !e.late {
			return nil
		}
	}
}

// cycle looks at everything once. What of the archive it does not come to in an interval is left, and so is the rest where a request took too
// long: then e.behind or e.late say so.
func (e *Exporter) cycle(ctx context.Context) error {
	e.cycles++
	e.late = false
	e.openCursors()
	interrupted := e.enc.Points() > 0
	if err := e.send(ctx, false); err != nil { // what an earlier one left
		return err
	}
	if interrupted && e.o.Archive != nil {
		e.behind = true
	}
	if e.behind { // what rings have is perhaps not what comes next
		e.refresh()
		if err := e.archived(ctx); err != nil {
			return err
		}
	}
	e.late = false
	segments := e.segments()
	for i, seg := range segments {
		if err := e.segment(ctx, seg); err != nil {
			return err
		}
		if !e.late && followed(seg, segments[i+1:]) { // its end comes before its successor's rows
			if err := e.end(ctx, e.states[seg.ID()]); err != nil {
				return err
			}
		}
		if e.late {
			break
		}
	}
	// The other ends last: one that ran beside it may have gone on by now.
	for _, seg := range segments {
		if st := e.states[seg.ID()]; st != nil && !e.late {
			if err := e.end(ctx, st); err != nil {
				return err
			}
		}
	}
	if err := e.send(ctx, false); err != nil {
		return err
	}
	if e.late {
		e.behind = true
		return nil
	}
	e.forgetGone()
	was := e.present
	e.present = nil
	e.leftOf(was)
	if e.o.Archive != nil && !e.behind {
		if err := e.archived(ctx); err != nil {
			return err
		}
	}
	e.commit()
	e.tell(segments)
	return nil
}

// archived goes through what is new in the archive, for at most about an interval.
func (e *Exporter) archived(ctx context.Context) error {
	done, err := e.catchUp(ctx, time.Now().Add(e.o.Interval))
	if err == nil {
		err = e.send(ctx, false)
	}
	if err != nil {
		return err
	}
	if e.behind = !done; done && e.waiting == 0 && e.cycles%64 == 0 {
		clear(e.seen) // what is passed over needs nothing of that
		clear(e.cols)
	}
	return nil
}

// refresh looks which segments are there before the archive is gone through, and lets go of those that left while somebody was waited for.
func (e *Exporter) refresh() {
	segments := e.segments()
	was := e.present
	e.present = make(map[string]bool, len(segments))
	defer func() {
		e.leftOf(was)
		for _, pos := range e.unsettled {
			if !e.isThere(hexID(pos.segment)) {
				e.orphans = append(e.orphans, pos)
			}
		}
		e.unsettled = nil
	}()
	for _, seg := range segments {
		e.present[seg.ID()] = true
		if st := e.states[seg.ID()]; st != nil {
			st.cycle = e.cycles
			for i := range st.tables { // whether its ring still goes on is to be seen
				st.tables[i].checked = false
			}
		}
	}
	e.forgetGone()
}

// isThere tells whether a segment's own end is to be waited for.
func (e *Exporter) isThere(id string) bool { return e.states[id] != nil || e.present[id] }

// leftOf has those that left, and of which nothing was seen but that they were there, ended like any others.
func (e *Exporter) leftOf(present map[string]bool) {
	for id := range present {
		if !e.isThere(id) {
			for table := range maxTables {
				e.left(e.pos.ofName(id16(id), table))
			}
		}
	}
}

// maxTables is FORMAT.md 11's.
const maxTables = 8

// left is told of the position of a table whose segment left.
func (e *Exporter) left(pos *position) {
	switch {
	case pos == nil:
	case e.o.Archive == nil || pos.done && pos.passed:
		e.gone = append(e.gone, pos)
	case pos.passed:
		e.orphans = append(e.orphans, pos)
	}
}

// forgetGone lets go of segments that are no longer there.
func (e *Exporter) forgetGone() {
	for id, st := range e.states {
		if st.cycle == e.cycles {
			continue
		}
		delete(e.states, id)
		key := st.seg.Source()
		if rest := slices.DeleteFunc(e.sources[key], func(o *state) bool { return o == st }); len(rest) > 0 {
			e.sources[key] = rest
		} else {
			delete(e.sources, key)
		}
		for i := range st.tables {
			e.left(st.tables[i].pos)
		}
		e.mu.Lock()
		delete(e.finished, id)
		e.mu.Unlock()
	}
}

// Old positions of tables that nobody sees any more are let go of.
const (
	oldDone = time.Hour
	oldLeft = 24 * time.Hour
)

// tell counts what is there.
func (e *Exporter) tell(segments []Segment) {
	now := e.o.Now().UnixNano()
	lag, waiting := int64(0), 0
	for _, seg := range segments {
		st := e.states[seg.ID()]
		if st == nil || st.done {
			continue
		}
		for i := range st.tables {
			t := &st.tables[i]
			if t.waiting {
				waiting++
			}
			if t.tier >= 0 && !t.caught && t.pos != nil {
				lag = max(lag, now-max(t.pos.time, st.src.Start))
			}
		}
	}
	e.waiting = waiting
	if !e.behind && e.cycles%64 == 0 {
		for _, pos := range e.pos.known {
			if e.states[hexID(pos.segment)] == nil && (pos.done && now-pos.time > int64(oldDone) || now-pos.time > int64(oldLeft)) {
				if !pos.done && pos.time > 0 {
					e.lost(LostAgedOut, 1)
				}
				e.gone = append(e.gone, pos)
			}
		}
	}
	e.count(func(s *Stats) {
		s.Cycles++
		e.ended = time.Now()
		s.Lag, s.Waiting, s.Behind = time.Duration(lag), waiting, e.behind
		s.Positions, s.Failures = len(e.pos.known), e.pos.failures
	})
}

// Close lets go of the positions' file. Nothing may be exported any more.
func (e *Exporter) Close() error { return e.pos.close() }

// move notes what the request means for a position.
func (e *Exporter) move(pos *position, base uint64, time int64, epoch, done bool) {
	pos.base, pos.time = base, time
	pos.done = pos.done || done
	e.moves = append(e.moves, move{pos, base, time, pos.exemplar, epoch, done})
}

// commit writes what an answered request meant.
func (e *Exporter) commit() {
	failpoint.Here("export.answered")
	for i := range e.moves {
		e.pos.moved(&e.moves[i])
	}
	for _, m := range e.marks {
		e.pos.mark(m.step, m.at)
	}
	for _, pos := range e.gone {
		e.pos.forget(pos)
	}
	clear(e.moves)
	e.moves, e.marks, e.gone = e.moves[:0], e.marks[:0], e.gone[:0]
	e.pos.commit()
	if now := e.o.Now(); now.Sub(e.synced) >= e.o.SyncInterval {
		e.synced = now
		e.pos.sync()
	}
}

// wholly tells whether all rows of a life are sent, of which the first one begins with row begins of tier 0.
func (e *Exporter) wholly(birth int64, begins uint64) bool {
	return begins <= 1 && (e.pos.path != "" || birth >= e.pos.born)
}

// skipDelta passes over a row that can't be told as a difference: what comes next is told from there.
func (e *Exporter) skipDelta(pos *position, base uint64, time int64, epoch uint16) {
	e.lost(LostNoBase, 1)
	pos.epoch, pos.started = epoch, true
	e.move(pos, base, time, true, false)
}

// followed tells of an ended segment whether younger ones are of its source, all of which began when it had ended. Segments are
// in the order of their starts.
func followed(seg Segment, younger []Segment) (found bool) {
	end, ended := seg.End()
	if !ended {
		return false
	}
	for _, s := range younger {
		if s.Source() != seg.Source() || s.Group() == seg.Group() {
			continue
		}
		if s.Start() <= end+int64(time.Millisecond) {
			return false
		}
		found = true
	}
	return found
}

// send sends the request, if there is something in it, until it was taken or refused for good. It fails
// when the context ends; the request stays.
func (e *Exporter) send(ctx context.Context, full bool) error {
	first := time.Now()
	// Without an archive there is nothing better to do than to go on: who comes last would never come.
	defer func() { e.late = e.late || e.o.Archive != nil && time.Since(first) > 2*e.o.Interval }()
	for attempt := 0; e.enc.Points() > 0; attempt++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		res := e.enc.Send(ctx)
		if e.o.Sent != nil {
			e.o.Sent(time.Since(began))
		}
		if ctx.Err() != nil && res.Err != nil && errors.Is(res.Err, context.Canceled) {
			return ctx.Err()
		}
		e.record(&res)
		if res.Err == nil || !res.Retry {
			e.enc.Reset()
			e.commit()
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.backoff(attempt, res.After)):
		}
	}
	if !full {
		e.commit() // what there was nothing to send of
		e.mu.Lock()
		for _, st := range e.ending {
			e.finished[st.seg.ID()] = true
		}
		e.mu.Unlock()
		e.ending = e.ending[:0]
	}
	return nil
}

// backoff is the time to wait after an attempt that failed: what the receiver said, or twice as long each
// time, with jitter, so that a thousand daemons don't come back at once.
func (e *Exporter) backoff(attempt int, after time.Duration) time.Duration {
	if after > 0 {
		return after
	}
	d := min(e.o.Backoff<<min(attempt, 16), e.o.MaxBackoff)
	return d/2 + rand.N(d/2+1)
}

func (e *Exporter) record(res *Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.stats
	s.Bytes += uint64(res.Bytes)
	s.Points += uint64(res.Taken)
	refused := 0
	for reason, n := range res.Refused {
		s.Refused[reason] += uint64(n)
		refused += n
	}
	outcome := res.outcome()
	s.Requests[outcome]++
	if res.Err == nil {
		s.LastError, s.LastSent = "", time.Now()
	}
	switch outcome {
	case OutcomePartial:
		e.o.Logger.Warn("the receiver took a part", "refused_points", refused, "of", refused+res.Taken, "reasons", res.Refused, "message", res.Message)
	case OutcomeRetry:
		if s.LastError == "" {
			e.o.Logger.Warn("export failed, to be tried again", "err", res.Err)
		}
	case OutcomeRefused:
		e.o.Logger.Error("export refused, not to be tried again", "points", refused, "reasons", res.Refused, "err", res.Err)
	}
	if res.Err != nil {
		s.LastError = res.Err.Error()
	}
}

// count counts something.
func (e *Exporter) count(f func(*Stats)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.stats)
}

// lost counts rows.
func (e *Exporter) lost(reason string, rows uint64) {
	e.mu.Lock()
	e.stats.Lost[reason] += rows
	e.mu.Unlock()
}

func id16(text string) (id [16]byte) {
	_, _ = hex.Decode(id[:], []byte(text[:min(len(text), 2*len(id))]))
	return id
}

// descriptor names a series for as long as its segment lives.
type descriptor struct {
	index      int
	generation uint32
}

func descriptorOf(s *reader.Series) descriptor {
	index, generation := s.Descriptor()
	return descriptor{index, generation}
}
