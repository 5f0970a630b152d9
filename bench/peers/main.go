// Command peers measures what a record call costs in Go, next to the libraries
// that services use today, all in one process and interleaved round by round.
//
// It prints a line a subject, name, min, median, ratio and what the ratio is to,
// separated by tabs: nanoseconds a call of each goroutine. A ratio of 5 means that
// the other's call takes 5 times as long. bench/run makes RESULTS.md of it.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 61, "rounds of each subject")
	round := flag.Duration("round", time.Millisecond, "about how long a round lasts")
	dir := flag.String("store", "", "an existing `directory` for the segments measured; a private one in /dev/shm if empty")
	pattern := flag.String("only", "", "measure only subjects whose name this `regexp` matches; ratios to others are left out")
	flag.Parse()
	if err := run(*rounds, *round, *dir, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(rounds int, round time.Duration, dir, pattern string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("shmts: -only: %w", err)
	}
	if rounds < 1 || round <= 0 {
		return fmt.Errorf("shmts: want at least one round of more than 0, got %d of %v", rounds, round)
	}
	if dir == "" {
		private, err := os.MkdirTemp("/dev/shm", "shmts-bench-")
		if err != nil {
			return fmt.Errorf("shmts: no private store: %w", err)
		}
		defer os.RemoveAll(private)
		dir = private
	}
	fmt.Printf("# %s %s/%s, GOMAXPROCS %d, %d rounds of %v\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.GOMAXPROCS(0), rounds, round)
	for _, goroutines := range []int{1, 2} {
		if goroutines > runtime.GOMAXPROCS(0) {
			fmt.Fprintf(os.Stderr, "shmts: skipping %d goroutines at once: GOMAXPROCS is %d\n", goroutines, runtime.GOMAXPROCS(0))
			continue
		}
		subjects, done, err := all(goroutines, dir)
		if err != nil {
			return err
		}
		subjects = chosen(subjects, match)
		subjects = measure(subjects, rounds, round)
		done()
		for _, s := range subjects {
			s.name = fmt.Sprintf("%s/g%d", s.name, goroutines)
			for i := range s.against {
				s.against[i] = fmt.Sprintf("%s/g%d", s.against[i], goroutines)
			}
		}
		if err := report(os.Stdout, subjects); err != nil {
			return err
		}
	}
	subjects, done, err := ticks(dir)
	if err != nil {
		return err
	}
	defer done()
	subjects = chosen(subjects, match)
	return report(os.Stdout, measure(subjects, rounds, round))
}

// chosen are the subjects that match.
func chosen(subjects []*subject, match *regexp.Regexp) []*subject {
	return only(slices.DeleteFunc(subjects, func(s *subject) bool { return !match.MatchString(s.name) }))
}

// only takes out comparisons with subjects that are not there.
func only(subjects []*subject) []*subject {
	for _, s := range subjects {
		s.against = slices.DeleteFunc(s.against, func(name string) bool {
			return !slices.ContainsFunc(subjects, func(o *subject) bool { return o.name == name })
		})
	}
	return subjects
}

// all are the subjects for some goroutines at once; done closes what they recorded into.
func all(goroutines int, dir string) (subjects []*subject, done func(), err error) {
	ours, done, err := shmts(goroutines, dir)
	if err != nil {
		return nil, nil, err
	}
	sdk, err := otelSDK(goroutines)
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("shmts: OpenTelemetry SDK: %w", err)
	}
	subjects = append(subjects, floor(goroutines)...)
	subjects = append(subjects, ours...)
	subjects = append(subjects, clientGolang(goroutines)...)
	subjects = append(subjects, sdk...)
	return append(subjects, victoriaMetrics(goroutines)...), done, nil
}
