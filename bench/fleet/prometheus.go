package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// withPrometheus measures a real Prometheus that scrapes each second as many
// targets as there were segments, 100 series each, from as many processes.
//
// Each target has 100 series on the wire: 60 counters and 40 gauges. That is less
// than the segments hold, whose stats and histograms would be 5 and 83 series each.
func withPrometheus(c config, all *children) error {
	dir, err := os.MkdirTemp("", "shmts-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	started, exposers, err := startScraping(c, dir, all)
	if err != nil {
		return err
	}
	prometheus, address := started.child, started.address
	if err := eventually(120*time.Second, func() error { return answers(address, c.segments) }); err != nil {
		return fmt.Errorf("shmts: Prometheus does not see the fleet: %w", err)
	}
	time.Sleep(c.warm)
	usage, err := watch(c.peers, map[string][]*child{"prometheus": {prometheus}, "prometheus_exposers": exposers})
	if err != nil {
		return err
	}
	// On a busy machine some scrapes time out; what is measured is then a little less work.
	samples, err := scalar(address, fmt.Sprintf(`sum(avg_over_time(scrape_samples_scraped{job="fleet"}[%ds]))`, int(c.peers.Seconds())))
	if err != nil {
		return err
	}
	fmt.Printf("prometheus_samples\t%.0f\n", samples)
	if want := float64(c.segments * seriesASegment); samples < 0.5*want {
		return fmt.Errorf("shmts: Prometheus: want %v samples a second, got %v: is the machine busy?", want, samples)
	}
	usage.print("prometheus")
	usage.print("prometheus_exposers")
	for _, p := range append(exposers, prometheus) {
		if err := p.stop(); err != nil {
			return fmt.Errorf("shmts: a peer ended badly: %w", err)
		}
	}
	return nil
}

// startExposers starts the processes that are scraped, and answers them and the targets of a static_configs.
func startExposers(c config, all *children) (exposers []*child, targets string, err error) {
	var text strings.Builder
	for p := range c.processes {
		first, count := share(c.segments, c.processes, p)
		address, err := freeAddress()
		if err != nil {
			return nil, "", err
		}
		e, err := all.start(c.expose, "-listen", address, "-first", fmt.Sprint(first), "-targets", fmt.Sprint(count))
		if err != nil {
			return nil, "", err
		}
		exposers = append(exposers, e)
		for i := first; i < first+count; i++ {
			fmt.Fprintf(&text, "      - {targets: [%q], labels: {__metrics_path__: /metrics/%d, instance: \"%d\"}}\n", address, i, i)
		}
	}
	for _, e := range exposers {
		if err := e.ready(60 * time.Second); err != nil {
			return nil, "", err
		}
	}
	return exposers, text.String(), nil
}
