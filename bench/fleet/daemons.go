package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is a shmtsd, and how it was started.
type daemon struct {
	*child
	name    string
	address string
	args    []string
	env     []string
	sink    *sink // nil: it does not export
	archive bool
}

// withDaemons measures daemons that look at the same store over the same time, so that what one takes more than another is not what the machine did
// meanwhile; and the writers beside them.
func withDaemons(c config, store string, all *children, writers []*child) error {
	sink, err := newSink()
	if err != nil {
		return err
	}
	defer sink.close()
	otlp := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + sink.address, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_COMPRESSION=" + c.compression,
		fmt.Sprintf("OTEL_METRIC_EXPORT_INTERVAL=%d", c.interval.Milliseconds())}
	daemons := []*daemon{{name: "daemon"}, {name: "daemon_otlp", sink: sink, env: otlp}}
	if c.archive != "" {
		tiers, err := os.ReadFile(filepath.Join(c.archive, "tiers"))
		if err != nil {
			return fmt.Errorf("shmts: -archive: want what bench/archive fill has made: %w", err)
		}
		empty, err := os.MkdirTemp(filepath.Dir(c.archive), "shmts-fleet-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(empty)
		daemons[1].archive, daemons[1].args = true, []string{"--archive.dir", empty}
		daemons = append(daemons, &daemon{name: "daemon_archive", archive: true,
			args: []string{"--archive.dir", c.archive, "--archive.tiers", strings.TrimSpace(string(tiers))}})
	}
	groups := map[string][]*child{"daemon_writers": writers}
	for _, d := range daemons {
		if d.address, err = freeAddress(); err != nil {
			return err
		}
		d.args = append([]string{"--store", store, "--listen", d.address}, d.args...)
		if err := d.start(c, all); err != nil {
			return err
		}
		// Before and after, never during: the daemon answers for all segments, with rows that move.
		if err := d.sees(c); err != nil {
			return err
		}
		groups[d.name] = []*child{d.child}
	}
	time.Sleep(c.warm)
	sent := sink.seen()
	before, err := written(daemons)
	if err != nil {
		return err
	}
	usage, err := watch(c.window, groups)
	if err != nil {
		return err
	}
	after, err := written(daemons)
	if err != nil {
		return err
	}
	usage.print("daemon_writers")
	for _, d := range daemons {
		if err := d.sees(c); err != nil {
			return fmt.Errorf("after it was measured: %w", err)
		}
		usage.print(d.name)
		if d.archive {
			if err := printWritten(d.name, c.window, before[d.name], after[d.name]); err != nil {
				return err
			}
		}
	}
	got := sink.seen()
	if got.requests == sent.requests {
		return errors.New("shmts: nothing was exported while it was measured")
	}
	fmt.Printf("daemon_otlp_requests\t%d\ndaemon_otlp_points\t%d\ndaemon_otlp_wire_kB\t%d\n", got.requests-sent.requests, got.points-sent.points, (got.bytes-sent.bytes)/1000)
	for _, d := range daemons {
		if d.name == "daemon_archive" {
			if err := restarts(c, d, all); err != nil {
				return err
			}
		}
		if err := d.stop(); err != nil {
			return fmt.Errorf("shmts: %s ended badly: %w", d.name, err)
		}
	}
	return nil
}

func (d *daemon) start(c config, all *children) (err error) {
	d.child, err = all.startEnv(d.env, c.daemon, d.args...)
	return err
}

func (d *daemon) sees(c config) error {
	if err := eventually(60*time.Second, func() error { return answers(d.address, c.segments) }); err != nil {
		return fmt.Errorf("shmts: %s does not see the fleet: %w", d.name, err)
	}
	return nil
}

// restarts kills the daemon and starts it anew over the archive that it was writing, and prints how long it takes from the start of the process
// to the first answer with data, and to the first of all segments.
func restarts(c config, d *daemon, all *children) error {
	var first, whole []time.Duration
	for range c.restarts {
		if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		<-d.done
		begin := time.Now()
		if err := d.start(c, all); err != nil {
			return err
		}
		for _, q := range []struct {
			query string
			want  int
			took  *[]time.Duration
		}{{`fleet_c00_total{instance="0"}`, 1, &first}, {`count(fleet_c00_total)`, c.segments, &whole}} {
			for {
				n, err := scalar(d.address, q.query)
				if err == nil && (q.want == 1 || int(n) == q.want) {
					break
				}
				if time.Since(begin) > 30*time.Second {
					return fmt.Errorf("shmts: killed and started anew: no answer to %s within 30 s: %v, %w", q.query, n, err)
				}
				time.Sleep(time.Millisecond)
			}
			*q.took = append(*q.took, time.Since(begin))
		}
		time.Sleep(3 * time.Second) // it archives again
	}
	slices.Sort(first)
	slices.Sort(whole)
	fmt.Printf("restart_first_ms\t%.1f\nrestart_all_ms\t%.1f\nrestart_most_ms\t%.1f\n", float64(first[len(first)/2])/1e6, float64(whole[len(whole)/2])/1e6, float64(whole[len(whole)-1])/1e6)
	return nil
}

// archived is what a daemon says of its archive: by tier, and rows lost.
type archived struct {
	samples, bytes map[string]float64
	lost, failed   float64
}

func written(daemons []*daemon) (map[string]archived, error) {
	all := map[string]archived{}
	for _, d := range daemons {
		if !d.archive {
			continue
		}
		r, err := http.Get("http://" + d.address + "/metrics")
		if err != nil {
			return nil, err
		}
		a := archived{map[string]float64{}, map[string]float64{}, 0, 0}
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			name, value, ok := strings.Cut(s.Text(), " ")
			v, err := strconv.ParseFloat(value, 64)
			if !ok || err != nil {
				continue
			}
			_, label, _ := strings.Cut(name, `tier="`)
			tier, _, _ := strings.Cut(label, `"`)
			switch family, _, _ := strings.Cut(name, "{"); family {
			case "shmtsd_archive_samples_written_total":
				a.samples[tier] = v
			case "shmtsd_archive_written_bytes_total":
				a.bytes[tier] = v
			case "shmtsd_archive_rows_lost_total":
				a.lost += v
			case "shmtsd_archive_failures_total":
				a.failed += v
			}
		}
		r.Body.Close()
		all[d.name] = a
	}
	return all, nil
}

// printWritten prints what was archived a second while it was measured, and fails if that is not what was written.
func printWritten(name string, window time.Duration, before, after archived) error {
	if after.lost > before.lost || after.failed > 0 {
		return fmt.Errorf("shmts: %s lost %v rows while it was measured, and failed %v times", name, after.lost-before.lost, after.failed)
	}
	if after.samples["1s"] <= before.samples["1s"] {
		return fmt.Errorf("shmts: %s: nothing was archived at 1 s while it was measured", name)
	}
	for _, tier := range []string{"1s", "10s", "5m"} {
		fmt.Printf("%s_%s_samples\t%.0f\n%s_%s_bytes\t%.0f\n", name, tier, (after.samples[tier]-before.samples[tier])/window.Seconds(),
			name, tier, (after.bytes[tier]-before.bytes[tier])/window.Seconds())
	}
	return nil
}
