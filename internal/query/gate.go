package query

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrBusy says that as many queries wait as may.
var ErrBusy = errors.New("shmts: too many queries are waiting to run")

// A Gate lets so many queries run at once, of all Shares together. It has two lanes: light queries have places of their own, so that a
// dashboard does not wait for somebody's scan.
//
// Where places are scarce they go round between shares: the next one is for that which had the least of the lane so far, in time by weight.
// Inside a share it is first come, first served. A share that comes after a rest begins where the others are: what it left unused is not
// owed to it.
type Gate struct {
	mu     sync.Mutex
	lanes  [2]lane
	shares []*Share
	clock  func() time.Duration // since it was made
}

// The lanes.
const (
	heavy = iota
	light
)

type lane struct {
	places, running int
	at              float64 // seconds by weight that the share has had which was let in last: nobody begins with less
}

// NewGate is a Gate of so many places for queries, and half as many for light ones beside.
func NewGate(concurrency int) *Gate {
	made := time.Now()
	g := &Gate{clock: func() time.Duration { return time.Since(made) }}
	g.lanes[heavy].places, g.lanes[light].places = concurrency, beside(concurrency)
	return g
}

// beside are the places of light queries.
func beside(concurrency int) int { return max(1, concurrency/2) }

// ShareOptions of Share. The zero value of each is a default.
type ShareOptions struct {
	Concurrency int     // queries that run at once, beside as many light ones, of the gate's places for those; 0: the gate's
	Queue       int     // queries that wait in each lane; 0: 64
	Weight      float64 // how much of the gate is its, beside others'; 0: 1
}

// Share is a part of a Gate: a tenant's.
type Share struct {
	gate   *Gate
	weight float64
	lanes  [2]shareLane
	stats  ShareStats
}

type shareLane struct {
	places, running, most int
	had                   float64       // seconds by weight, of queries that ended
	begins                time.Duration // the sum of when those began that run, by the gate's clock
	queue                 []*waiter
}

// waiter is a query that waits.
type waiter struct {
	admitted chan struct{}
	began    time.Duration // when it was
}

// ShareStats is what became of a share's queries. Times are of those that ended.
type ShareStats struct {
	Running, Waiting  int
	Admitted, Refused uint64 // Refused: as many waited as may
	Left              uint64 // gave up while they waited
	Ran, Waited       time.Duration
}

// Share makes one.
func (g *Gate) Share(o ShareOptions) *Share {
	if o.Concurrency <= 0 {
		o.Concurrency = g.lanes[heavy].places
	}
	if o.Queue <= 0 {
		o.Queue = 64
	}
	if o.Weight <= 0 {
		o.Weight = 1
	}
	s := &Share{gate: g, weight: o.Weight}
	s.lanes[heavy] = shareLane{places: o.Concurrency, most: o.Queue}
	s.lanes[light] = shareLane{places: min(o.Concurrency, g.lanes[light].places), most: o.Queue}
	g.mu.Lock()
	g.shares = append(g.shares, s)
	g.mu.Unlock()
	return s
}

// Stats of a share.
func (s *Share) Stats() ShareStats {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	out := s.stats
	for i := range s.lanes {
		out.Running += s.lanes[i].running
		out.Waiting += len(s.lanes[i].queue)
	}
	return out
}

// leastCost is what being let in costs a share, however short its query is: so those that take no time go round as well.
const leastCost = time.Millisecond

// enter waits for a place in a lane. The place is given back by leave, once. An error is ErrBusy or the context's.
func (s *Share) enter(ctx context.Context, in int) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g, l := s.gate, &s.lanes[in]
	g.mu.Lock()
	if l.running == 0 && len(l.queue) == 0 {
		l.had = max(l.had, g.lanes[in].at)
	}
	if len(l.queue) == 0 && l.running < l.places && g.lanes[in].running < g.lanes[in].places {
		began := s.take(in)
		g.mu.Unlock()
		return s.leaver(in, began), nil
	}
	if len(l.queue) >= l.most {
		s.stats.Refused++
		g.mu.Unlock()
		return nil, ErrBusy
	}
	w := &waiter{admitted: make(chan struct{})}
	l.queue = append(l.queue, w)
	came := g.clock()
	g.mu.Unlock()

	select {
	case <-w.admitted:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.stats.Waited += g.clock() - came
	if i := slices.Index(l.queue, w); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
		s.stats.Left++
		return nil, ctx.Err()
	}
	if err := ctx.Err(); err != nil { // both at once
		s.stats.Left++
		s.release(in, w.began)
		return nil, err
	}
	return s.leaver(in, w.began), nil
}

// leaver gives a place back that was taken at some time.
func (s *Share) leaver(in int, began time.Duration) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			s.gate.mu.Lock()
			defer s.gate.mu.Unlock()
			s.release(in, began)
		})
	}
}

// take takes a place, and answers when. The gate is locked, here and below.
func (s *Share) take(in int) time.Duration {
	g, l := s.gate, &s.lanes[in]
	now := g.clock()
	g.lanes[in].at = max(g.lanes[in].at, s.used(in, now))
	l.running++
	l.begins += now
	g.lanes[in].running++
	s.stats.Admitted++
	return now
}

// release gives it back, and hands it on.
func (s *Share) release(in int, began time.Duration) {
	g, l := s.gate, &s.lanes[in]
	now := g.clock()
	s.stats.Ran += now - began
	l.had += (now - began + leastCost).Seconds() / s.weight
	l.running--
	l.begins -= began
	g.lanes[in].running--
	g.hand(in, now)
}

// used is what a share had of a lane, with what runs now.
func (s *Share) used(in int, now time.Duration) float64 {
	l := &s.lanes[in]
	running := time.Duration(l.running)*(now+leastCost) - l.begins
	return l.had + running.Seconds()/s.weight
}

// hand gives the free places of a lane to those who wait.
func (g *Gate) hand(in int, now time.Duration) {
	for g.lanes[in].running < g.lanes[in].places {
		var next *Share
		least := 0.0
		for _, s := range g.shares {
			if l := &s.lanes[in]; len(l.queue) == 0 || l.running >= l.places {
				continue
			}
			if used := s.used(in, now); next == nil || used < least {
				next, least = s, used
			}
		}
		if next == nil {
			return
		}
		l := &next.lanes[in]
		w := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
		w.began = next.take(in)
		close(w.admitted)
	}
}
