package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/internal/peers"
)

// recording is how long this host and the demo's forwarder are recorded.
const recording = 30 * time.Second

// diskScratch is a directory on a disk, where there is one: /tmp is memory on some machines.
func diskScratch() (string, error) {
	for _, dir := range []string{os.TempDir(), "."} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC {
			return os.MkdirTemp(dir, "shmts-bench-")
		}
	}
	return os.MkdirTemp("", "shmts-bench-")
}

// values runs a program that prints name and value, and takes them over.
func (b *bench) values(path string, args ...string) error {
	lines, failed := b.output(path, args...)
	for _, f := range lines {
		if len(f) != 2 {
			return fmt.Errorf("shmts: %s: want 2 fields, got %q", b.shown(append([]string{path}, args...)), f)
		}
		value, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return fmt.Errorf("shmts: %s: %w", f[0], err)
		}
		b.results[f[0]] = value
	}
	return failed
}

// archive runs bench/archive, and bench/peers/tsdb beside it: name, value. What can't be measured here is left out, and said.
func (b *bench) archive() error {
	recordings := b.path("recordings")
	if err := os.Mkdir(recordings, 0o755); err != nil {
		return err
	}
	say("a recording of this host and of the demo's forwarder")
	if err := b.values(b.path("archive"), "record", "-dir", recordings, "-bin", b.scratch, "-rows", strconv.Itoa(int(recording.Seconds()))); err != nil {
		return err
	}
	say("the same samples in the archive, in rrdtool and in Prometheus's TSDB")
	if _, err := exec.LookPath("rrdtool"); err != nil {
		b.notes = append(b.notes, "rrdtool is not in this run: it is not installed (Debian: rrdtool).")
	}
	if err := b.values(b.path("archive"), "sizes", "-recordings", recordings); err != nil {
		return err
	}
	if err := b.values(b.path("tsdb"), "-recordings", recordings); err != nil {
		return err
	}
	if err := b.tableSizes(recordings); err != nil {
		return err
	}
	say("flush")
	if err := b.values(b.path("archive"), "flush"); err != nil {
		return err
	}
	say("exemplars")
	if err := b.values(b.path("archive"), "exemplars"); err != nil {
		return err
	}
	say("queries of an archived hour")
	args := []string{"query"}
	if b.prometheus {
		args = append(args, "-prometheus")
	}
	if err := b.values(b.path("archive"), args...); err != nil {
		return err
	}
	say("10 million dead series")
	if err := b.values(b.path("archive"), "fill", "-dir", b.path("full")); err != nil {
		return err
	}
	if err := b.values(b.path("archive"), "select", "-dir", b.path("full")); err != nil {
		return err
	}
	b.tableCosts()
	return nil
}

// tableSizes is what the same samples take.
func (b *bench) tableSizes(recordings string) error {
	sets, err := corpus.Sets(recordings)
	if err != nil {
		return err
	}
	s := section{title: "The archive: bytes a sample", header: []string{"the same samples (of histograms: rows)", "how many", "archive", "Prometheus's TSDB", "times on the step", "its log before", "rrdtool"}}
	for _, set := range sets {
		row := []string{set.What, fixed(b.results["samples/"+set.Name])}
		for _, peer := range []string{"archive", "prometheus", "prometheus_aligned", "prometheus_wal", "rrdtool"} {
			v, ok := b.results["size/"+set.Name+"/"+peer]
			row = append(row, map[bool]string{true: fixed(v)}[ok])
		}
		s.rows = append(s.rows, row)
	}
	b.sections = append(b.sections, s)
	return nil
}

