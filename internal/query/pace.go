package query

import (
	"context"
	"runtime"
	"sync/atomic"
)

// A Pace lets light queries go before the others, where there are less processors than what runs: see yield.
type Pace struct{ light atomic.Int64 }

// NewPace makes one.
func NewPace() *Pace { return &Pace{} }

func (p *Pace) enter() { p.light.Add(1) }
func (p *Pace) leave() { p.light.Add(-1) }

// yield is called by a query that is not light, each time that it begins with another series or another part of its rows.
func (p *Pace) yield(context.Context) {
	if p != nil {
		runtime.Gosched()
	}
}
