package query

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Pace has light queries find a processor. While dashboards are looked at (a light query runs, or did in the last seconds) those that are
// not light leave one processor free, where there are several: they take turns at the others. Where that is not enough, since more light ones
// run than processors are free, they also stop for as long as they worked: so all of them together keep at least half of what one processor gives.
//
// A query stops where it begins with another series, or another group of its rows: about each millisecond. The runtime's own time slices are ten.
type Pace struct {
	turns chan struct{} // one for each processor that long ones may have
	wait  atomic.Int64  // long ones that wait for a turn

	mu    sync.Mutex
	light atomic.Int64
	idle  atomic.Pointer[chan struct{}] // is closed when no light one runs any more; nil: none does
	made  time.Time
	last  atomic.Int64 // when the last light one ended, since made; 0: there was none
}

// NewPace makes one.
func NewPace() *Pace {
	p := &Pace{turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), made: time.Now()}
	return p
}

const (
	watched   = 3 * time.Second        // for so long after a light query the next one is expected
	turn      = 20 * time.Millisecond  // how long one goes on while others wait for a turn
	leastWork = 100 * time.Microsecond // that it is worth to stop for
	mostStop  = 50 * time.Millisecond
)

// enter begins a light query; leave ends it.
func (p *Pace) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.light.Add(1) == 1 {
		idle := make(chan struct{})
		p.idle.Store(&idle)
	}
}

func (p *Pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last.Store(int64(time.Since(p.made)) + 1)
	if p.light.Add(-1) == 0 {
		close(*p.idle.Swap(nil))
	}
}

// isWatched tells whether light queries run, or will soon.
func (p *Pace) isWatched(now time.Duration) bool {
	if p.idle.Load() != nil {
		return true
	}
	last := p.last.Load()
	return last > 0 && now-time.Duration(last) < watched
}

// A pacer is what is not light, at a Pace.
type pacer struct {
	*Pace
	mu      sync.Mutex
	turn    bool          // it has one
	ended   bool          // and wants none any more
	since   time.Duration // when it got that
	resumed time.Duration // when it stopped last; 0: not known
}

// yield is called now and then.
func (p *pacer) yield(ctx context.Context) {
	now := time.Since(p.made)
	if !p.isWatched(now) {
		p.end(false)
		runtime.Gosched()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn && now-p.since > turn && p.wait.Load() > 0 {
		<-p.turns
		p.turn = false
	}
	if !p.turn && !p.ended {
		p.wait.Add(1)
		select {
		case p.turns <- struct{}{}:
			p.turn, p.since = true, time.Since(p.made)
		case <-ctx.Done():
		}
		p.wait.Add(-1)
		p.resumed = time.Since(p.made)
		return
	}
	idle := p.idle.Load()
	if idle == nil || int(p.light.Load())+len(p.turns) <= runtime.GOMAXPROCS(0) {
		p.resumed = now
		return
	}
	if worked := now - p.resumed; worked >= leastWork {
		stop := time.NewTimer(min(worked, mostStop))
		select {
		case <-*idle:
		case <-stop.C:
		case <-ctx.Done():
		}
		stop.Stop()
		p.resumed = time.Since(p.made)
	}
}

// end gives a turn back: for ever, where the query is over.
func (p *pacer) end(ever bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = p.ended || ever
	if p.turn {
		<-p.turns
		p.turn = false
	}
}
