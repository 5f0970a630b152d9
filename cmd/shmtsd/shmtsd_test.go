package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shmts/shmts/writer"
)

// The environment that makes this test binary a writer process: the store, and the job.
const (
	storeEnv = "SHMTSD_TEST_STORE"
	jobEnv   = "SHMTSD_TEST_JOB"

	sampledEnv = "SHMTSD_TEST_SAMPLED" // it never ticks
	tracedEnv  = "SHMTSD_TEST_TRACED"  // it leaves exemplars
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeEnv); dir != "" {
		writerProcess(dir, os.Getenv(jobEnv))
		return
	}
	status := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(status)
}

// writerProcess adds what it reads, a number a line, to a counter, and says when that is done.
func writerProcess(dir, job string) {
	w, err := writer.Open(writer.Options{Job: job, Instance: "i", Dir: dir, Attributes: map[string]string{"service.version": "9"}, Sampled: os.Getenv(sampledEnv) != ""})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c := w.Counter("work.done", writer.Unit("{item}"), writer.Label("kind", "x"), writer.Help("work that was done"))
	most := 1.0
	if os.Getenv(tracedEnv) != "" {
		most = 1000
	}
	h := w.Histogram("work.time", writer.Unit("s"), writer.Buckets(0.001, most))
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var n uint64
		fmt.Sscan(in.Text(), &n)
		if os.Getenv(tracedEnv) != "" {
			ex := writer.Exemplar{TraceID: [16]byte{15: byte(n)}, SpanID: [8]byte{byte(n)}}
			c.AddExemplar(n, ex)
			h.RecordExemplar(float64(n), ex)
			fmt.Println("done")
			continue
		}
		c.Add(n)
		h.Record(0.5)
		fmt.Println("done")
	}
	w.Close()
}

type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWriter(t *testing.T, dir, job string) *process {
	t.Helper()
	return startProcess(t, dir, exec.Command(os.Args[0]), storeEnv+"="+dir, jobEnv+"="+job)
}

func (p *process) expect(want string) {
	p.t.Helper()
	if line, err := p.out.ReadString('\n'); strings.TrimSpace(line) != want {
		p.t.Fatalf("the writer: want %q, got %q, %v", want, line, err)
	}
}

func (p *process) add(n int) {
	p.t.Helper()
	fmt.Fprintln(p.in, n)
	p.expect("done")
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// builtIn is the directory of built.
var builtIn string

// built is the daemon, as the Makefile builds it.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shmtsd-test-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "shmtsd")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.version=7.8.9", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

type daemonProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  bytes.Buffer
	base string
	http *http.Client
}

func startDaemon(t *testing.T, env []string, args ...string) *daemonProcess {
	t.Helper()
	return startDaemonFor(t, "http", http.DefaultClient, env, args...)
}

// startDaemonFor starts one that this client gets ready to answer it.
func startDaemonFor(t *testing.T, scheme string, client *http.Client, env []string, args ...string) *daemonProcess {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	d := &daemonProcess{t: t, base: scheme + "://" + address, http: client}
	d.cmd = exec.Command(path, append([]string{"--listen", address}, args...)...)
	d.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
		if t.Failed() {
			t.Logf("shmtsd said:\n%s", d.log.String())
		}
	})
	waitFor(t, "shmtsd to be ready", func() error {
		_, err := d.get("/-/ready")
		return err
	})
	return d
}

func (d *daemonProcess) get(path string) (string, error) {
	resp, err := d.http.Get(d.base + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: status %s: %s", path, resp.Status, b)
	}
	return string(b), err
}

// query answers an instant vector: the values by their labels.
func (d *daemonProcess) query(q string) (map[string]string, error) {
	text, err := d.get("/api/v1/query?query=" + url.QueryEscape(q))
	if err != nil {
		return nil, err
	}
	var r struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, s := range r.Data.Result {
		var labels []string
		for k, v := range s.Metric {
			labels = append(labels, k+"="+v)
		}
		slices.Sort(labels)
		out[strings.Join(labels, ",")] = fmt.Sprint(s.Value[1])
	}
	return out, nil
}

