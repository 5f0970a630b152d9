// Command fleet measures a whole host: a thousand segments of a hundred series
// each, written by real processes at 1 s, and real shmtsds that read them at the same time: one that polls, one that archives, one that
// archives and exports by OTLP. Then that which archives is killed, and how soon the next one answers is measured. Then,
// if asked, a real Prometheus that scrapes as many series each second from processes that expose them.
//
// It prints lines of name and value, separated by a tab: cpu is in per cent of one
// core over the measured time, rss in kB, both as the kernel accounts them.
// bench/run makes RESULTS.md of it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shmts/shmts/bench/profile"
)

// The mix of a segment's hundred series: DESIGN.md's example of a service.
const (
	counters       = 60
	gauges         = 20
	stats          = 10
	histograms     = 10
	seriesASegment = counters + gauges + stats + histograms
)

type config struct {
	segments, processes int
	warm, window, peers time.Duration
	interval            time.Duration // of OTLP export
	daemon              string        // path of shmtsd
	archive             string        // directory of a full archive, as bench/archive fill makes it; empty: none
	restarts            int
	prometheus          bool
	expose              string // path of bench/peers/expose, built
	store               string // for the role of a writer
	first               int
	profile             string
	exports             bool
	dashboard           bool
	compression         string // of OTLP
}

func main() {
	var c config
	role := flag.String("role", "", "internal: what a child process does")
	flag.IntVar(&c.segments, "segments", 1000, "segments, of 100 series each")
	flag.IntVar(&c.processes, "processes", 4, "processes that write, or expose, them")
	flag.DurationVar(&c.warm, "warm", 20*time.Second, "time before measuring begins")
	flag.DurationVar(&c.window, "for", 360*time.Second, "time that is measured of the daemons: what a minute's flush leaves is folded each 6 minutes")
	flag.DurationVar(&c.peers, "peers.for", 40*time.Second, "the same of Prometheus")
	flag.StringVar(&c.archive, "archive", "", "the `directory` of a full archive, made by bench/archive fill: it is written to")
	flag.IntVar(&c.restarts, "restarts", 5, "how often the daemon that archives is killed and started anew")
	flag.DurationVar(&c.interval, "otlp.interval", 10*time.Second, "how often the daemon exports")
	flag.StringVar(&c.compression, "otlp.compression", "gzip", "of what it exports: gzip or none")
	flag.StringVar(&c.daemon, "shmtsd", "bin/shmtsd", "the daemon's `path`")
	flag.BoolVar(&c.prometheus, "prometheus", false, "compare with Prometheus (built if it is not cached: minutes)")
	flag.StringVar(&c.expose, "expose", "", "`path` of bench/peers/expose, for -prometheus")
	flag.BoolVar(&c.exports, "exports", false, "measure what sends samples on, and nothing else: shmtsd, the Collector, vmagent, Prometheus's agent; wants -expose")
	flag.BoolVar(&c.dashboard, "dashboard", false, "measure a dashboard of 20 panels that is refreshed each second, and nothing else; wants -expose")
	flag.StringVar(&c.store, "store", "", "internal: the writer's store")
	flag.IntVar(&c.first, "first", 0, "internal: the writer's first segment")
	flag.StringVar(&c.profile, "writer.cpuprofile", "", "keep a profile of one writer process in this `file`")
	flag.Parse()
	var err error
	switch *role {
	case "":
		err = run(c)
	case "writer":
		err = profile.CPU(c.profile, func() error { return write(c.store, c.first, c.segments) })
	case "timers":
		timers(c.segments)
	default:
		err = fmt.Errorf("shmts: -role %q: want none, writer or timers", *role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(c config) error {
	if c.segments < c.processes || c.processes < 1 {
		return fmt.Errorf("shmts: want at least a segment a process and a process, got %d segments, %d processes", c.segments, c.processes)
	}
	if (c.prometheus || c.exports || c.dashboard) && c.expose == "" {
		return errors.New("shmts: -prometheus, -exports and -dashboard want -expose, got none")
	}
	// In /dev/shm, as segments are; private, so that nobody's segments count.
	store, err := os.MkdirTemp("/dev/shm", "shmts-fleet-")
	if err != nil {
		return fmt.Errorf("shmts: no private store: %w", err)
	}
	defer os.RemoveAll(store)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)

	var all children
	defer all.kill()
	failed := make(chan error, 1)
	go func() { failed <- measure(c, store, &all) }()
	select {
	case err := <-failed:
		return err
	case s := <-interrupted:
		return fmt.Errorf("shmts: stopped by %v", s)
	}
}

func measure(c config, store string, all *children) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var writers []*child
	for p := range c.processes {
		first, count := share(c.segments, c.processes, p)
		args := []string{"-role", "writer", "-store", store, "-first", fmt.Sprint(first), "-segments", fmt.Sprint(count)}
		if p == 0 && c.profile != "" {
			args = append(args, "-writer.cpuprofile", c.profile)
		}
		w, err := all.start(self, args...)
		if err != nil {
			return err
		}
		writers = append(writers, w)
	}
	for _, w := range writers {
		if err := w.ready(60 * time.Second); err != nil {
			return err
		}
	}
	if c.exports {
		return withExports(c, store, all, writers)
	}
	if c.dashboard {
		return withDashboard(c, store, all)
	}
	if err := withTimers(c, self, all); err != nil {
		return err
	}
	fmt.Printf("segments\t%d\nseries\t%d\n", c.segments, c.segments*seriesASegment)
	if err := printStoreSize(store, c.segments); err != nil {
		return err
	}

	if err := withDaemons(c, store, all, writers); err != nil {
		return err
	}
	for _, w := range writers {
		if err := w.stop(); err != nil {
			return fmt.Errorf("shmts: a writer ended badly: %w", err)
		}
	}
	if c.prometheus {
		return withPrometheus(c, all)
	}
	return nil
}

// withTimers measures as many goroutines as there are writers, in as many processes, that wake up once a
// second and do nothing: what the writers' processes would take without a tick or a record.
func withTimers(c config, self string, all *children) error {
	var group []*child
	for p := range c.processes {
		_, count := share(c.segments, c.processes, p)
		t, err := all.start(self, "-role", "timers", "-segments", fmt.Sprint(count))
		if err != nil {
			return err
		}
		group = append(group, t)
	}
	for _, t := range group {
		if err := t.ready(10 * time.Second); err != nil {
			return err
		}
	}
	time.Sleep(2 * time.Second) // every phase has come by
	usage, err := watch(c.peers/4, map[string][]*child{"timers": group})
	if err != nil {
		return err
	}
	usage.print("timers")
	for _, t := range group {
		if err := t.stop(); err != nil {
			return err
		}
	}
	return nil
}

// share is what process p of all does of n.
func share(n, all, p int) (first, count int) {
	first = n * p / all
	return first, n*(p+1)/all - first
}
