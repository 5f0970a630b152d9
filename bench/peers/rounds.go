package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A subject is one record call under measurement.
type subject struct {
	name string
	// against names the subjects that ratios are taken to: how many times this
	// one's median fits into the other's.
	against []string
	// body prepares goroutine g of all and returns a loop of n record calls.
	// The loop is in the subject, not around it, so that a call is inlined where
	// a user's would be.
	body func(g, all int) func(n int)
	// goroutines that record at once. All see the same series, unless they own
	// lanes of their own, which is what is being compared.
	goroutines int

	loops []func(n int)
	calls int       // of one round, so that it lasts about the round's time
	ns    []float64 // a call, one value a round
}

// calibrate finds how many calls fill a round.
func (s *subject) calibrate(round time.Duration) {
	s.loops = make([]func(int), s.goroutines)
	for g := range s.loops {
		s.loops[g] = s.body(g, s.goroutines)
	}
	s.calls = 1000
	for {
		ns, _ := s.run()
		if d := time.Duration(ns * float64(s.calls)); d >= round/2 {
			s.calls = int(float64(s.calls) * float64(round) / float64(d))
			s.calls += inTurn - s.calls%inTurn // whole turns
			return
		}
		s.calls *= 2
	}
}

// run does one round and gives ns a call, the mean of its goroutines'. Each
// goroutine times its own loop, after all have met at a barrier. Together tells
// whether they then really ran at once: on a machine that is busy they may run
// one after the other, and there is no contention to be measured.
func (s *subject) run() (ns float64, together bool) {
	if s.goroutines == 1 {
		begin := time.Now()
		s.loops[0](s.calls)
		return float64(time.Since(begin)) / float64(s.calls), true
	}
	var (
		ready      atomic.Int32
		wait       sync.WaitGroup
		began, end = make([]time.Time, s.goroutines), make([]time.Time, s.goroutines)
	)
	for g := range s.loops {
		wait.Go(func() {
			ready.Add(1)
			for ready.Load() < int32(s.goroutines) { // spin: waking up takes longer than a round should
			}
			began[g] = time.Now()
			s.loops[g](s.calls)
			end[g] = time.Now()
		})
	}
	wait.Wait()
	var sum, longest time.Duration
	for g := range began {
		d := end[g].Sub(began[g])
		sum += d
		longest = max(longest, d)
	}
	shared := slices.MinFunc(end, time.Time.Compare).Sub(slices.MaxFunc(began, time.Time.Compare))
	return float64(sum) / float64(s.goroutines) / float64(s.calls), shared >= longest*3/4
}

// measure interleaves the subjects: round after round, each once, so that a
// noisy moment of the machine falls on all of them alike. A round whose goroutines
// were not together is tried again, some times; then it is left out,
// and so is a subject of which too few rounds are left.
func measure(subjects []*subject, rounds int, round time.Duration) []*subject {
	for _, s := range subjects {
		s.calibrate(round)
	}
	for range rounds {
		for _, s := range subjects {
			for range 10 {
				if ns, together := s.run(); together {
					s.ns = append(s.ns, ns)
					break
				}
			}
		}
	}
	kept := slices.DeleteFunc(subjects, func(s *subject) bool {
		few := len(s.ns) < (rounds+3)/4
		if few {
			fmt.Fprintf(os.Stderr, "shmts: %s is left out: its goroutines were together in %d of %d rounds: the machine is too busy\n", s.name, len(s.ns), rounds)
		}
		return few
	})
	for _, s := range kept {
		slices.Sort(s.ns)
	}
	return only(kept)
}

func (s *subject) min() float64    { return s.ns[0] }
func (s *subject) median() float64 { return s.ns[len(s.ns)/2] }

// report prints name, min, median, ratio, and what the ratio is to: a line for each
// that a subject is compared with, one with "-" for those that are not.
func report(w io.Writer, subjects []*subject) error {
	byName := make(map[string]*subject, len(subjects))
	for _, s := range subjects {
		byName[s.name] = s
	}
	for _, s := range subjects {
		if len(s.against) == 0 {
			if _, err := fmt.Fprintf(w, "%s\t%.3f\t%.3f\t-\t-\n", s.name, s.min(), s.median()); err != nil {
				return err
			}
		}
		for _, name := range s.against {
			other := byName[name]
			if other == nil {
				return fmt.Errorf("shmts: %s is compared with %q, which is not measured", s.name, name)
			}
			if _, err := fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.2f\t%s\n", s.name, s.min(), s.median(), other.median()/s.median(), name); err != nil {
				return err
			}
		}
	}
	return nil
}
