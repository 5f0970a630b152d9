package main

import (
	"fmt"
	"time"
)

// dashboardWindow is how long the dashboard is asked for.
const dashboardWindow = 60 * time.Second

const dashboardTitle = "A dashboard of 20 panels over 1,000 segments, refreshed each second"

// dashboard runs bench/fleet -dashboard: name, value.
func (b *bench) dashboard() error {
	say("a dashboard over the fleet, of shmtsd and of Prometheus")
	args := []string{"-dashboard", "-shmtsd", b.path("shmtsd"), "-expose", b.path("expose"), "-warm", b.warm.String(), "-peers.for", dashboardWindow.String()}
	if failed := b.values(b.path("fleet"), args...); failed != nil { // what it measured until then stands
		b.notes = append(b.notes, "The dashboard's run ended early: "+failed.Error()+".")
	}
	r := b.results
	s := section{title: dashboardTitle, header: []string{"who", "panel p50 ms", "p99 ms", "whole refresh p50 ms", "p99 ms", "refreshes", "left out", "% of a core, idle", "with the dashboard", "RSS MB, idle", "with the dashboard", "peak"}}
	for _, p := range []struct{ name, what string }{{"dashboard_shmtsd", "shmtsd, polling and archiving"}, {"dashboard_prometheus", "Prometheus, scraping each second"}} {
		if _, ok := r[p.name+"_cpu"]; !ok {
			continue
		}
		ms := func(name string) string { return fmt.Sprintf("%.1f", r[p.name+"_"+name+"_ms"]) }
		mb := func(name string) string { return fmt.Sprintf("%.1f", r[p.name+"_"+name]/1000) }
		s.rows = append(s.rows, []string{p.what, ms("panel_p50"), ms("panel_p99"), ms("refresh_p50"), ms("refresh_p99"),
			fmt.Sprintf("%.0f", r[p.name+"_refreshes"]), fmt.Sprintf("%.0f", r[p.name+"_late"]),
			fmt.Sprintf("%.1f", r[p.name+"_idle_cpu"]), fmt.Sprintf("%.1f", r[p.name+"_cpu"]), mb("idle_rss"), mb("rss"), mb("rss_peak")})
	}
	b.sections = append(b.sections, s)
	return nil
}

func (b *bench) writeDashboard(p func(string, ...any)) {
	r := b.results
	p("The last minute by the second, %v long: sums and rates of a thousand series, top 5, quantiles, single instances, six requests at a time, as a browser does. Both", dashboardWindow)
	p("run all the time, each refreshed each second, half a second after the other; one that was not done by then makes the next one be left out. shmtsd has 1,000 segments of")
	p("100 series, Prometheus scrapes 1,000 targets of 100 plain series of the same names.")
	if r["dashboard_shmtsd_cpu"] > 0 && r["dashboard_prometheus_cpu"] > 0 {
		ratio := func(name string) float64 { return r["dashboard_prometheus_"+name] / r["dashboard_shmtsd_"+name] }
		p("Prometheus to shmtsd: a panel %.2f x at p50, %.2f x at p99, a refresh %.2f x; processor time %.1f x, of which for the dashboard alone %.2f x; memory %.1f x.",
			ratio("panel_p50_ms"), ratio("panel_p99_ms"), ratio("refresh_p50_ms"), ratio("cpu"),
			(r["dashboard_prometheus_cpu"]-r["dashboard_prometheus_idle_cpu"])/(r["dashboard_shmtsd_cpu"]-r["dashboard_shmtsd_idle_cpu"]), ratio("rss"))
	}
	p("")
}
