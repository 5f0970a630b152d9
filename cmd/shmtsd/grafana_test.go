package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/shmts/shmts/internal/query"
)

const contrib = "../../contrib/grafana"

// A dashboard, as far as it says what is asked.
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
}

// expressions of a dashboard, as Grafana would ask them.
func expressions(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5s", "$job", ".*", "$instance", ".*")
	out := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out[fill.Replace(target.Expr)] = p.Title
		}
	}
	for _, v := range d.Templating.List {
		q, ok := v.Query.(map[string]any)
		if !ok {
			continue
		}
		s := fmt.Sprint(q["query"])
		inner, ok := strings.CutPrefix(s, "label_values(")
		at := strings.LastIndex(inner, ",")
		if !ok || at < 0 {
			t.Errorf("%s: variable %s: want label_values(selector, label), got %q", path, v.Name, s)
			continue
		}
		out[fill.Replace(inner[:at])] = "variable " + v.Name
	}
	return out
}

// rare are metrics that are there once it happened.
var rare = []string{"shmtsd_archive_rows_lost_total", "shmtsd_export_points_refused_total", "shmtsd_segments_refused_total"}

// Every expression of the dashboards is PromQL to our engine, and every metric in it is one that shmtsd, or the forwarder of the demo, has.
func TestDashboards(t *testing.T) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("the demo's forwarder is C: no gcc")
	}
	store, scratch := newStore(t), t.TempDir()
	forwarder := filepath.Join(scratch, "udpfwd")
	if out, err := exec.Command(cc, "-O2", "-std=c11", "-I../../cshim", "-o", forwarder, "../../cshim/examples/udpfwd.c", "-pthread").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.LocalAddr().String()
	free.Close()
	cmd := exec.Command(forwarder, "--listen", listen, "--target", sink.LocalAddr().String(), "--dir", store)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	d := startDaemon(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + startReceiver(t).url, "OTEL_METRIC_EXPORT_INTERVAL=200"}, "--store", store,
		"--archive.dir", filepath.Join(scratch, "archive"), "--archive.tiers", "1s=1MiB,10s=1MiB", "--poll-interval", "100ms", "--hold-limit", "1m")

	from, err := net.Dial("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	engine := query.New(query.Options{Sources: query.Snapshot(func() []query.Segment { return nil })})
	paths, err := filepath.Glob(contrib + "/dashboards/*.json")
	if err != nil || len(paths) < 2 {
		t.Fatalf("dashboards: %v, %v", paths, err)
	}
	wanted := map[string]string{}
	for _, path := range paths {
		for expr, title := range expressions(t, path) {
			tree, err := engine.Parse(expr)
			if err != nil {
				t.Errorf("%s: %s: %s: %v", filepath.Base(path), title, expr, err)
				continue
			}
			parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
				if v, ok := n.(*parser.VectorSelector); ok && !slices.Contains(rare, v.Name) {
					wanted[v.Name] = filepath.Base(path) + ": " + title
				}
				return nil
			})
		}
	}
	if len(wanted) < 40 {
		t.Errorf("want at least 40 metrics in the dashboards, got %d", len(wanted))
	}
	var missing []string
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if _, err := from.Write([]byte("hello")); err != nil {
			t.Logf("the forwarder is not there yet: %v", err)
		}
		text, err := d.get("/api/v1/label/__name__/values")
		if err != nil {
			t.Fatal(err)
		}
		var names struct{ Data []string }
		if err := json.Unmarshal([]byte(text), &names); err != nil {
			t.Fatal(err)
		}
		missing = missing[:0]
		for name, where := range wanted {
			if _, ok := slices.BinarySearch(names.Data, name); !ok {
				missing = append(missing, name+" ("+where+")")
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nobody has %s", strings.Join(missing, ", "))
		}
	}
}
