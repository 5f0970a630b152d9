package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// run has a share run queries of some length, one after the other on so many goroutines, until the context ends; each is noted.
func run(ctx context.Context, s *Share, lane, goroutines int, took time.Duration, note func()) {
	for range goroutines {
		go func() {
			for {
				leave, err := s.enter(ctx, lane)
				if err != nil {
					return
				}
				time.Sleep(took)
				note()
				leave()
			}
		}()
	}
}

// Where places are scarce they go round by time and weight, whoever has more that wait, or longer ones.
func TestFair(t *testing.T) {
	for _, c := range []struct {
		name  string
		took  []time.Duration
		many  []int
		share []float64
		want  []float64 // of the time
	}{
		{"a crowd and one", []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}, []int{50, 2}, []float64{1, 1}, []float64{0.5, 0.5}},
		{"long and short", []time.Duration{time.Second, 10 * time.Millisecond}, []int{4, 4}, []float64{1, 1}, []float64{0.5, 0.5}},
		{"weights", []time.Duration{100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}, []int{9, 9, 9}, []float64{1, 2, 5}, []float64{1. / 8, 2. / 8, 5. / 8}},
		{"one that has little", []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}, []int{9, 1}, []float64{1, 1}, []float64{0.5, 0.5}},
		{"alone", []time.Duration{100 * time.Millisecond}, []int{9}, []float64{1}, []float64{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(2)
				if c.name == "one that has little" {
					g.lanes[heavy].places = 1
				}
				ctx, cancel := context.WithCancel(t.Context())
				for i, w := range c.share {
					run(ctx, g.Share(ShareOptions{Weight: w, Concurrency: 2}), heavy, c.many[i], c.took[i], func() {})
				}
				time.Sleep(100 * time.Second)
				all := time.Duration(0)
				for _, s := range g.shares {
					all += s.Stats().Ran
				}
				for i, s := range g.shares {
					if got := s.Stats().Ran.Seconds() / all.Seconds(); got < c.want[i]*0.9 || got > c.want[i]*1.1 {
						t.Errorf("share %d: want %.3f of the time, got %.3f", i, c.want[i], got)
					}
				}
				if busy := all.Seconds() / 100 / float64(g.lanes[heavy].places); busy < 0.98 {
					t.Errorf("want no place idle while somebody waits, got %.3f used", busy)
				}
				cancel()
				time.Sleep(2 * time.Second)
				g.mu.Lock()
				defer g.mu.Unlock()
				for i := range g.lanes {
					if g.lanes[i].running != 0 {
						t.Errorf("lane %d: want all places back, got %d taken", i, g.lanes[i].running)
					}
				}
				for i, s := range g.shares {
					if l := &s.lanes[heavy]; l.running != 0 || len(l.queue) != 0 || l.begins != 0 {
						t.Errorf("share %d: want it empty, got %+v", i, l)
					}
				}
			})
		})
	}
}

// A share that rested is not owed what it left, nor does it wait behind those that did not rest.
func TestFairAfterRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		busy, rested := g.Share(ShareOptions{}), g.Share(ShareOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var order []string
		note := func(who string) func() {
			return func() { mu.Lock(); order = append(order, who); mu.Unlock() }
		}
		run(ctx, busy, heavy, 8, time.Second, note("busy"))
		time.Sleep(100*time.Second + time.Second/2)
		mu.Lock()
		order = nil
		mu.Unlock()
		run(ctx, rested, heavy, 8, time.Second, note("rested"))
		time.Sleep(20 * time.Second)
		cancel()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := strings.Join(order, " "); strings.Count(got, "rested rested rested") > 0 || strings.Count(got, "busy busy busy") > 0 {
			t.Errorf("want turns, got %s", got)
		}
	})
}

// Inside a share it is first come, first served; who goes away leaves the queue at once; what waits is bounded, for each share by itself.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		a, b := g.Share(ShareOptions{Queue: 3}), g.Share(ShareOptions{Queue: 2})
		leave, err := a.enter(t.Context(), heavy)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		var cancels []context.CancelFunc
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			go func() {
				leave, err := a.enter(ctx, heavy)
				if i == 1 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("want the context's error, got %v", err)
					}
					return
				}
				order = append(order, i)
				time.Sleep(time.Second)
				leave()
			}()
			synctest.Wait()
		}
		if _, err := a.enter(t.Context(), heavy); !errors.Is(err, ErrBusy) {
			t.Errorf("a full queue: want ErrBusy, got %v", err)
		}
		if st := a.Stats(); st.Waiting != 3 || st.Refused != 1 {
			t.Errorf("got %+v", st)
		}
		cancels[1]()
		synctest.Wait()
		if st := a.Stats(); st.Waiting != 2 || st.Left != 1 {
			t.Errorf("one went away: got %+v", st)
		}
		go func() {
			if leave, err := b.enter(t.Context(), heavy); err == nil { // its own queue is not full
				leave()
			} else {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if l, err := a.enter(t.Context(), light); err != nil { // another lane
			t.Error(err)
		} else {
			l()
		}
		leave()
		leave() // does nothing
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !slices.Equal(order, []int{0, 2}) {
			t.Errorf("want them in their order, got %v", order)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.enter(gone, heavy); !errors.Is(err, context.Canceled) {
			t.Errorf("who is gone already: got %v", err)
		}
	})
}

// A share never has more places than its own, whatever is free.
func TestShareCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(8)
		ctx, cancel := context.WithCancel(t.Context())
		for n := 1; n <= 3; n++ {
			run(ctx, g.Share(ShareOptions{Concurrency: n}), heavy, 10, time.Second, func() {})
		}
		synctest.Wait()
		for i, s := range g.shares {
			if st := s.Stats(); st.Running != i+1 {
				t.Errorf("share %d: want %d running, got %d", i, i+1, st.Running)
			}
		}
		cancel()
		time.Sleep(2 * time.Second)
	})
}

// Hundreds who come, wait, go away and finish at random leave nothing behind.
func TestGateRace(t *testing.T) {
	g := NewGate(3)
	done := make(chan error)
	for i := range 5 {
		s := g.Share(ShareOptions{Queue: 4, Concurrency: 1 + i%3, Weight: float64(i + 1)})
		for k := range 20 {
			go func() {
				for n := range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration((k*n)%7)*100*time.Microsecond)
					leave, err := s.enter(ctx, (k+n)%2)
					if err == nil {
						time.Sleep(time.Duration((k+n)%3) * 100 * time.Microsecond)
						leave()
					} else if !errors.Is(err, ErrBusy) && ctx.Err() == nil {
						done <- fmt.Errorf("want ErrBusy or the context's, got %w", err)
					}
					cancel()
				}
				done <- nil
			}()
		}
	}
	for range 100 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for i := range g.lanes {
		if g.lanes[i].running != 0 {
			t.Errorf("lane %d: %d places are lost", i, g.lanes[i].running)
		}
	}
	for i, s := range g.shares {
		if st := s.Stats(); st.Running != 0 || st.Waiting != 0 || s.lanes[0].begins != 0 || s.lanes[1].begins != 0 {
			t.Errorf("share %d: %+v", i, st)
		}
	}
}
