package bridge

import (
	"context"
	"time"

	"github.com/shmts/shmts/writer"
)

// Loop runs a collection again and again. The zero value is one that does not.
type Loop struct {
	cancel context.CancelFunc
	done   chan struct{}
}

const (
	lead     = 20 * time.Millisecond // before the end of a step, where the collection before took no time
	leadMost = 250 * time.Millisecond
	sameStep = 50 * time.Millisecond // ends nearer to one another are of one step: steps are 100 ms at least
	waitMost = 10 * time.Second      // however long the steps are: what was not collected dies with the process
)

// Start starts it: every interval, or, when that is 0, shortly before each step of w's tables ends, so that a row holds what
// there was a moment ago, and every 10 s at least. Less than 0: it does not run. It ends with Stop, or when w is closed.
func (l *Loop) Start(w *writer.Writer, interval time.Duration, collect func(context.Context)) {
	if interval < 0 || w == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.done = cancel, make(chan struct{})
	go func() {
		defer close(l.done)
		timer := time.NewTimer(0)
		defer timer.Stop()
		wait := func(d time.Duration) bool {
			timer.Reset(max(d, 0))
			select {
			case <-ctx.Done():
				return false
			case <-timer.C:
				return true
			}
		}
		early := lead
		var ended time.Time // the end of the step that was collected for
		for {
			next := w.NextTick()
			if next < 0 {
				return
			}
			end := time.Now().Add(next)
			switch {
			case interval > 0:
				next = interval
			case end.Sub(ended) < sameStep:
				if !wait(next + time.Millisecond) {
					return
				}
				continue
			case next-early > waitMost:
				next = waitMost
			default:
				next -= early
				ended = end
			}
			if !wait(next) {
				return
			}
			began := time.Now()
			collect(ctx)
			early = min(lead+2*time.Since(began), leadMost)
		}
	}()
}

// Stop ends it, and waits for a collection that runs, whose context is cancelled, as long as ctx lets it. Loops that were never started, or have
// ended, stop at once.
func (l *Loop) Stop(ctx context.Context) error {
	if l.cancel == nil {
		return nil
	}
	l.cancel()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
