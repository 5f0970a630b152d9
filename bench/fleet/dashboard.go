package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/peers"
)

// A dashboard of twenty panels over the whole fleet, as Grafana asks for it: the last minute by the second, all panels anew each second, six requests at a
// time. $RATE is $__rate_interval at timeInterval 1s.
var panels = []string{
	`sum(rate(fleet_c00_total[$RATE]))`, `sum(rate(fleet_c01_total[$RATE]))`, `sum(rate(fleet_c02_total[$RATE]))`, `sum(rate(fleet_c03_total[$RATE]))`,
	`sum by (queue) (rate(fleet_c10_total[$RATE]))`, `sum by (queue) (rate({__name__=~"fleet_c2[01]_total"}[$RATE]))`,
	`topk(5, rate(fleet_c04_total[$RATE]))`, `max(increase(fleet_c05_total[$RATE]))`, `sum(irate(fleet_c06_total[$RATE]))`,
	`avg(fleet_g00)`, `max(fleet_g01)`, `min(fleet_g02)`, `stddev(fleet_g03)`, `quantile(0.99, fleet_g04)`, `count(fleet_g05 >= 0)`, `avg(avg_over_time(fleet_g06[$RATE]))`,
	`sum(fleet_c07_total)`, `count(fleet_c08_total)`, `rate(fleet_c09_total{instance="17"}[$RATE])`, `fleet_g07{instance="17"}`,
}

const (
	panelSpan = 60 // s
	panelRate = "5s"
	atOnce    = 6 // requests of a browser
)

// system is one that is asked.
type system struct {
	name, address string
	*child
	took       []time.Duration // of panels
	whole      []time.Duration // of refreshes
	late       int             // refreshes that were not done when the next one was due
	bytes      int64
	failed     error
	mu         sync.Mutex
	refreshing sync.WaitGroup
}

// withDashboard measures shmtsd over the fleet and a Prometheus that scrapes as much, both running all the time: first what they take by themselves, then while each is
// asked for the dashboard each second, one half a second after the other, so that what the machine did meanwhile it did to both.
func withDashboard(c config, store string, all *children) error {
	dir, err := os.MkdirTemp("", "shmts-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ours := &system{name: "dashboard_shmtsd"}
	if ours.address, err = freeAddress(); err != nil {
		return err
	}
	if ours.child, err = all.start(c.daemon, "--store", store, "--listen", ours.address, "--archive.dir", filepath.Join(dir, "archive")); err != nil {
		return err
	}
	theirs, exposers, err := startScraping(c, dir, all)
	if err != nil {
		return err
	}
	theirs.name = "dashboard_prometheus"
	both := []*system{ours, theirs}
	for _, s := range both {
		if err := eventually(120*time.Second, func() error { return answers(s.address, c.segments) }); err != nil {
			return fmt.Errorf("shmts: %s does not see the fleet: %w", s.name, err)
		}
	}
	time.Sleep(max(c.warm, (panelSpan+10)*time.Second)) // the panels are full
	groups := map[string][]*child{ours.name: {ours.child}, theirs.name: {theirs.child}}
	idle, err := watch(c.peers/2, groups)
	if err != nil {
		return err
	}
	for name, t := range idle {
		fmt.Printf("%s_idle_cpu\t%.3f\n%s_idle_rss\t%d\n", name, t.cpu, name, t.rss)
	}

	end := make(chan struct{})
	var asking sync.WaitGroup
	for i, s := range both {
		asking.Go(func() { s.refresh(time.Duration(i)*time.Second/2, end) })
	}
	usage, err := watch(c.peers, groups)
	close(end)
	asking.Wait()
	if err != nil {
		return err
	}
	for _, s := range both {
		if s.failed != nil {
			return fmt.Errorf("shmts: %s: %w", s.name, s.failed)
		}
		if len(s.took) < len(panels) {
			return fmt.Errorf("shmts: %s: want a refresh at least, got %d panels in %v", s.name, len(s.took), c.peers)
		}
		usage.print(s.name)
		for what, took := range map[string][]time.Duration{"panel": s.took, "refresh": s.whole} {
			slices.Sort(took)
			ms := func(share int) float64 { return float64(took[min(len(took)*share/100, len(took)-1)]) / 1e6 }
			fmt.Printf("%s_%s_p50_ms\t%.2f\n%s_%s_p99_ms\t%.2f\n", s.name, what, ms(50), s.name, what, ms(99))
		}
		fmt.Printf("%s_refreshes\t%d\n%s_late\t%d\n%s_kB\t%.0f\n", s.name, len(s.whole), s.name, s.late, s.name, float64(s.bytes)/1000)
	}
	for _, p := range append(exposers, ours.child, theirs.child) {
		if err := p.stop(); err != nil {
			return fmt.Errorf("shmts: a process ended badly: %w", err)
		}
	}
	return nil
}

// startScraping starts a Prometheus that scrapes a fleet of exposing processes each second.
func startScraping(c config, dir string, all *children) (*system, []*child, error) {
	binary, err := peers.Prometheus(say)
	if err != nil {
		return nil, nil, err
	}
	exposers, targets, err := startExposers(c, all)
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, "prometheus.yml")
	text := "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n  - job_name: fleet\n    static_configs:\n" + targets
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, nil, err
	}
	s := &system{}
	if s.address, err = freeAddress(); err != nil {
		return nil, nil, err
	}
	s.child, err = all.start(binary, "--config.file", file, "--web.listen-address", s.address, "--storage.tsdb.path", filepath.Join(dir, "data"), "--log.level", "error")
	return s, exposers, err
}

