package main

import (
	"fmt"
	"io"
	"strings"
)

// write writes the page. It is generated: what it says of numbers comes from them.
func (b *bench) write(w io.Writer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("# Results\n")
	p("Written by `make bench`; do not edit. Nanoseconds a call, of each thread or goroutine, over interleaved rounds of about")
	p("1 ms in one process. Ratios are what carries over from machine to machine: absolute figures do not.\n")
	table(w, []string{"this machine", ""}, machine())
	p("Load average before %s, after %s. (One that is not near 0 before says that others used the machine; where CPUs are", b.loadBefore, b.loadAfter)
	p("hyperthreads of a core, a busy neighbour doubles whatever is bound by throughput.)\n")

	p("## Goals\n")
	table(w, []string{"what", "reach", "found", ""}, b.judged())
	for _, note := range b.remarks() {
		p("%s\n", note)
	}
	for _, s := range b.sections {
		p("## %s\n", s.title)
		table(w, s.header, s.rows)
		switch s.title {
		case "A fleet: processes":
			b.writeFleet(p)
		case exportsTitle:
			b.writeExports(p)
		case dashboardTitle:
			b.writeDashboard(p)
		default:
			b.writeArchive(s.title, p)
		}
	}
	for _, note := range b.notes {
		p("%s\n", note)
	}
	p("## Commands\n")
	for _, c := range b.commands {
		p("    %s", c)
	}
}

func (b *bench) judged() (rows [][]string) {
	for _, g := range goals {
		values, missing := make([]float64, len(g.from)), false
		for i, name := range g.from {
			v, ok := b.results[name]
			values[i], missing = v, missing || !ok
		}
		if missing {
			rows = append(rows, []string{g.what, g.reach, "", "not measured in this run"})
			continue
		}
		found, met := g.judge(values)
		rows = append(rows, []string{g.what, g.reach, found, map[bool]string{true: "met", false: "**not met**"}[met]})
	}
	return rows
}

// remarks say why, where the numbers themselves show it.
func (b *bench) remarks() (notes []string) {
	one, turn := b.results["floor/private_add/g1"], b.results["floor/private_add/in_turn/g1"]
	if one > 0.5 && turn > 0 {
		notes = append(notes, fmt.Sprintf("The goals in ns were set on a processor that renames memory (Zen 5), where an add to private memory takes 0.23 ns. On "+
			"this one it takes %.2f ns: an add to the cell that was just stored waits for that store, whoever owns the memory. Over 100 "+
			"cells in turn it does not wait, and takes %.2f ns. So the single-writer handle is to be held against the private add here, and "+
			"its ratio to client_golang's against the one in turn.", one, turn))
	}
	return notes
}

func (b *bench) writeFleet(p func(string, ...any)) {
	r := b.results
	p("%.0f segments of 100 series (60 counters, 20 gauges, 10 stats, 10 histograms of 80 buckets) at the default tiers, %.1f kB each as",
		r["segments"], r["segment_kB"])
	p("allocated, in 4 processes. %% of a core is processor time of the whole process, all threads, over %v after %v of warming up; the shmtsds ran at the",
		b.window, b.warm)
	p("same time, over the same segments, so what one takes more than another is not what the machine did meanwhile. (Prometheus: over 40 s.)")
	p("Of what the writers take, %.1f %% is Go waking up a goroutine a writer and second, doing nothing; the ticks and 100,000 records a",
		r["timers_cpu"])
	p("second are the rest. (A tick by itself, in cache: the table above.)")
	if n := r["daemon_archive_1s_samples"]; n > 0 {
		p("Archived a second: %.0f samples and %.1f kB into the tier of 1 s, %.1f kB into that of 10 s (histograms, and what is folded), %.1f kB into that of 5 m; none was lost.",
			n, r["daemon_archive_1s_bytes"]/1000, r["daemon_archive_10s_bytes"]/1000, r["daemon_archive_5m_bytes"]/1000)
		p("What it takes more than polling alone is %.0f ns for each of those samples: reading rings, columns, the disk, folding, collections.",
			(r["daemon_archive_cpu"]-r["daemon_cpu"])/100*1e9/n)
		p("The archive was full, and held 100,000 dead VMs. Killed and started anew over it, the daemon gave its first answer with data after %.0f ms, and", r["restart_first_ms"])
		p("one of all segments after %.0f (medians; the longest %.0f).", r["restart_all_ms"], r["restart_most_ms"])
	}
	if r["daemon_otlp_requests"] > 0 {
		p("OTLP: %.0f requests, %.0f data points, %.1f MB gzipped in that time.", r["daemon_otlp_requests"], r["daemon_otlp_points"],
			r["daemon_otlp_wire_kB"]/1000)
	}
	if r["prometheus_cpu"] > 0 {
		p("Prometheus scrapes 1,000 targets of 100 plain series (60 counters, 40 gauges) out of 4 processes that use client_golang:")
		p("%.0f samples a second arrived.", r["prometheus_samples"])
		ours := "daemon_archive"
		if r[ours+"_cpu"] == 0 {
			ours = "daemon"
		}
		p("Processor time: Prometheus %.0f x shmtsd; exposing %.1f x writing with its ticks. Memory: %.1f x.",
			r["prometheus_cpu"]/r[ours+"_cpu"], r["prometheus_exposers_cpu"]/r["daemon_writers_cpu"], r["prometheus_rss"]/r[ours+"_rss"])
	}
	p("")
}

// table writes a Markdown table.
func table(w io.Writer, header []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	line(header)
	line(strings.Split(strings.TrimSuffix(strings.Repeat("---|", len(header)), "|"), "|"))
	for _, r := range rows {
		line(r)
	}
	fmt.Fprintln(w)
}
