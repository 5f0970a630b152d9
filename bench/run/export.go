package main

import (
	"fmt"
	"time"
)

// exportWindow is how long senders are measured.
const exportWindow = 120 * time.Second

// exports runs bench/fleet -exports: name, value.
func (b *bench) exports() error {
	say("a thousand sources' samples sent on, next to vmagent, Prometheus's agent and the Collector")
	args := []string{"-exports", "-shmtsd", b.path("shmtsd"), "-expose", b.path("expose"), "-warm", b.warm.String(), "-peers.for", exportWindow.String()}
	if failed := b.values(b.path("fleet"), args...); failed != nil { // what it measured until then stands
		b.notes = append(b.notes, "The run of what sends samples on ended early: "+failed.Error()+".")
	}
	r := b.results
	// What sending takes is what a daemon that sends takes more than one that does not; the others read and send in one.
	for _, name := range []string{"export_rw2", "export_rw1", "export_otlp"} {
		if n := r[name+"_samples"]; n > 0 {
			r[name+"_ms_100k"] = (r[name+"_cpu"] - r["export_none_cpu"]) / 100 * exportWindow.Seconds() * 1000 / n * 100_000
		}
	}
	for _, name := range []string{"export_rw2", "export_rw1", "export_otlp", "collector", "vmagent", "agent_rw1", "agent_rw2"} {
		if n := r[name+"_samples"]; n > 0 {
			r[name+"_whole_ms_100k"] = r[name+"_cpu"] / 100 * exportWindow.Seconds() * 1000 / n * 100_000
		}
	}
	s := section{title: exportsTitle, header: []string{"what", "% of a core", "RSS MB", "samples", "requests", "bytes a sample", "CPU of 100,000 samples, ms"}}
	for _, p := range []struct{ name, what string }{
		{"export_none", "shmtsd polling each second"},
		{"export_rw2", "the same, and remote-write 2.0"},
		{"export_rw1", "the same, and remote-write 1.0"},
		{"export_otlp", "the same, and OTLP, gzip"},
		{"collector", "the Collector that takes that OTLP and writes it to /dev/null"},
		{"vmagent", "vmagent scraping each 10 s, remote-write 1.0"},
		{"agent_rw1", "Prometheus's agent scraping each 10 s, remote-write 1.0"},
		{"agent_rw2", "the same, remote-write 2.0"},
	} {
		if _, ok := r[p.name+"_cpu"]; !ok {
			continue
		}
		row := []string{p.what, fmt.Sprintf("%.2f", r[p.name+"_cpu"]), fmt.Sprintf("%.1f", r[p.name+"_rss"]/1000), "", "", "", ""}
		if n := r[p.name+"_samples"]; n > 0 {
			row[3], row[4], row[5], row[6] = fmt.Sprintf("%.0f", n), fmt.Sprintf("%.0f", r[p.name+"_requests"]), fmt.Sprintf("%.1f", r[p.name+"_bytes"]/n), fmt.Sprintf("%.0f", r[p.name+"_whole_ms_100k"])
		}
		s.rows = append(s.rows, row)
	}
	b.sections = append(b.sections, s)
	return nil
}

const exportsTitle = "Leaving the machine: 1,000 sources, a sample of each series each 10 s"

func (b *bench) writeExports(p func(string, ...any)) {
	r := b.results
	p("Over %v. shmtsd: 1,000 segments of 100 series, of which 10 are stats and 10 histograms of 80 buckets: 140 samples each; the daemons ran at the", exportWindow)
	p("same time over the same segments. vmagent and the agents: 1,000 targets of 100 plain series, which they scrape out of 4 processes, at the same time too.")
	p("The receiver counts and forgets. The Collector is sent what shmtsd's OTLP is, by another shmtsd.")
	if r["export_rw2_ms_100k"] > 0 && r["vmagent_whole_ms_100k"] > 0 {
		p("Sending alone, without the polling that a daemon does anyway, takes shmtsd %.0f ms of processor time for 100,000 samples by remote-write 2.0, %.0f by 1.0, %.0f by OTLP.",
			r["export_rw2_ms_100k"], r["export_rw1_ms_100k"], r["export_otlp_ms_100k"])
		p("All in, for as many samples, vmagent takes %.1f x, Prometheus's agent %.1f x of shmtsd by remote-write 1.0.",
			r["vmagent_whole_ms_100k"]/r["export_rw1_whole_ms_100k"], r["agent_rw1_whole_ms_100k"]/r["export_rw1_whole_ms_100k"])
	}
	p("")
}
