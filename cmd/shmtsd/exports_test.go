package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shmts/shmts/internal/status"
	"github.com/shmts/shmts/writer"
)

// Several destinations out of one file, over two protocols: each gets everything, one that hangs keeps no other waiting, rules of one are of
// no other, and the status says it of each.
func TestDestinations(t *testing.T) {
	otlp := startReceiver(t)
	var writes atomic.Int64
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Encoding") == "snappy" && r.Header.Get("X-Prometheus-Remote-Write-Version") == "0.1.0" && r.Header.Get("Authorization") == "Bearer hush" {
			writes.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer remote.Close()
	stop := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}))
	defer hanging.Close()
	defer close(stop)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	file := filepath.Join(dir, "shmtsd.yml")
	text := fmt.Sprintf(`
archive: {dir: %s, tiers: "1s=2MiB,10s=1MiB"}
exporters:
  otlphttp/all: {endpoint: "%s", compression: gzip, step: 500ms}
  otlphttp/hangs: {endpoint: "%s", headers: {x: hushhush}, step: 500ms, timeout: 20s}
remote_write:
  - {url: "%s", name: some, step: 500ms, protobuf_message: prometheus.WriteRequest, authorization: {credentials_file: %s},
     write_relabel_configs: [{action: keep, source_labels: [__name__], regex: wanted_total}]}
`, filepath.Join(dir, "archive"), otlp.url, hanging.URL, remote.URL, token)
	for path, text := range map[string]string{token: "hush\n", file: text} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store := newStore(t)
	w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Counter("wanted").Add(1)
	w.Counter("other").Add(1)
	args := []string{"--config", file, "--store", store, "--self-metrics=false", "--poll-interval", "100ms"}
	d := startDaemon(t, nil, args...)
	var s status.Daemon
	waitFor(t, "points at two destinations", func() error {
		text, err := d.get("/api/v1/status/shmtsd")
		if err != nil {
			return err
		}
		var answer struct{ Data status.Daemon }
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return err
		}
		s = answer.Data
		if len(s.Export.Destinations) != 3 || writes.Load() < 3 {
			return fmt.Errorf("%d writes, got %s", writes.Load(), text)
		}
		for _, x := range s.Export.Destinations {
			if x.Name != "otlphttp/hangs" && (x.Sent < 4 || x.Requests["ok"] < 3 || x.LastError != "" || x.LastSent == "") {
				return fmt.Errorf("got %s", text)
			}
		}
		return nil
	})
	by := map[string]status.Destination{}
	for _, x := range s.Export.Destinations {
		by[x.Name] = x
	}
	if x := by["otlphttp/hangs"]; x.Sent != 0 || x.Requests["ok"] != 0 {
		t.Errorf("otlphttp/hangs: want nothing sent, got %+v", x)
	}
	if a, b := by["otlphttp/all"], by["some"]; a.Sent < b.Sent || b.Protocol != "remote_write" || b.URL != remote.URL || a.Step != "500ms" {
		t.Errorf("want all to be more than some, got %+v and %+v", a, b)
	}
	if s.Store.Alive != 1 || s.Archive == nil || len(s.Archive.Tiers) != 2 || s.Version == "" {
		t.Errorf("status: got %+v", s)
	}
	for _, name := range []string{"otlphttp%2Fall", "otlphttp%2Fhangs", "some"} {
		if _, err := os.Stat(filepath.Join(dir, "archive", "export", name+".positions")); err != nil {
			t.Error(err)
		}
	}
	metrics, err := d.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`shmtsd_export_points_total{destination="some"} `, `shmtsd_export_requests_total{destination="otlphttp/all",outcome="ok"} `,
		`shmtsd_export_rows_lost_total{destination="some",reason="overrun"} 0`, `shmtsd_export_lag_seconds{destination="otlphttp/hangs"} `, "shmtsd_recorded_samples_total "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics: want %q", want)
		}
	}
}
