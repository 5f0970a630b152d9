//go:build peers

package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/peers"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/server"
)

var update = flag.Bool("update", false, "write what promtool asks to testdata/promtool.txt")

// ours is a server over process().
func ours(t *testing.T, wrap func(http.Handler) http.Handler) *httptest.Server {
	now := func() time.Time { return time.UnixMilli(t0 + 20_000) }
	h := server.New(server.Options{
		Engine: query.New(query.Options{Sources: querytest.Segments{process()}, Now: now}), Now: now, Version: "1.0.0", Revision: "abc",
	})
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// prometheus starts one with a data directory and a configuration, and gives its URL.
func prometheus(t *testing.T, data, config string, flags ...string) string {
	t.Helper()
	path, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(path, append([]string{"--config.file", file, "--storage.tsdb.path", data, "--web.listen-address", address, "--storage.tsdb.retention.time", "100y", "--log.level", "error"}, flags...)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for end := time.Now().Add(30 * time.Second); ; {
		r, err := http.Get("http://" + address + "/-/ready")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == 200 {
				return "http://" + address
			}
		}
		if time.Now().After(end) {
			t.Fatalf("Prometheus is not ready: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sameSamples is a Prometheus that has the samples of process(), but for its histogram, which OpenMetrics can't say.
func sameSamples(t *testing.T) string {
	t.Helper()
	promtool, err := peers.Promtool(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# TYPE rx_bytes counter\n")
	for i := int64(1); i <= 20; i++ {
		fmt.Fprintf(&b, "rx_bytes_total{job=\"fwd\",instance=\"h:1\"} %d %d\n", i*100, t0/1000+i)
	}
	b.WriteString("# TYPE odd gauge\n")
	for i := int64(1); i <= 20; i++ {
		fmt.Fprintf(&b, "odd{job=\"fwd\",instance=\"h:1\",path=\"a\\\"b\\\\c\\n<é>\"} 0.5 %d\n", t0/1000+i)
	}
	b.WriteString("# EOF\n")
	dir := t.TempDir()
	file := filepath.Join(dir, "samples")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if out, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", file, data).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return prometheus(t, data, "global: {scrape_interval: 1s}\n")
}

// floats is process() without its histogram, without what OpenMetrics can't say.
func floats() *querytest.Segment {
	s := querytest.New(t0, querytest.Pairs("job", "fwd", "instance", "h:1"), querytest.Scalars())
	c := s.Counter("rx.bytes")
	g := s.Gauge("odd", "path", "a\"b\\c\n<é>")
	for i := int64(1); i <= 20; i++ {
		querytest.Set(c, float64(i*100))
		querytest.Set(g, 0.5)
		s.Tick(t0 + i*1000)
	}
	return s
}

type reply struct {
	code int
	kind string
	body []byte
}

func ask(t *testing.T, base, method, path, body string) reply {
	t.Helper()
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, base+path, from)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{w.StatusCode, w.Header.Get("Content-Type"), b}
}

// canonical sorts what has no order: JSON's members, and label sets of the same answer.
func canonical(t *testing.T, b []byte) string {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// sameShape compares members and their kinds; of lists, first elements where both have some.
func sameShape(a, b any, at string) error {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: an object, theirs %T", at, b)
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok && at+"."+k == ".data.shmts" { // status/tsdb says what Prometheus has no words for under a key of its own
				continue
			}
			if !ok {
				return fmt.Errorf("%s.%s: theirs has none", at, k)
			}
			if err := sameShape(v, w, at+"."+k); err != nil {
				return err
			}
		}
		for k := range y {
			if _, ok := x[k]; !ok {
				return fmt.Errorf("%s.%s: only theirs has it", at, k)
			}
		}
		return nil
	case []any:
		y, ok := b.([]any)
		if !ok {
			return fmt.Errorf("%s: a list, theirs %T", at, b)
		}
		if len(x) == 0 || len(y) == 0 {
			return nil
		}
		return sameShape(x[0], y[0], at+"[0]")
	}
	if fmt.Sprintf("%T", a) != fmt.Sprintf("%T", b) {
		return fmt.Errorf("%s: %T, theirs %T", at, a, b)
	}
	return nil
}

func shapes(a, b []byte) string {
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		return err.Error()
	}
	if err := sameShape(x, y, ""); err != nil {
		return err.Error()
	}
	return ""
}

// The same requests to both, field by field.
func TestRequestsAgainstPrometheus(t *testing.T) {
	theirs := sameSamples(t)
	now := func() time.Time { return time.UnixMilli(t0 + 20_000) }
	h := httptest.NewServer(server.New(server.Options{
		Engine: query.New(query.Options{Sources: querytest.Segments{floats()}, Now: now}), Now: now, Version: "1.0.0", Revision: "abc",
	}))
	defer h.Close()
	list, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := append(strings.Fields(line), "")
		how, method, path, body := f[0], f[1], f[2], f[3]
		a, b := ask(t, h.URL, method, path, body), ask(t, theirs, method, path, body)
		n++
		bad := ""
		switch {
		case a.code != b.code:
			bad = "status"
		case how == "status":
		case a.kind != b.kind:
			bad = fmt.Sprintf("content type %q, theirs %q", a.kind, b.kind)
		case how == "same" && canonical(t, a.body) != canonical(t, b.body):
			bad = "body"
		case how == "shape":
			bad = shapes(a.body, b.body)
		case how == "error":
			var x, y struct{ ErrorType string }
			json.Unmarshal(a.body, &x)
			json.Unmarshal(b.body, &y)
			if x != y || x.ErrorType == "" {
				bad = "errorType"
			}
		}
		if bad != "" {
			t.Errorf("%s: %s\nours:   %d %.1500s\ntheirs: %d %.1500s", line, bad, a.code, a.body, b.code, b.body)
		}
	}
	t.Logf("%d requests", n)
}

// A Prometheus that reads from us remotely, by samples and by chunks, answers what we answer: floats, staleness, native histograms.
func TestPrometheusReadsRemotely(t *testing.T) {
	for _, mode := range []string{"SAMPLES", "STREAMED_XOR_CHUNKS"} {
		t.Run(mode, func(t *testing.T) {
			var mu sync.Mutex
			kinds := map[string]int{}
			h := ours(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/api/v1/read" && mode == "SAMPLES" {
						onlySamples(t, r)
					}
					next.ServeHTTP(w, r)
					if r.URL.Path == "/api/v1/read" {
						mu.Lock()
						kinds[w.Header().Get("Content-Type")]++
						mu.Unlock()
					}
				})
			})
			theirs := prometheus(t, t.TempDir(), "remote_read:\n- url: "+h.URL+"/api/v1/read\n  read_recent: true\n  filter_external_labels: true\n")
			for _, q := range []string{"rx_bytes_total", "latency", "odd", "target_info", "rx_bytes_total[20s]", "latency[30s]", "sum(rx_bytes_total) / 3",
				"histogram_count(latency)", "histogram_quantile(0.5, latency)", `{job="fwd"}`, "max_over_time(rx_bytes_total[10s])", "nosuch"} {
				for _, at := range []string{"1700000020", "1700000010.5", "1700000003"} {
					p := "/api/v1/query?" + params("query", q, "time", at)
					a, b := ask(t, h.URL, "GET", p, ""), ask(t, theirs, "GET", p, "")
					if a.code != 200 || b.code != 200 || canonical(t, a.body) != canonical(t, b.body) {
						t.Errorf("%s at %s\nours:   %d %.800s\ntheirs: %d %.800s", q, at, a.code, a.body, b.code, b.body)
					}
				}
				p := "/api/v1/query_range?" + params("query", q, "start", "1700000001", "end", "1700000020", "step", "1")
				if strings.HasSuffix(q, "]") {
					continue
				}
				a, b := ask(t, h.URL, "GET", p, ""), ask(t, theirs, "GET", p, "")
				if a.code != 200 || b.code != 200 || canonical(t, a.body) != canonical(t, b.body) {
					t.Errorf("range of %s\nours:   %d %.800s\ntheirs: %d %.800s", q, a.code, a.body, b.code, b.body)
				}
			}
			want := "application/x-protobuf"
			if mode != "SAMPLES" {
				want = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
			}
			if kinds[want] < 10 || len(kinds) != 1 {
				t.Errorf("want all reads by %s, got %v", want, kinds)
			}
		})
	}
}

