package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// exemplars answers query_exemplars of the last minutes: by a series' name, job and le, the values, sorted. Each says the same as its trace.
func (d *daemonProcess) exemplars(q string) (map[string][]int, error) {
	text, err := d.get(fmt.Sprintf("/api/v1/query_exemplars?query=%s&start=%d&end=%d", url.QueryEscape(q), time.Now().Unix()-600, time.Now().Unix()+10))
	if err != nil {
		return nil, err
	}
	var r struct {
		Data []struct {
			SeriesLabels map[string]string
			Exemplars    []struct {
				Labels    map[string]string
				Value     string
				Timestamp float64
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, err
	}
	out := map[string][]int{}
	for _, s := range r.Data {
		l := s.SeriesLabels
		key := strings.TrimRight(l["__name__"]+" "+l["job"]+" "+l["le"], " ")
		for _, e := range s.Exemplars {
			n, err := strconv.Atoi(e.Value)
			if err != nil || e.Labels["trace_id"] != fmt.Sprintf("%032x", n) || e.Labels["span_id"] != fmt.Sprintf("%02x", n)+strings.Repeat("0", 14) || len(e.Labels) != 2 {
				return nil, fmt.Errorf("exemplar %+v: want the same number three times (%w)", e, err)
			}
			if age := float64(time.Now().UnixMilli())/1000 - e.Timestamp; age < -5 || age > 120 {
				return nil, fmt.Errorf("exemplar %+v: %v seconds old", e, age)
			}
			out[key] = append(out[key], n)
		}
		slices.Sort(out[key])
	}
	return out, nil
}

// An exemplar that was left comes back once, from a ring, from memory and from the archive: live, after a SIGKILL of the daemon, of the
// writer, of both at once, and when the segment is gone.
func TestExemplars(t *testing.T) {
	dir, state := newStore(t), t.TempDir()
	archived := filepath.Join(state, "archive")
	writers := map[string]*process{}
	writers["go"] = startProcess(t, dir, exec.Command(os.Args[0]), storeEnv+"="+dir, jobEnv+"=go", tracedEnv+"=1")
	writers["sampled"] = startProcess(t, dir, exec.Command(os.Args[0]), storeEnv+"="+dir, jobEnv+"=sampled", tracedEnv+"=1", sampledEnv+"=1")
	if gcc, err := exec.LookPath("gcc"); err == nil {
		program := filepath.Join(t.TempDir(), "exemplars")
		if out, err := exec.Command(gcc, "-std=c11", "-O2", "-I../../cshim", "-o", program, "testdata/exemplars.c", "-pthread", "-lm").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		writers["c"] = startProcess(t, dir, exec.Command(program, "c"), "SHMTS_DIR="+dir)
	} else {
		t.Log("no gcc: writers in Go alone")
	}
	args := []string{"--store", dir, "--poll-interval", "100ms", "--dead-ttl", "5s", "--self-metrics=false",
		"--archive.dir", archived, "--archive.tiers", "1s=1MiB,10s=1MiB", "--archive.sync-interval", "200ms"}
	d := startDaemon(t, nil, args...)
	n := 0
	leave := func(k int, jobs ...string) {
		t.Helper()
		for range k {
			n++ // each greater than the one before: none is declined
			for _, job := range jobs {
				writers[job].add(n)
			}
		}
	}
	jobs := []string{"go", "sampled"}
	if writers["c"] != nil {
		jobs = append(jobs, "c")
	}
	has := func(what string, most int, jobs ...string) {
		t.Helper()
		waitFor(t, what, func() error {
			all, err := d.exemplars(`rate(work_done_total[1m]) > 0 or work_time_seconds`)
			if err != nil {
				return err
			}
			wanted := make([]int, most)
			for i := range wanted {
				wanted[i] = i + 1
			}
			for _, job := range jobs {
				for _, name := range []string{"work_done_total ", "work_time_seconds "} {
					if got := all[name+job]; !slices.Equal(got, wanted) {
						return fmt.Errorf("%s%s: want 1 to %d, each once, got %v", name, job, most, got)
					}
				}
			}
			return nil
		})
	}
	metric := func(name string) (v float64) {
		t.Helper()
		text, err := d.get("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				v, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
		t.Fatalf("no %s in %s", name, text)
		return 0
	}
	written := func(want int) {
		t.Helper()
		waitFor(t, "them archived", func() error {
			if got := metric("shmtsd_archive_exemplars_total"); int(got) != want {
				return fmt.Errorf("want %d, got %v", want, got)
			}
			return nil
		})
	}
	both := 2 * len(jobs)

	leave(5, jobs...)
	has("the living ones", 5, jobs...)
	written(5 * both)
	classic, err := d.exemplars(`histogram_quantile(0.9, rate(work_time_seconds_bucket[1m]))`)
	if err != nil || !slices.Equal(classic["work_time_seconds_bucket go 1.0"], []int{1}) || !slices.Equal(classic["work_time_seconds_bucket go 4.0"], []int{4}) {
		t.Errorf("the classic view: want 1 in le=1.0 and 4 in le=4.0, got %v, %v", classic, err)
	}
	for name, want := range map[string]float64{"shmtsd_exemplars_seen_total": 5 * float64(both), "shmtsd_exemplars_kept": 5 * float64(both), "shmtsd_exemplars_missed_total": 0,
		"shmtsd_exemplars_evicted_total": 0, "shmtsd_writers_dropped_exemplars_total": 0, "shmtsd_archive_exemplars_lost_total": 0, "shmtsd_archive_exemplars_evicted_total": 0} {
		if got := metric(name); got != want {
			t.Errorf("%s: want %v, got %v", name, want, got)
		}
	}

	kill := func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}
	kill()
	leave(3, jobs...) // while there is no daemon
	d = startDaemon(t, nil, args...)
	has("those left while the daemon was down", 8, jobs...)
	written(3 * both) // and nothing that was there

	leave(1, jobs...)
	writers["go"].kill()
	has("of a killed writer, and the others", 9, jobs...)
	rest := slices.DeleteFunc(slices.Clone(jobs), func(job string) bool { return job == "go" })
	leave(1, rest...)
	kill()
	for _, job := range rest {
		writers[job].kill()
	}
	d = startDaemon(t, nil, args...)
	has("of writers that were killed with the daemon", 10, rest...)
	has("of the one before", 9, "go")
	waitFor(t, "all segments unlinked", func() error {
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.shmts")); len(left) > 0 {
			return fmt.Errorf("got %v", left)
		}
		return nil
	})
	has("of the archive alone", 10, rest...)
	has("of the archive alone", 9, "go")
	kill()
	d = startDaemon(t, nil, args...)
	has("after a restart", 10, rest...)
	has("after a restart", 9, "go")
	if got := metric("shmtsd_archive_exemplars_total"); got != 0 {
		t.Errorf("want nothing written again, got %v", got)
	}
	kill()
	for _, err := range archive.Check(archived) {
		t.Error(err)
	}
}

// Told to keep none, the daemon reads none, and answers so.
func TestNoExemplars(t *testing.T) {
	dir := newStore(t)
	w := startProcess(t, dir, exec.Command(os.Args[0]), storeEnv+"="+dir, jobEnv+"=go", tracedEnv+"=1")
	d := startDaemon(t, nil, "--store", dir, "--poll-interval", "100ms", "--self-metrics=false", "--exemplars.max", "0")
	w.add(1)
	waitFor(t, "its rows", func() error {
		got, err := d.query("work_done_total")
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	if got, err := d.exemplars("work_done_total"); err != nil || len(got) > 0 {
		t.Errorf("want none, got %v, %v", got, err)
	}
	if text, err := d.get("/metrics"); err != nil || strings.Contains(text, "exemplars_seen") {
		t.Errorf("want no counts of exemplars, got %v", err)
	}
}
