package query

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// While nobody looks, long queries take what they get; while somebody does, they take turns at all processors but one.
func TestPaceTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace()
		procs := cap(p.turns)
		var at, most atomic.Int64
		var work [8]atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range work {
			all.Go(func() {
				q := &pacer{Pace: p}
				defer q.end(true)
				for ctx.Err() == nil {
					q.yield(ctx)
					most.Store(max(most.Load(), at.Add(1)))
					time.Sleep(time.Millisecond)
					work[i].Add(int64(time.Millisecond))
					at.Add(-1)
				}
			})
		}
		time.Sleep(time.Second)
		if most.Load() != int64(len(work)) {
			t.Errorf("nobody looks: want all of %d at work, got %d", len(work), most.Load())
		}
		p.enter()
		time.Sleep(10 * time.Millisecond)
		p.leave()
		most.Store(0)
		for i := range work {
			work[i].Store(0)
		}
		time.Sleep(watched - 50*time.Millisecond)
		if most.Load() != int64(procs) {
			t.Errorf("somebody looks: want %d at work, got %d", procs, most.Load())
		}
		for i := range work {
			if part := time.Duration(work[i].Load()).Seconds() / watched.Seconds() * float64(len(work)) / float64(procs); part < 0.7 || part > 1.3 {
				t.Errorf("query %d: want a like part, got %.2f of it", i, part)
			}
		}
		time.Sleep(time.Second)
		if most.Load() != int64(len(work)) {
			t.Errorf("nobody looks any more: want all of %d at work, got %d", len(work), most.Load())
		}
		cancel()
		all.Wait()
		if len(p.turns) != 0 {
			t.Errorf("want all turns back, got %d taken", len(p.turns))
		}
	})
}

// Where more light ones run than processors are free, the long one that has a turn stops for as long as it worked, until they are done.
func TestPaceStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace()
		q := &pacer{Pace: p}
		yield := func(worked time.Duration) time.Duration {
			time.Sleep(worked)
			begin := time.Now()
			q.yield(t.Context())
			return time.Since(begin)
		}
		if d := yield(time.Second) + yield(time.Second); d != 0 {
			t.Errorf("alone: want no stop, got %v", d)
		}
		for range runtime.GOMAXPROCS(0) {
			p.enter()
		}
		if d := yield(time.Second); d != 0 {
			t.Errorf("at first: want no stop, got %v", d)
		}
		if d := yield(7 * time.Millisecond); d != 7*time.Millisecond {
			t.Errorf("want a stop of 7ms, got %v", d)
		}
		if d := yield(leastWork / 2); d != 0 {
			t.Errorf("after next to nothing: want no stop, got %v", d)
		}
		if d := yield(time.Minute); d != mostStop {
			t.Errorf("after a minute: want a stop of %v, got %v", mostStop, d)
		}
		go func() {
			time.Sleep(7*time.Millisecond + 4*time.Millisecond)
			for range runtime.GOMAXPROCS(0) {
				p.leave()
			}
		}()
		if d := yield(7 * time.Millisecond); d != 4*time.Millisecond {
			t.Errorf("when they are done: want it to go on after 4ms, got %v", d)
		}
		if d := yield(time.Second); d != 0 {
			t.Errorf("when they are done: want no stop, got %v", d)
		}
		other := &pacer{Pace: p}
		for len(p.turns) < cap(p.turns) {
			(&pacer{Pace: p}).yield(t.Context())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		if other.yield(ctx); time.Since(begin) != 0 || other.turn {
			t.Error("want who is gone to wait for no turn")
		}
		q.end(true)
		if q.yield(t.Context()); q.turn {
			t.Error("want one that is over to take no turn")
		}
	})
}
