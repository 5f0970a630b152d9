package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/writer"
)

// manySeries is a writer in this process, with series that rules can tell apart.
func manySeries(t *testing.T, dir, job, instance string) *writer.Writer {
	t.Helper()
	w, err := writer.Open(writer.Options{Job: job, Instance: instance, Dir: dir, Labels: map[string]string{"rack": "R1"}, Attributes: map[string]string{"service.version": "9"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		w.Counter("hits", writer.Label("queue", fmt.Sprint(i)), writer.Label("rack_hint", []string{"R1", "R2"}[i%2])).Add(uint64(i + 1))
	}
	w.Gauge("debug").Set(1)
	w.Stat("wait", writer.Unit("s")).Record(2)
	w.Histogram("latency", writer.Unit("s"), writer.Buckets(0.001, 1)).Record(0.5)
	w.Tick()
	return w
}

// Prometheus's actions, on real segments, through a real daemon: what it answers with each list of rules, read by SIGHUP.
func TestMetricRelabelConfigs(t *testing.T) {
	dir, file := newStore(t), filepath.Join(t.TempDir(), "shmtsd.yml")
	rules := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("self-metrics: false\npoll-interval: 100ms\nmetric_relabel_configs: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules(`[{action: drop, source_labels: [__name__], regex: debug}]`)
	d := startDaemon(t, []string{"SHMTS_DIR=" + dir}, "--config", file)
	defer manySeries(t, dir, "shop", "h1").Close()
	answers := func(q string, series ...string) func() error {
		return func() error {
			got, err := d.query(q)
			if err != nil {
				return err
			}
			var lines []string
			for k, v := range got {
				lines = append(lines, k+" "+v)
			}
			slices.Sort(lines)
			slices.Sort(series)
			if !slices.Equal(lines, series) {
				return fmt.Errorf("%s: want\n%s\ngot\n%s", q, strings.Join(series, "\n"), strings.Join(lines, "\n"))
			}
			return nil
		}
	}
	reload := func() {
		t.Helper()
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the first rules", answers(`count({job="shop", __name__!~".*m(in|ax)|lat.*"})`, " 8")) // 4 hits, 3 of wait, target_info
	for _, c := range []struct {
		name, rules, q string
		want           []string
	}{
		{"keep", `[{action: keep, source_labels: [__name__, queue], regex: "hits_total;[01]"}]`, `{job="shop"}`,
			[]string{"__name__=hits_total,instance=h1,job=shop,queue=0,rack=R1,rack_hint=R1 1", "__name__=hits_total,instance=h1,job=shop,queue=1,rack=R1,rack_hint=R2 2"}},
		{"drop", `[{action: drop, source_labels: [queue], regex: "1|2|3"}]`, `hits_total`, []string{"__name__=hits_total,instance=h1,job=shop,queue=0,rack=R1,rack_hint=R1 1"}},
		{"replace", `[{action: drop, source_labels: [queue], regex: "[0-2]"}, {source_labels: [instance, queue], separator: "-", target_label: port}, {regex: "", target_label: rack, replacement: ""}]`, `hits_total`,
			[]string{"__name__=hits_total,instance=h1,job=shop,port=h1-3,queue=3,rack_hint=R2 4"}},
		{"rename", `[{source_labels: [__name__], regex: wait_seconds(.*), target_label: __name__, replacement: pause$1}]`, `{__name__=~"pause|pause_sum|pause_count"}`,
			[]string{"__name__=pause,instance=h1,job=shop,rack=R1 2",
				"__name__=pause_sum,instance=h1,job=shop,rack=R1 2", "__name__=pause_count,instance=h1,job=shop,rack=R1 1"}},
		{"labelmap", `[{action: labelmap, regex: "rack_(.*)", replacement: "$1"}, {action: labeldrop, regex: "rack.*"}]`, `hits_total{hint="R1"}`,
			[]string{"__name__=hits_total,hint=R1,instance=h1,job=shop,queue=0 1", "__name__=hits_total,hint=R1,instance=h1,job=shop,queue=2 3"}},
		{"labeldrop", `[{action: labeldrop, regex: "rack.*|instance"}]`, `hits_total{queue="3"}`, []string{"__name__=hits_total,job=shop,queue=3 4"}},
		{"labelkeep", `[{action: labelkeep, regex: "__name__|queue"}]`, `hits_total{queue="3"}`, []string{"__name__=hits_total,queue=3 4"}},
		{"hashmod", `[{action: hashmod, source_labels: [queue], modulus: 2, target_label: shard}, {action: keep, source_labels: [__name__, shard], regex: hits_total;0}]`, `count by (shard) (hits_total)`, []string{"shard=0 1"}},
		{"lowercase", `[{action: lowercase, source_labels: [rack], target_label: rack}]`, `hits_total{rack="r1", queue="0"}`, []string{"__name__=hits_total,instance=h1,job=shop,queue=0,rack=r1,rack_hint=R1 1"}},
		{"uppercase", `[{action: uppercase, source_labels: [job], target_label: job}]`, `debug`, []string{"__name__=debug,instance=h1,job=SHOP,rack=R1 1"}},
		{"keepequal", `[{action: keepequal, source_labels: [rack], target_label: rack_hint}]`, `sum by (job) ({job="shop"})`, []string{"job=shop 4"}},
		{"dropequal", `[{action: dropequal, source_labels: [rack], target_label: rack_hint}]`, `sum(hits_total)`, []string{" 6"}},
		{"a histogram's classic view", `[{source_labels: [__name__], regex: latency_seconds, target_label: __name__, replacement: lat}]`, `lat_count`, []string{"__name__=lat_count,instance=h1,job=shop,rack=R1 1"}},
		{"target_info", `[{source_labels: [service_version], regex: (.+), target_label: v}]`, `target_info{v="9"}`, []string{"__name__=target_info,instance=h1,job=shop,rack=R1,service_version=9,v=9 1"}},
		{"two become one", `[{action: labeldrop, regex: "queue|rack_hint"}]`, `hits_total`, []string{"__name__=hits_total,instance=h1,job=shop,rack=R1 1"}},
		{"none", `[]`, `count({job="shop", __name__!~".*m(in|ax)|lat.*"})`, []string{" 9"}},
	} {
		rules(c.rules)
		reload()
		if c.name == "hashmod" { // which of them are even is md5's
			waitFor(t, c.name, func() error {
				got, err := d.query(c.q)
				if err == nil && (len(got) != 1 || got["shard=0"] == "" || got["shard=0"] == "4") {
					err = fmt.Errorf("got %v", got)
				}
				return err
			})
			continue
		}
		waitFor(t, c.name, answers(c.q, c.want...))
	}

	// A file that is wrong changes nothing, and is told.
	rules(`[{action: drop, source_labels: [__name__], regex: hits_total}]`)
	reload()
	waitFor(t, "the hits dropped", answers(`hits_total`))
	before, err := d.get("/api/v1/status/runtimeinfo")
	if err != nil || !strings.Contains(before, `"reloadConfigSuccess":true`) {
		t.Errorf("runtimeinfo: %s, %v", before, err)
	}
	rules(`[{action: drop, source_labels: [__name__], regx: wait.*}]`)
	reload()
	waitFor(t, "the failure told", func() error {
		text, err := d.get("/metrics")
		if err == nil && !strings.Contains(text, "shmtsd_config_last_reload_successful 0\n") {
			err = errors.New("not yet")
		}
		return err
	})
	if text, err := d.get("/api/v1/status/runtimeinfo"); err != nil || !strings.Contains(text, `"reloadConfigSuccess":false`) {
		t.Errorf("runtimeinfo: %s, %v", text, err)
	}
	if err := answers(`hits_total`)(); err != nil {
		t.Error(err)
	}
	if text, err := d.get("/api/v1/status/config"); err != nil || !strings.Contains(text, "regex: hits_total") || strings.Contains(text, "regx") {
		t.Errorf("status/config: want the rules that hold, got %s, %v", text, err)
	}

	// What is dropped, and why.
	rules(`[{action: drop, source_labels: [__name__], regex: hits_total}, {action: labeldrop, regex: __name__}]`)
	reload()
	waitFor(t, "the counts", func() error {
		text, err := d.get("/metrics")
		for _, want := range []string{`shmtsd_relabel_dropped_series{action="drop",rule="1"} 4`, `shmtsd_relabel_dropped_series{action="labeldrop",rule="2"} 0`, "shmtsd_relabel_nameless_series 8\n", "shmtsd_config_last_reload_successful 1\n"} {
			if err == nil && !strings.Contains(text, want) {
				err = fmt.Errorf("want %s, got %s", want, text)
			}
		}
		return err
	})
	text, err := d.get("/api/v1/status/tsdb")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Data struct {
			HeadStats struct{ NumSeries int }
			Shmts     struct {
				DroppedSeries, DroppedSeriesByMetricName, DroppedSeriesBySource []struct {
					Reason, Action, Name, Job string
					Rule                      int
					Value                     uint64
				}
				Sources []struct {
					Job, Instance string
					Segments      int
					SeriesSlots   struct{ Used, Size int }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatal(err)
	}
	s := status.Data
	if s.HeadStats.NumSeries != 0 || len(s.Shmts.DroppedSeries) != 2 || s.Shmts.DroppedSeries[0].Reason != "nameless" || s.Shmts.DroppedSeries[0].Value != 8 ||
		s.Shmts.DroppedSeries[1].Rule != 1 || s.Shmts.DroppedSeries[1].Action != "drop" || s.Shmts.DroppedSeries[1].Value != 4 ||
		s.Shmts.DroppedSeriesByMetricName[0].Name != "hits_total" || s.Shmts.DroppedSeriesByMetricName[0].Value != 4 || s.Shmts.DroppedSeriesBySource[0].Job != "shop" {
		t.Errorf("status/tsdb: %s", text)
	}
	if len(s.Shmts.Sources) != 1 || s.Shmts.Sources[0].Job != "shop" || s.Shmts.Sources[0].Segments != 1 || s.Shmts.Sources[0].SeriesSlots.Used != 7 || s.Shmts.Sources[0].SeriesSlots.Size < 7 {
		t.Errorf("status/tsdb: %s", text)
	}
}

// What rules drop is not archived, and what they rewrite is as it was recorded.
func TestRelabelledArchive(t *testing.T) {
	dir, state, file := newStore(t), t.TempDir(), filepath.Join(t.TempDir(), "shmtsd.yml")
	if err := os.WriteFile(file, []byte(`{metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: "debug|wait_seconds.*|probes_total"}, {target_label: job, replacement: renamed}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", file, "--self-metrics=false", "--dead-ttl", "5s", "--poll-interval", "100ms", "--archive.dir", state, "--archive.tiers", "1s=1MiB,10s=1MiB", "--archive.sync-interval", "200ms"}
	d := startDaemon(t, []string{"SHMTS_DIR=" + dir}, args...)
	w := manySeries(t, dir, "shop", "h1")
	w.Counter("probes").AddExemplar(1, writer.Exemplar{TraceID: [16]byte{1}, Time: time.Now()})
	w.Counter("hits", writer.Label("queue", "0"), writer.Label("rack_hint", "R1")).AddExemplar(1, writer.Exemplar{TraceID: [16]byte{2}, Time: time.Now()})
	waitFor(t, "its segment", func() error {
		got, err := d.query(`hits_total{job="renamed"}`)
		if err == nil && len(got) != 4 {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	time.Sleep(1100 * time.Millisecond) // a row of each tick but the last
	w.Close()
	waitFor(t, "the segment drained and gone", func() error {
		if left := segments(t, dir, "shop"); len(left) > 0 {
			return fmt.Errorf("got %v", left)
		}
		return nil
	})
	// An exemplar goes the way of its series, and one that rules drop is not lost.
	text, err := d.get("/api/v1/query_exemplars?query=" + url.QueryEscape(`{job="renamed"}`) + "&start=" + fmt.Sprint(time.Now().Unix()-60) + "&end=" + fmt.Sprint(time.Now().Unix()+1))
	if err != nil || !strings.Contains(text, `"trace_id":"02`) || !strings.Contains(text, `"__name__":"hits_total"`) || strings.Contains(text, `"trace_id":"01`) {
		t.Errorf("want the exemplar of hits_total, got %s, %v", text, err)
	}
	if text, err := d.get("/metrics"); err != nil || !strings.Contains(text, "shmtsd_archive_exemplars_lost_total 0\n") {
		t.Errorf("want no exemplar lost, got %s, %v", text, err)
	}
	for q, want := range map[string]string{
		`count(last_over_time(hits_total{job="renamed"}[1m]))`:                                    "4",
		`count(last_over_time({job="renamed", __name__=~"debug|wait.*"}[1m]))`:                    "",
		`count(last_over_time({job="shop"}[1m]))`:                                                 "",
		`max(last_over_time(hits_total{job="renamed", instance="h1", queue="3", rack="R1"}[1m]))`: "4",
	} {
		got, err := d.query(q)
		if err != nil || got[""] != want {
			t.Errorf("%s: want %q, got %v, %v", q, want, got, err)
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	r, err := archive.OpenReader(state)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found, err := r.Select(t.Context(), archive.Selection{From: 0, To: 1 << 60})
	if err != nil || len(found) == 0 {
		t.Fatalf("want the life, got %d, %v", len(found), err)
	}
	var names []string
	for _, inc := range found {
		for _, s := range inc.Series {
			names = append(names, s.Name)
		}
		for _, p := range inc.Labels {
			if p.Name == "job" && p.Value != "shop" {
				t.Errorf("want the job as it was recorded, got %s", p.Value)
			}
		}
	}
	slices.Sort(names)
	if got := fmt.Sprint(slices.Compact(names)); got != "[hits latency]" {
		t.Errorf("want what is kept in the archive, got %s", got)
	}
}

// What found no room, in its segment or in a budget, is told of by source, with the reason; and by whom it was turned away.
func TestDropsAreTold(t *testing.T) {
	dir := newStore(t)
	d := startDaemon(t, []string{"SHMTS_DIR=" + dir}, "--self-metrics=false", "--poll-interval", "100ms", "--budget.user.series", "30")
	greedy, err := writer.Open(writer.Options{Job: "greedy", Instance: "g", Dir: dir, Tables: []writer.Table{{Name: "scalars", Counters: 2, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	for i := range 12 { // 8 find room in the four segments that it may have
		greedy.Counter("requests_total", writer.Label("user", fmt.Sprint(i))).Add(1)
	}
	type source struct {
		Job                             string
		Series, Segments, GrownSegments int
		DroppedSeries, SkippedSeries    uint64
		Tables                          []struct{ Cells struct{ Used, Size int } }
	}
	type drop struct {
		Reason, Job string
		Value       uint64
	}
	var status struct {
		Data struct {
			Shmts struct {
				DroppedSeries, DroppedSeriesBySource []drop
				Sources                              []source
			}
		}
	}
	look := func() error {
		text, err := d.get("/api/v1/status/tsdb")
		if err == nil {
			status.Data.Shmts.DroppedSeries, status.Data.Shmts.DroppedSeriesBySource, status.Data.Shmts.Sources = nil, nil, nil
			err = json.Unmarshal([]byte(text), &status)
		}
		return err
	}
	waitFor(t, "the writer's drops", func() error {
		if err := look(); err != nil {
			return err
		}
		s := status.Data.Shmts
		if len(s.Sources) != 1 || s.Sources[0].Segments != 4 || s.Sources[0].GrownSegments != 3 || s.Sources[0].DroppedSeries == 0 || s.Sources[0].Tables[0].Cells.Used != 8 || s.Sources[0].Tables[0].Cells.Size != 8 {
			return fmt.Errorf("got %+v", s)
		}
		if !slices.Contains(s.DroppedSeriesBySource, drop{"writer", "greedy", s.Sources[0].DroppedSeries}) || !slices.Contains(s.DroppedSeries, drop{"writer", "", s.Sources[0].DroppedSeries}) {
			return fmt.Errorf("got %+v", s)
		}
		return nil
	})
	late, err := writer.Open(writer.Options{Job: "late", Instance: "l", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	late.Counter("first_total").Add(1)
	waitFor(t, "the other's segment", func() error {
		if err := look(); err != nil || len(status.Data.Shmts.Sources) != 2 {
			return fmt.Errorf("got %+v, %v", status.Data.Shmts, err)
		}
		return nil
	})
	for i := range 40 { // beyond the user's 30
		late.Counter("later_total", writer.Label("n", fmt.Sprint(i))).Add(1)
	}
	waitFor(t, "the budget's drops", func() error {
		if err := look(); err != nil {
			return err
		}
		for _, x := range status.Data.Shmts.DroppedSeriesBySource {
			if x.Reason == "budget" && x.Job == "late" && x.Value >= 11 {
				return nil
			}
		}
		return fmt.Errorf("got %+v", status.Data.Shmts)
	})
}