// refresh asks for all panels each second until end. One that is not done when the next one is due goes on, and that one is left out, as a browser does.
func (s *system) refresh(phase time.Duration, end <-chan struct{}) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
	time.Sleep(phase)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer s.refreshing.Wait()
	busy := make(chan struct{}, 1)
	for {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		select {
		case busy <- struct{}{}:
		default:
			s.mu.Lock()
			s.late++
			s.mu.Unlock()
			continue
		}
		s.refreshing.Go(func() {
			s.once(client)
			<-busy
		})
	}
}

func (s *system) once(client *http.Client) {
	begin, now := time.Now(), time.Now().Unix()
	var work sync.WaitGroup
	queue := make(chan string)
	for range atOnce {
		work.Go(func() {
			for q := range queue {
				asked := time.Now()
				n, err := s.panel(client, q, now)
				s.mu.Lock()
				s.took, s.bytes = append(s.took, time.Since(asked)), s.bytes+n
				if err != nil {
					s.failed = errors.Join(s.failed, err)
				}
				s.mu.Unlock()
			}
		})
	}
	for _, q := range panels {
		queue <- strings.ReplaceAll(q, "$RATE", panelRate)
	}
	close(queue)
	work.Wait()
	s.mu.Lock()
	s.whole = append(s.whole, time.Since(begin))
	s.mu.Unlock()
}

// panel asks for one, and fails if it is nearly empty.
func (s *system) panel(client *http.Client, q string, now int64) (int64, error) {
	form := url.Values{"query": {q}, "start": {fmt.Sprint(now - panelSpan)}, "end": {fmt.Sprint(now)}, "step": {"1"}}
	r, err := client.PostForm("http://"+s.address+"/api/v1/query_range", form)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Values []json.RawMessage }
		}
	}
	if r.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || len(answer.Data.Result) == 0 {
		return 0, fmt.Errorf("%s: want series, got %s: %.200s", q, r.Status, body)
	}
	points := 0
	for _, series := range answer.Data.Result {
		points += len(series.Values)
	}
	if points < panelSpan/2 {
		return 0, fmt.Errorf("%s: want %d points or more, got %d", q, panelSpan/2, points)
	}
	return int64(len(body)), nil
}
