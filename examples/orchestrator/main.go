// Command orchestrator is what a host's scheduler does with local data: it asks the segments of its
// VMs, through package reader, whether one of them lost more CPU time to its neighbours than it
// may, and says so. No daemon takes part, and nothing goes over a network.
//
//	orchestrator -metric vm_cpu_steal_seconds_total -above 0.05 -over 10s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/shmts/shmts/reader"
)

// errUnknown says that nothing is known of a VM: it has no segment, or none with the metric.
var errUnknown = errors.New("no live series")

// above tells whether a counter of a VM grew by more than limit a second over the newest rows that cover window.
func above(store *reader.Store, job, vm, metric string, limit float64, window time.Duration) (bool, reader.Delta, error) {
	for _, g := range store.Lookup(job, vm) { // the newest incarnation first
		s := g.Find(metric)
		if s == nil {
			continue // in another segment of the same process
		}
		if l := g.Liveness(); l != reader.Alive {
			return false, reader.Delta{}, fmt.Errorf("%s is %v", vm, l)
		}
		d, err := g.Delta(s, window)
		return err == nil && d.PerSecond() > limit, d, err
	}
	return false, reader.Delta{}, fmt.Errorf("%s: %s: %w", vm, metric, errUnknown)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "orchestrator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("orchestrator", flag.ContinueOnError)
	var (
		dir    = flags.String("store", "", "the store (default $SHMTS_DIR, else /dev/shm/shmts)")
		job    = flags.String("job", "vm", "the VMs' job")
		metric = flags.String("metric", "vm_cpu_steal_seconds_total", "a counter")
		limit  = flags.Float64("above", 0.05, "by how much a second it may grow")
		window = flags.Duration("over", 10*time.Second, "over how long")
		every  = flags.Duration("every", time.Second, "how often to look; 0: once")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	store, err := reader.Open(reader.Options{Dir: *dir})
	if err != nil {
		return err
	}
	defer store.Close()
	for {
		if _, err := store.Poll(); err != nil {
			return err
		}
		report(store, out, *job, *metric, *limit, *window)
		if *every <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(*every):
		}
	}
}

// report writes a line for each VM: what it would take to decide where the next one goes.
func report(store *reader.Store, out io.Writer, job, metric string, limit float64, window time.Duration) {
	seen := map[string]bool{}
	for _, g := range store.Segments() {
		vm := g.Instance()
		if g.Job() != job || seen[vm] {
			continue
		}
		seen[vm] = true
		over, d, err := above(store, job, vm, metric, limit, window)
		switch {
		case err != nil:
			fmt.Fprintf(out, "%-20s unknown  %v\n", vm, err)
		case over:
			fmt.Fprintf(out, "%-20s ABOVE    %.3f/s over %.0f s (gaps %v): no more neighbours here\n", vm, d.PerSecond(), d.Seconds(), d.Gaps)
		default:
			fmt.Fprintf(out, "%-20s below    %.3f/s over %.0f s (gaps %v)\n", vm, d.PerSecond(), d.Seconds(), d.Gaps)
		}
	}
}