// A Prometheus that federates from us gets the newest samples, native histograms among them, with our labels.
func TestPrometheusFederates(t *testing.T) {
	born := time.Now().Add(-20*time.Second).UnixMilli() / 1000 * 1000 // Prometheus takes nothing that is old
	now := func() time.Time { return time.UnixMilli(born + 20_000) }  // or rows that do not come would make a gap
	h := httptest.NewServer(server.New(server.Options{Engine: query.New(query.Options{Sources: querytest.Segments{processAt(born)}, Now: now}), Now: now}))
	defer h.Close()
	theirs := prometheus(t, t.TempDir(), `
scrape_configs:
- job_name: federate
  scrape_interval: 100ms
  scrape_timeout: 100ms
  honor_labels: true
  scrape_native_histograms: true
  metrics_path: /federate
  params: {"match[]": ['{job="fwd"}']}
  static_configs: [{targets: ["`+strings.TrimPrefix(h.URL, "http://")+`"]}]
`)
	at := fmt.Sprint(born/1000 + 20)
	for _, q := range []string{"rx_bytes_total", "latency", "odd", "target_info"} {
		p := "/api/v1/query?" + params("query", q, "time", at)
		want, got := canonical(t, ask(t, h.URL, "GET", p, "").body), ""
		for end := time.Now().Add(20 * time.Second); got != want && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			got = canonical(t, ask(t, theirs, "GET", p, "").body)
		}
		if got != want || !strings.Contains(got, "fwd") {
			t.Errorf("%s\nours:   %s\ntheirs: %s", q, want, got)
		}
	}
}