func (b *bench) tableCosts() {
	r := b.results
	flush := section{title: "The archive: flush", header: []string{"what", "CPU ns a sample", "bytes a sample", "handed to files / payload", "written to the disk / payload", "peak MB"}}
	for _, f := range []struct{ name, what string }{{"flush", "from rings into the tier of 1 s"}, {"flush_folding", "the same, and folded into 10 s and 5 m"}} {
		flush.rows = append(flush.rows, []string{f.what, fixed(r[f.name+"/ns_a_sample"]), fixed(r[f.name+"/bytes_a_sample"]), fixed(r[f.name+"/written_to_payload"]),
			fixed(r[f.name+"/device_to_payload"]), fixed(r[f.name+"/peak_kB"] / 1000)})
	}
	selects := section{title: "The archive: select among 100,000 dead VMs", header: []string{"what", "p50 ms", "p99 ms", "CPU ms", "cold p50 ms", "cold p99 ms"}}
	for _, q := range []struct{ name, what string }{{"one", "one VM by its instance"}, {"thousand", "about 1,000 by job and time"}, {"regex", "100 by a regular expression for instance"}} {
		n := "select/" + q.name
		selects.rows = append(selects.rows, []string{q.what, fixed(r[n+"_p50_ms"]), fixed(r[n+"_p99_ms"]), fixed(r[n+"_cpu_ms"]), fixed(r[n+"_cold_p50_ms"]), fixed(r[n+"_cold_p99_ms"])})
	}
	queries := section{title: "The archive: PromQL over an hour of 1,000 processes", header: []string{"query", "first ms", "warm ms", "CPU ms", "cold ms", "over HTTP ms", "Prometheus, over HTTP ms", "Prometheus to shmtsd"}}
	for _, q := range []struct{ name, what string }{
		{"one", "one series at 1 s, each second"}, {"sum_1s", "sum(rate(x[30s])) of 1,000 series each 15 s: from the tier of 1 s"},
		{"sum_10s", "sum(rate(x[1m])) of the same: from the tier of 10 s"}, {"quantile", "histogram_quantile over 100 histograms of 160 buckets each 15 s, from the tier of 10 s"},
	} {
		n := "query/" + q.name
		row := []string{q.what, fixed(r[n+"_first_ms"]), fixed(r[n+"_warm_ms"]), fixed(r[n+"_warm_cpu_ms"]), fixed(r[n+"_cold_ms"]), "", "", ""}
		if r[n+"_prometheus_ms"] > 0 {
			row[5], row[6], row[7] = fixed(r[n+"_http_ms"]), fixed(r[n+"_prometheus_ms"]), fmt.Sprintf("%.2f x", r[n+"_prometheus_ms"]/r[n+"_http_ms"])
		}
		queries.rows = append(queries.rows, row)
	}
	exemplars := section{title: "Exemplars: from rings to the archive and back", header: []string{"what", ""}, rows: [][]string{
		{"bytes in the archive", fixed(r["exemplars/bytes_each"])},
		{"bytes in Prometheus's log, of the same", fixed(r["exemplars/prometheus_log_bytes_each"])},
		{"taken over from a ring, CPU ns", fixed(r["exemplars/collect_ns_each"])},
		{"written, ns", fixed(r["exemplars/flush_ns_each"])},
		{"a poll of 1,000 segments of which none has a new one, CPU us", fixed(r["exemplars/poll_us_1000_idle"])},
		{"those of one process found among all, ms", fixed(r["exemplars/find_one_ms"])},
		{"all of them read, ms", fixed(r["exemplars/find_all_ms"])},
	}}
	b.sections = append(b.sections, flush, exemplars, selects, queries)
}

// writeArchive says how what stands in the tables was measured.
func (b *bench) writeArchive(title string, p func(string, ...any)) {
	r := b.results
	switch title {
	case "The archive: bytes a sample":
		p("All-in: labels, schemas, headers and index; of the archive, what is in use of its file, written in blocks as the daemon writes them, and read back. Of")
		p("Prometheus %s, the block that its head is compacted into: chunks and index; times come some ms late, as ticks do, and in the next column lie on the", peers.PrometheusVersion)
		p("step, as those of its own scrapes mostly do. It gets histograms as native ones. rrdtool: a file for each source with one RRA, LAST, of as many rows; each bucket is a")
		p("data source. Recordings are replayed until they are an hour long. Of the application mix, a tenth are random f64s, and a fifth sums of such: no codec makes")
		p("less than 6 bytes a sample of the one.\n")
	case "The archive: flush":
		p("256 writers of 100 series each under a clock of the benchmark's, rings in /dev/shm, files on a disk, a sync each 5 s; the processor time of the archiver's goroutine")
		p("alone. Payload is blocks with their labels; handed to files are extents' headers and indexes as well.\n")
	case "Exemplars: from rings to the archive and back":
		p("256 processes of ten histograms, 2 minutes, five records a second with a trace in each: of %.0f offered, %.0f were taken, %.0f missed. Prometheus keeps exemplars in", r["exemplars/offered"], r["exemplars/taken"], r["exemplars/missed"])
		p("memory, and in its write-ahead log; the labels of series are in neither figure but where a block is the first of an extent.\n")
	case "The archive: select among 100,000 dead VMs":
		p("100 series each, 45 s each: %.0f MB at 1 s in %.0f extents, and %.0f MB at 10 s, where each VM has five rows of last, min, max, sum and count. Made in %.0f s of", r["fill/1s_MB"], r["fill/1s_extents"], r["fill/10s_MB"], r["fill/cpu_seconds"])
		p("processor time. Cold: none of the files is in the page cache. Resident after it all: %.1f MB.\n", r["select/resident_kB"]/1000)
	case "The archive: PromQL over an hour of 1,000 processes":
		p("100 series each, a fifth of which change; through the daemon's engine, without HTTP. First: who overlapped with whom is found out once, and kept.")
		p("Then both over HTTP, in turns, medians: Prometheus %s holds the same samples of what is selected, at 1 s (histograms at 10 s), in its head block, in memory.\n", peers.PrometheusVersion)
	}
}