func waitFor(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for %s: %v", what, err)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// receiver is a collector: the points of work.done, by job.
type receiver struct {
	mu     sync.Mutex
	values map[string][]string
	jobs   map[string]int
	url    string
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{values: map[string][]string{}, jobs: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	s := &http.Server{Handler: r}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var m collector.ExportMetricsServiceRequest
	z, err := gzip.NewReader(q.Body)
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(z); err == nil {
			err = proto.Unmarshal(b, &m)
		}
	}
	if err != nil || q.URL.Path != "/v1/metrics" {
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range m.ResourceMetrics {
		job := ""
		for _, a := range rm.Resource.Attributes {
			if a.Key == "service.name" {
				job = a.Value.GetStringValue()
			}
		}
		r.jobs[job]++
		for _, m := range rm.ScopeMetrics[0].Metrics {
			if m.Name != "work.done" {
				continue
			}
			for _, p := range m.GetSum().DataPoints {
				v := fmt.Sprint(p.GetAsInt())
				if p.Flags == uint32(metrics.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) {
					v = "stale"
				}
				r.values[job] = append(r.values[job], v)
			}
		}
	}
}

func (r *receiver) got(job string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.values[job])
}

func newStore(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "shmtsd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func want(t *testing.T, got, want map[string]string) error {
	if len(got) != len(want) {
		return fmt.Errorf("want %v, got %v", want, got)
	}
	for k, v := range want {
		if got[k] != v {
			return fmt.Errorf("want %v, got %v", want, got)
		}
	}
	return nil
}

// A writer process records, is killed with SIGKILL, and its last values are in PromQL and left by
// OTLP; its successor goes on; the segment is unlinked when its time is over; SIGTERM ends it all with a last export.
func TestFromRecordToAnswer(t *testing.T) {
	dir, r := newStore(t), startReceiver(t)
	d := startDaemon(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.url, "OTEL_METRIC_EXPORT_INTERVAL=1000", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "SHMTS_DIR=" + dir},
		"--dead-ttl", "5s", "--poll-interval", "100ms", "--log.format", "json")
	w := startWriter(t, dir, "shop/worker")
	w.add(40)
	const series = `__name__=work_done_total,instance=i,job=shop/worker,kind=x`
	answer := func(value string) func() error {
		return func() error {
			got, err := d.query("work_done_total")
			if err != nil {
				return err
			}
			return want(t, got, map[string]string{series: value})
		}
	}
	waitFor(t, "the first value", answer("40"))
	w.add(2)
	w.kill() // at once: no tick has seen the 2
	waitFor(t, "its last word by OTLP", func() error {
		if got := r.got("worker"); !slices.Contains(got, "42") || got[len(got)-1] != "stale" {
			return fmt.Errorf("want 42, then stale, got %v", got)
		}
		return nil
	})
	// Its series has ended: the last value is in the past.
	got, err := d.query("max_over_time(work_done_total[1m])")
	if err == nil {
		err = want(t, got, map[string]string{strings.TrimPrefix(series, "__name__=work_done_total,"): "42"})
	}
	if err != nil {
		t.Error(err)
	}
	if got, err = d.query("histogram_count(last_over_time(work_time_seconds[1m]))"); err == nil {
		err = want(t, got, map[string]string{"instance=i,job=shop/worker": "2"})
	}
	if err != nil {
		t.Error(err)
	}
	first := segments(t, dir, "shop_worker")
	if len(first) != 1 {
		t.Fatalf("want the dead segment kept, got %v", first)
	}

	again := startWriter(t, dir, "shop/worker")
	again.add(5)
	waitFor(t, "the successor's value", answer("5"))
	waitFor(t, "the dead segment to be unlinked", func() error {
		if now := segments(t, dir, "shop_worker"); slices.Contains(now, first[0]) || len(now) != 1 {
			return fmt.Errorf("got %v", now)
		}
		return nil
	})

	for path, parts := range map[string][]string{
		"/metrics": {"shmtsd_segments_unlinked_total 1\n", `shmtsd_segments{state="alive"} 2`, "# TYPE shmtsd_poll_duration_seconds histogram",
			`shmtsd_export_requests_total{destination="otlp",outcome="ok"}`, `shmtsd_http_requests_total{code="200",endpoint="query"}`, "process_resident_memory_bytes ",
			`version="7.8.9"`},
		"/api/v1/status/buildinfo":                {"success"},
		"/api/v1/label/job/values":                {`["shmtsd","shop/worker"]`},
		"/api/v1/metadata?metric=work_done_total": {`"type":"counter"`, "work that was done"},
		"/-/healthy":                          {"healthy"},
		"/api/v1/query?query=shmtsd_segments": {`"state":"alive"`}, // it reads its own segment
	} {
		text, err := d.get(path)
		if err != nil {
			t.Error(err)
		}
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("%s: want %q in it, got %s", path, p, text)
			}
		}
	}

	// What /metrics calls a thing is what PromQL calls it.
	text, _ := d.get("/metrics")
	names, err := d.get("/api/v1/label/__name__/values")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(text) {
		if f := strings.Fields(l); f[0] == "#" && f[1] == "TYPE" && !strings.Contains(names, `"`+f[2]+`"`) {
			t.Errorf("%s is in /metrics, and PromQL does not know it: %s", f[2], names)
		}
	}

	again.add(6)

	waitFor(t, "a tick with 11", answer("11"))
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: want status 0, got %v", err)
	}
	if got := r.got("worker"); got[len(got)-1] != "11" {
		t.Errorf("want a last export of 11, got %v", got)
	}
	if r.jobs["shmtsd"] == 0 {
		t.Error("want its own metrics exported, got none")
	}
	if left := segments(t, dir, "shmtsd"); len(left) != 1 {
		t.Errorf("want its own segment, closed, got %v", left)
	}
}

