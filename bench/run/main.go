// Command run measures everything that DESIGN's numbers speak of and writes
// bench/RESULTS.md: what was found on this machine, beside what was to be reached.
//
// It runs bench/peers (Go record calls next to other libraries), bench/c/record.c
// (C, next to PCP's libpcp_mmv where its headers are), bench/archive (what the archive takes and costs, next to Prometheus's TSDB
// and rrdtool) and bench/fleet (a thousand segments and daemons, next to Prometheus). Run it from the root of the repository, on a machine that does
// nothing else; it takes about 25 minutes, and some more the first time, to build Prometheus and the Collector.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type options struct {
	out        string
	rounds     int
	window     time.Duration
	warm       time.Duration
	skipFleet  bool
	archives   bool
	records    bool
	prometheus bool
	quiet      float64
}

func main() {
	var o options
	flag.StringVar(&o.out, "o", "bench/RESULTS.md", "write the results to this `file`")
	flag.IntVar(&o.rounds, "rounds", 61, "rounds of each record call")
	flag.DurationVar(&o.window, "for", 360*time.Second, "how long the fleet is measured: what a minute's flush leaves is folded each 6 minutes")
	flag.DurationVar(&o.warm, "warm", 20*time.Second, "how long it runs before")
	flag.BoolVar(&o.records, "records", true, "measure record calls and ticks")
	flag.BoolVar(&o.archives, "archive", true, "measure the archive")
	flag.BoolVar(&o.skipFleet, "nofleet", false, "leave the fleet out")
	flag.BoolVar(&o.prometheus, "prometheus", true, "with the fleet, measure Prometheus too")
	flag.Float64Var(&o.quiet, "quiet", 0.3, "wait up to two minutes for a load average of at most this")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	if _, err := os.Stat("bench/run/main.go"); err != nil {
		return errors.New("shmts: want the repository's root as the working directory")
	}
	scratch, err := diskScratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	b := bench{options: o, scratch: scratch, results: results{}}
	if err := b.build(); err != nil {
		return err
	}
	waitQuiet(o.quiet)
	b.loadBefore = loadAverage()
	if err := b.measure(); err != nil {
		return err
	}
	b.loadAfter = loadAverage()
	var page bytes.Buffer
	b.write(&page)
	if err := os.WriteFile(o.out, page.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "wrote %s\n", o.out)
	return nil
}

// bench is one run of everything.
type bench struct {
	options
	scratch               string
	results               results
	sections              []section // tables as they were printed, in order
	commands              []string
	notes                 []string
	loadBefore, loadAfter string
}

// section is what one program printed.
type section struct {
	title  string
	header []string
	rows   [][]string
}

// results are numbers by name: of the record calls the median, of the fleet the value.
type results map[string]float64

// build builds everything first, so that no compiler runs while something is measured.
func (b *bench) build() error {
	say("building")
	if err := b.command("", "go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", b.path("shmtsd"), "./cmd/shmtsd"); err != nil {
		return err
	}
	for _, name := range []string{"fleet", "archive", "tenants"} {
		if err := b.command("", "go", "build", "-o", b.path(name), "./bench/"+name); err != nil {
			return err
		}
	}
	for _, name := range []string{"udpfwd", "udpgen"} {
		if err := b.command("", "gcc", "-std=c11", "-O2", "-Icshim", "-o", b.path(name), "cshim/examples/"+name+".c", "-pthread"); err != nil {
			return err
		}
	}
	for _, name := range []string{".", "expose", "tsdb"} {
		to := name
		if name == "." {
			to = "peers"
		}
		if err := b.command("bench/peers", "go", "build", "-o", b.path(to), "./"+name); err != nil {
			return err
		}
	}
	args := []string{"-std=c11", "-O2", "-Icshim", "-o", b.path("record"), "bench/c/record.c", "-pthread"}
	pcp := append(append([]string{"-DHAVE_PCP"}, args...), "-lpcp_mmv", "-lpcp")
	if out, err := exec.Command("gcc", pcp...).CombinedOutput(); err == nil {
		b.commands = append(b.commands, "gcc "+b.shown(pcp))
		return nil
	} else if len(out) > 0 {
		b.notes = append(b.notes, "PCP's libpcp_mmv is not in this run: its headers are not installed (Debian: libpcp-mmv1-dev).")
	}
	return b.command("", "gcc", args...)
}

func (b *bench) measure() error {
	if b.records {
		if err := errors.Join(b.goRecords(), b.cRecords()); err != nil {
			return err
		}
	}
	if err := b.sizes(); err != nil {
		return err
	}
	if b.archives {
		if err := b.archive(); err != nil {
			return err
		}
	}
	if b.skipFleet {
		return nil
	}
	if err := errors.Join(b.fleet(), b.tenants()); err != nil {
		return err
	}
	if !b.prometheus {
		return nil
	}
	return errors.Join(b.exports(), b.dashboard())
}

