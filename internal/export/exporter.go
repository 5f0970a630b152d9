package export

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shmts/shmts/reader"
)

// Options of New.
type Options struct {
	Name string // of the destination, in the log
	// Step is how far apart the rows are that go out: of each table, those of the tier nearest to it, thinned where that is finer. 0: 10 s.
	Step time.Duration
	// Interval is how often new rows are looked for. 0: Step.
	Interval time.Duration
	// Delta has rows know what was sent before them.
	Delta bool

	Backoff    time.Duration // after the first failure; 0: 1 s. Twice as long each time, up to
	MaxBackoff time.Duration // 0: 30 s

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
	Bytes     uint64            // on the wire, before TLS, headers not counted
	Cycles    uint64
	LastError string    // of the last attempt that was not a success; empty after one
	LastSent  time.Time // of the last success
}

// Reasons of a loss, as Stats counts rows.
const (
	LostOverrun = "overrun" // the ring went over them before they could be sent, and no archive has them
)

// Exporter sends to one destination. Run and Flush belong to one goroutine, one after the other; Stats and
// Finished are safe from any.
type Exporter struct {
	o        Options
	segments func() []Segment
	enc      Encoder

	states map[string]*state
	ending []*state // whose last points are in the request
	cycles uint64
	row    Row // that is being added

	mu       sync.Mutex
	stats    Stats
	finished map[string]bool // ids of ended segments of which everything was sent, or refused for good
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
	o.Logger = o.Logger.With("destination", o.Name)
	e := &Exporter{o: o, segments: segments, enc: enc, states: map[string]*state{}, finished: map[string]bool{}}
	e.stats = Stats{Requests: map[string]uint64{}, Refused: map[string]uint64{}, Lost: map[string]uint64{LostOverrun: 0}}
	return e, nil
}

// Name is the destination's.
func (e *Exporter) Name() string { return e.o.Name }

// Stats answers what was counted so far.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
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
		if e.Flush(ctx) != nil {
			return
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
	e.cycles++
	if err := e.send(ctx, false); err != nil { // what an earlier one left
		return err
	}
	segments := e.segments()
	for _, seg := range segments {
		if err := e.segment(ctx, seg); err != nil {
			return err
		}
	}
	// The ends last: a successor of the same source may have gone on by now.
	for _, seg := range segments {
		if err := e.end(ctx, e.states[seg.ID()]); err != nil {
			return err
		}
	}
	if err := e.send(ctx, false); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Cycles++
	for id, st := range e.states {
		if st.cycle != e.cycles {
			delete(e.states, id)
			delete(e.finished, id)
		}
	}
	return nil
}

// send sends the request, if there is something in it, until it was taken or refused for good. It fails
// when the context ends; the request stays.
func (e *Exporter) send(ctx context.Context, full bool) error {
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
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.backoff(attempt, res.After)):
		}
	}
	if !full {
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
