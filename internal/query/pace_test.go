package query

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What is not light stops while light ones run and processors are scarce, for as long as it worked, and goes on when they are done.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace()
		var resumed atomic.Int64
		yield := func(worked time.Duration) time.Duration {
			time.Sleep(worked)
			begin := time.Now()
			p.yield(t.Context(), &resumed)
			return time.Since(begin)
		}
		for range runtime.GOMAXPROCS(0) {
			p.enter(heavy)
		}
		if d := yield(time.Second) + yield(time.Second); d != 0 {
			t.Errorf("alone: want no stop, got %v", d)
		}
		p.enter(light)
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
		p.enter(light)
		go func() {
			time.Sleep(3*time.Millisecond + 7*time.Millisecond)
			p.leave(light)
			time.Sleep(time.Millisecond)
			p.leave(light)
		}()
		if d := yield(7 * time.Millisecond); d != 4*time.Millisecond {
			t.Errorf("when they are done: want it to go on after 4ms, got %v", d)
		}
		if d := yield(time.Second); d != 0 {
			t.Errorf("when they are done: want no stop, got %v", d)
		}
		p.enter(light)
		yield(0)
		p.leave(heavy)
		if d := yield(time.Second); d != 0 {
			t.Errorf("with a processor free: want no stop, got %v", d)
		}
		p.enter(heavy)
		yield(0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(time.Second)
		begin := time.Now()
		if p.yield(ctx, &resumed); time.Since(begin) != 0 {
			t.Error("who is gone does not stop")
		}
	})
}