// goRecords runs bench/peers: name, min, median, ratio, against.
func (b *bench) goRecords() error {
	say("Go record calls next to other libraries")
	lines, err := b.output(b.path("peers"), "-rounds", strconv.Itoa(b.rounds))
	if err != nil {
		return err
	}
	calls := section{title: "Go record calls", header: []string{"call", "min ns", "median ns", "times cheaper than"}}
	ticks := section{title: "Go ticks that publish a row", header: []string{"tick", "min ns", "median ns"}}
	for _, f := range lines {
		if len(f) != 5 {
			return fmt.Errorf("shmts: bench/peers: want 5 fields, got %q", f)
		}
		min, median, err := numbers(f[1], f[2])
		if err != nil {
			return err
		}
		b.results[f[0]] = median
		if strings.HasPrefix(f[0], "shmts/Tick/") {
			ticks.rows = append(ticks.rows, []string{code(f[0]), fixed(min), fixed(median)})
			continue
		}
		against := ""
		if f[4] != "-" {
			against = f[3] + " x " + code(f[4])
		}
		if n := len(calls.rows); n > 0 && calls.rows[n-1][0] == code(f[0]) {
			calls.rows[n-1][3] += ", " + against // the same subject next to another
			continue
		}
		calls.rows = append(calls.rows, []string{code(f[0]), fixed(min), fixed(median), against})
	}
	b.sections = append(b.sections, calls, ticks)
	return nil
}

// cRecords runs bench/c/record.c: name, min, median.
func (b *bench) cRecords() error {
	say("C record calls")
	lines, err := b.output(b.path("record"))
	if err != nil {
		return err
	}
	s := section{title: "C record calls and ticks", header: []string{"call", "min ns", "median ns"}}
	for _, f := range lines {
		if len(f) < 3 {
			return fmt.Errorf("shmts: bench/c/record.c: want 3 fields, got %q", f)
		}
		min, median, err := numbers(f[1], f[2])
		if err != nil {
			return err
		}
		b.results["c/"+f[0]] = median
		s.rows = append(s.rows, []string{code(f[0]), fixed(min), fixed(median)})
	}
	b.sections = append(b.sections, s)
	return nil
}

// fleet runs bench/fleet: name, value.
func (b *bench) fleet() error {
	say("a fleet of 1,000 segments, daemons, and Prometheus")
	args := []string{"-shmtsd", b.path("shmtsd"), "-for", b.window.String(), "-warm", b.warm.String()}
	if b.archives {
		args = append(args, "-archive", b.path("full"))
	}
	if b.prometheus {
		args = append(args, "-prometheus", "-expose", b.path("expose"))
	}
	if failed := b.values(b.path("fleet"), args...); failed != nil { // what it measured until then stands
		b.notes = append(b.notes, "The fleet's run ended early: "+failed.Error()+".")
	}
	s := section{title: "A fleet: processes", header: []string{"what", "% of a core", "RSS MB", "anonymous", "segments", "peak"}}
	for _, p := range []struct{ name, what string }{
		{"timers", "1,000 goroutines in 4 processes that wake up once a second and do nothing"},
		{"daemon", "shmtsd polling"},
		{"daemon_archive", "shmtsd polling and archiving, into a full archive"},
		{"daemon_otlp", "shmtsd polling and archiving, and OTLP of everything each 10 s"},
		{"daemon_writers", "1,000 writers in 4 processes meanwhile: a tick a second each, and a record a second of each series"},
		{"prometheus", "Prometheus scraping each second"},
		{"prometheus_exposers", "the processes that it scrapes"},
	} {
		if _, ok := b.results[p.name+"_cpu"]; !ok {
			continue
		}
		mb := func(suffix string) string { return fmt.Sprintf("%.1f", b.results[p.name+suffix]/1000) }
		s.rows = append(s.rows, []string{p.what, fmt.Sprintf("%.2f", b.results[p.name+"_cpu"]), mb("_rss"), mb("_rss_anon"), mb("_rss_shmem"), mb("_rss_peak")})
	}
	b.sections = append(b.sections, s)
	return nil
}

// path is where a built program is.
func (b *bench) path(name string) string { return filepath.Join(b.scratch, name) }

// shown is a command line as the page shows it, without this run's scratch directory.
func (b *bench) shown(args []string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.Join(args, " "), b.scratch+"/", ""), b.scratch, ".")
}

func (b *bench) command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if name == "go" {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("shmts: %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	line := name + " " + b.shown(args)
	if dir != "" {
		line = "(cd " + dir + " && " + line + ")"
	}
	b.commands = append(b.commands, line)
	return nil
}

// output runs a program and gives the tab-separated fields of its lines, also when it then
// failed; lines that begin with # are left out.
func (b *bench) output(path string, args ...string) ([][]string, error) {
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("shmts: %s: %w", filepath.Base(path), err)
	}
	b.commands = append(b.commands, b.shown(append([]string{path}, args...)))
	var lines [][]string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.Split(line, "\t"))
		}
	}
	return lines, err
}

func numbers(a, b string) (float64, float64, error) {
	x, err := strconv.ParseFloat(a, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("shmts: want a number, got %q", a)
	}
	y, err := strconv.ParseFloat(b, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("shmts: want a number, got %q", b)
	}
	return x, y, nil
}

func say(what string)      { fmt.Fprintln(os.Stderr, what) }
func code(s string) string { return "`" + s + "`" }

// fixed has as many digits as mean something.
func fixed(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
