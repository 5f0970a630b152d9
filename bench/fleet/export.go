package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/peers"
)

// exportStep is how far apart samples are that leave the host, of all that are compared.
const exportStep = 10 * time.Second

// mover is a process that takes samples from a thousand sources and sends them on.
type mover struct {
	name  string
	child *child
	sink  string // where its samples are counted
}

// withExports measures what it takes to send a thousand sources' samples each 10 s: shmtsd by remote-write 2.0 and 1.0 and by OTLP, one of each over
// the same segments at the same time, beside one that only polls; a Collector that takes what another shmtsd sends it; then vmagent and a
// Prometheus Agent, which scrape as many sources, of 100 plain series each.
func withExports(c config, store string, all *children, writers []*child) error {
	sink, err := newWriteSink()
	if err != nil {
		return err
	}
	defer sink.close()
	dir, err := os.MkdirTemp("", "shmts-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := ours(c, store, dir, all, sink); err != nil {
		return err
	}
	for _, w := range writers {
		if err := w.stop(); err != nil {
			return fmt.Errorf("shmts: a writer ended badly: %w", err)
		}
	}
	return theirs(c, dir, all, sink)
}

func ours(c config, store, dir string, all *children, sink *writeSink) error {
	collector, address, err := startCollector(dir, all)
	if err != nil {
		return err
	}
	movers := []mover{{"collector", collector, "export_otlp"}}
	for _, d := range []struct{ name, text string }{
		{"export_none", ""},
		{"export_rw2", fmt.Sprintf("remote_write: [{url: %q, step: %v}]\n", sink.url("export_rw2"), exportStep)},
		{"export_rw1", fmt.Sprintf("remote_write: [{url: %q, step: %v, protobuf_message: prometheus.WriteRequest}]\n", sink.url("export_rw1"), exportStep)},
		{"export_otlp", fmt.Sprintf("exporters: {otlphttp: {metrics_endpoint: %q, compression: gzip, step: %v}}\n", sink.url("export_otlp"), exportStep)},
		{"export_to_collector", fmt.Sprintf("exporters: {otlphttp: {endpoint: %q, compression: gzip, step: %v}}\n", "http://"+address, exportStep)},
	} {
		file := filepath.Join(dir, d.name+".yml")
		if err := os.WriteFile(file, []byte(d.text), 0o644); err != nil {
			return err
		}
		listen, err := freeAddress()
		if err != nil {
			return err
		}
		p, err := all.start(c.daemon, "--store", store, "--listen", listen, "--config", file)
		if err != nil {
			return err
		}
		if err := eventually(60*time.Second, func() error { return answers(listen, c.segments) }); err != nil {
			return fmt.Errorf("shmts: %s does not see the fleet: %w", d.name, err)
		}
		movers = append(movers, mover{d.name, p, d.name})
	}
	return compare(c, movers, sink)
}

// startCollector starts one that takes OTLP and writes it away, and answers where it listens.
func startCollector(dir string, all *children) (*child, string, error) {
	binary, err := peers.Collector(say)
	if err != nil {
		return nil, "", err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	file := filepath.Join(dir, "collector.yml")
	text := fmt.Sprintf(`
receivers: {otlp: {protocols: {http: {endpoint: %q}}}}
exporters: {file: {path: /dev/null, format: proto}}
service:
  telemetry: {metrics: {level: none}, logs: {level: warn}}
  pipelines: {metrics: {receivers: [otlp], exporters: [file]}}
`, address)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, "", err
	}
	p, err := all.start(binary, "--config", file)
	return p, address, err
}

// theirs measures what scrapes.
func theirs(c config, dir string, all *children, sink *writeSink) error {
	exposers, targets, err := startExposers(c, all)
	if err != nil {
		return err
	}
	scrape := fmt.Sprintf("global: {scrape_interval: %v, scrape_timeout: %v}\nscrape_configs:\n  - job_name: fleet\n    static_configs:\n", exportStep, exportStep) + targets
	var movers []mover
	if vmagent, err := exec.LookPath("vmagent"); err == nil {
		file := filepath.Join(dir, "vmagent.yml")
		listen, err := freeAddress()
		if err == nil {
			err = os.WriteFile(file, []byte(scrape), 0o644)
		}
		if err != nil {
			return err
		}
		p, err := all.start(vmagent, "-promscrape.config="+file, "-remoteWrite.url="+sink.url("vmagent"), "-remoteWrite.tmpDataPath="+filepath.Join(dir, "vmagent"), "-httpListenAddr="+listen)
		if err != nil {
			return err
		}
		movers = append(movers, mover{"vmagent", p, "vmagent"})
	} else {
		fmt.Fprintln(os.Stderr, "vmagent is not installed (Debian: victoria-metrics): it is left out")
	}
	binary, err := peers.Prometheus(say)
	if err != nil {
		return err
	}
	for _, a := range []struct{ name, message string }{{"agent_rw1", "prometheus.WriteRequest"}, {"agent_rw2", "io.prometheus.write.v2.Request"}} {
		file := filepath.Join(dir, a.name+".yml")
		text := scrape + fmt.Sprintf("remote_write: [{url: %q, protobuf_message: %s}]\n", sink.url(a.name), a.message)
		listen, err := freeAddress()
		if err == nil {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			return err
		}
		p, err := all.start(binary, "--agent", "--config.file", file, "--web.listen-address", listen, "--storage.agent.path", filepath.Join(dir, a.name), "--log.level", "error")
		if err != nil {
			return err
		}
		movers = append(movers, mover{a.name, p, a.name})
	}
	if err := compare(c, movers, sink); err != nil {
		return err
	}
	for _, p := range exposers {
		if err := p.stop(); err != nil {
			return fmt.Errorf("shmts: a peer ended badly: %w", err)
		}
	}
	return nil
}

// compare measures movers over the same time, and ends them.
func compare(c config, movers []mover, sink *writeSink) error {
	time.Sleep(c.warm)
	groups := map[string][]*child{}
	for _, m := range movers {
		groups[m.name] = []*child{m.child}
	}
	before := sink.seen()
	usage, err := watch(c.peers, groups)
	if err != nil {
		return err
	}
	after := sink.seen()
	var failed error
	for _, m := range movers {
		usage.print(m.name)
		got, was := after[m.sink], before[m.sink]
		requests, bytes, samples := got.requests-was.requests, got.bytes-was.bytes, got.points-was.points
		if m.name == "export_none" || m.name == "export_to_collector" {
			requests, bytes, samples = 0, 0, 0
		} else if want := float64(c.segments*seriesASegment) * c.peers.Seconds() / exportStep.Seconds(); float64(samples) < 0.5*want {
			failed = errors.Join(failed, fmt.Errorf("shmts: %s: want %.0f samples or more, got %d: is the machine busy?", m.name, want, samples))
		}
		fmt.Printf("%s_requests\t%d\n%s_bytes\t%d\n%s_samples\t%d\n", m.name, requests, m.name, bytes, m.name, samples)
		if err := m.child.stop(); err != nil && !strings.HasPrefix(m.name, "vmagent") {
			failed = errors.Join(failed, fmt.Errorf("shmts: %s ended badly: %w", m.name, err))
		}
	}
	return failed
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
