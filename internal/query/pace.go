package query

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Pace lets light queries go before the others, where there are not enough processors for all that run. A query that is not light then
// stops for as long as it worked since it stopped last, each time that it begins with another series or another group of its rows, or until
// no light one runs: so it keeps half of its speed at least, and a light one waits for a millisecond of it and not for a time slice of ten.
type Pace struct {
	long  atomic.Int64 // queries that run and are not light
	mu    sync.Mutex
	light int
	idle  atomic.Pointer[chan struct{}] // is closed when no light one runs any more; nil: none does
}

// NewPace makes one.
func NewPace() *Pace { return &Pace{} }

// enter begins a query in a lane; leave ends it.
func (p *Pace) enter(lane int) {
	if lane == heavy {
		p.long.Add(1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.light++; p.light == 1 {
		idle := make(chan struct{})
		p.idle.Store(&idle)
	}
}

func (p *Pace) leave(lane int) {
	if lane == heavy {
		p.long.Add(-1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.light--; p.light == 0 {
		close(*p.idle.Swap(nil))
	}
}

// The shortest work that it is worth to stop for, and the longest stop.
const (
	leastWork = 100 * time.Microsecond
	mostStop  = 50 * time.Millisecond
)

// yield is called by what is not light, now and then. resumed is when it began, or stopped last; 0: not known.
func (p *Pace) yield(ctx context.Context, resumed *atomic.Int64) {
	if p == nil {
		return
	}
	idle := p.idle.Load()
	if idle == nil || p.long.Load() < int64(runtime.GOMAXPROCS(0)) {
		resumed.Store(0)
		runtime.Gosched()
		return
	}
	now := time.Now()
	last := resumed.Load()
	if last == 0 {
		resumed.Store(now.UnixNano())
		runtime.Gosched()
		return
	}
	worked := time.Duration(now.UnixNano() - last)
	if worked < leastWork {
		return
	}
	stop := time.NewTimer(min(worked, mostStop))
	defer stop.Stop()
	select {
	case <-*idle:
	case <-stop.C:
	case <-ctx.Done():
	}
	resumed.Store(time.Now().UnixNano())
}