func segments(t *testing.T, dir, stem string) []string {
	m, err := filepath.Glob(filepath.Join(dir, "*", stem+".*.shmts"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestUnixSocket(t *testing.T) {
	dir := newStore(t)
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close() // a socket that somebody left
	l, err := listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen("unix:" + path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a socket in use: want an error that names it, got %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen("unix:" + file); err == nil {
		t.Error("a plain file at the path: want an error, got none")
	}
	if b, _ := os.ReadFile(file); string(b) != "keep" {
		t.Error("a plain file at the path was replaced")
	}
}

// Statuses and where the words go.
func TestMainProper(t *testing.T) {
	dir := newStore(t)
	for _, c := range []struct {
		args        []string
		status      int
		out, errors string
	}{
		{[]string{"--version"}, 0, "shmtsd " + version + " (go", ""},
		{[]string{"--help"}, 0, "SHMTS_OTLP_INTERVAL, OTEL_METRIC_EXPORT_INTERVAL", ""},
		{[]string{"--dead-ttl", "1s"}, 2, "", "shmts: dead-ttl: want"},
		{[]string{"--bogus"}, 2, "", "shmts: flag provided but not defined: -bogus"},
		{[]string{"--store", dir, "--listen", "256.0.0.1:1"}, 1, "", "shmts: listen:"},
		{[]string{"--store", dir, "--listen", "127.0.0.1:0", "--otlp.endpoint", "https://localhost:1", "--otlp.certificate", "/nonexistent"}, 1, "", "shmts: otlp ca_file:"},
	} {
		var out, errs bytes.Buffer
		status := run(c.args, func(string) string { return "" }, &out, &errs)
		if status != c.status || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.errors) ||
			(c.out == "") != (out.Len() == 0) {
			t.Errorf("%v: want status %d, %q, %q, got %d, %.200q, %.200q", c.args, c.status, c.out, c.errors, status, out.String(), errs.String())
		}
	}
}

// What may not creep in: DEPENDENCIES.md says what each would cost. 16 MB is the goal for the whole daemon.
func TestBinaryStaysSmall(t *testing.T) {
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 16<<20 {
		t.Errorf("want a daemon of at most 16 MB, got %.1f: see what `go list -deps` gained", float64(info.Size())/(1<<20))
	}
	out, err := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		switch p {
		case "html/template", "text/template", "plugin":
			t.Errorf("%s is linked: it turns dead code elimination off, for megabytes", p)
		case "google.golang.org/grpc", "github.com/prometheus/prometheus/storage/remote", "github.com/prometheus/prometheus/web/api/v1", "github.com/prometheus/prometheus/rules":
			t.Errorf("%s is linked: the daemon has its own, smaller", p)
		}
	}
}