// onlySamples has a request of Prometheus's, which wants chunks first, want samples first.
func onlySamples(t *testing.T, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	if err != nil {
		t.Error(err)
	}
	wish := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 0)
	body = snappy.Encode(nil, append(wish, body...))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

// What promtool prints of us is what it prints of Prometheus, and what it asks for is what is on the list.
func TestPromtool(t *testing.T) {
	promtool, err := peers.Promtool(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	theirs := sameSamples(t)
	var mu sync.Mutex
	var asked []string
	now := func() time.Time { return time.UnixMilli(t0 + 20_000) }
	handler := server.New(server.Options{Engine: query.New(query.Options{Sources: querytest.Segments{floats()}, Now: now}), Now: now})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	defer h.Close()
	for _, args := range [][]string{
		{"query", "instant", "--time", "1700000020", "URL", "rx_bytes_total"},
		{"query", "instant", "-o", "json", "--time", "1700000020", "URL", "odd"},
		{"query", "instant", "--time", "1700000020", "URL", "sum("},
		{"query", "range", "--start", "1700000005", "--end", "1700000020", "--step", "5s", "URL", "rx_bytes_total"},
		{"query", "range", "-o", "json", "--start", "1700000005", "--end", "1700000020", "--step", "5s", "URL", "odd"},
		{"query", "series", "--match", "rx_bytes_total", "--match", "odd", "--start", "1700000000", "--end", "1700000020", "URL"},
		{"query", "series", "-o", "json", "--match", "odd", "--start", "1700000000", "--end", "1700000020", "URL"},
		{"query", "labels", "--start", "1700000000", "--end", "1700000020", "URL", "__name__"},
		{"query", "labels", "--match", "odd", "--start", "1700000000", "--end", "1700000020", "URL", "path"},
		{"query", "analyze", "--server", "URL", "--type", "histogram", "--match", "rx_bytes_total", "--time", "1700000020", "--duration", "10s"},
		{"check", "healthy", "--url", "URL"},
		{"check", "ready", "--url", "URL"},
	} {
		run := func(url string) string {
			a := slices.Clone(args)
			for i := range a {
				if a[i] == "URL" {
					a[i] = url
				}
			}
			out, err := exec.Command(promtool, a...).CombinedOutput()
			return strings.ReplaceAll(fmt.Sprintf("%s%v", out, err), url, "URL")
		}
		a, b := run(h.URL), run(theirs)
		if strings.HasPrefix(args[0], "check") { // says who it is
			a, b = strings.ReplaceAll(a, "shmtsd", "Prometheus Server"), strings.ReplaceAll(b, "prometheus", "Prometheus Server")
			if strings.HasSuffix(a, "<nil>") != strings.HasSuffix(b, "<nil>") {
				t.Errorf("%v\nours:   %s\ntheirs: %s", args, a, b)
			}
			continue
		}
		if a != b {
			t.Errorf("%v\nours:   %s\ntheirs: %s", args, a, b)
		}
	}
	got := strings.Join(asked, "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/promtool.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/promtool.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("promtool asked for something else than is recorded (-update records it):\n%s", got)
	}
}
