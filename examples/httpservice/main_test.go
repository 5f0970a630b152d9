package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// TestMain is also the service itself, as a process that can be killed.
func TestMain(m *testing.M) {
	if args := os.Getenv("HTTPSERVICE_ARGS"); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "|")...)
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func listening(t *testing.T, out io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("want a line that says where it listens, got %q, %v", line, err)
	}
	return url
}

// load does n rounds of five requests from each of four clients.
func load(t *testing.T, url string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			do := func(method, path string, body []byte, want int) {
				req, err := http.NewRequest(method, url+path, bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s %s: want %d, got %d", method, path, want, resp.StatusCode)
				}
			}
			for i := range n {
				key := fmt.Sprintf("/kv/%d-%d", c, i)
				do("PUT", key, make([]byte, 1000), 204)
				do("GET", key, nil, 200)
				do("GET", "/kv/missing", nil, 404)
				do("GET", "/healthz", nil, 200)
				if i%2 == 0 {
					do("DELETE", key, nil, 204)
				}
			}
		}()
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
}

// check finds in the segment's newest rows what load did.
func check(t *testing.T, dir string, n int, estimated bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if len(files) != 1 {
		t.Fatalf("want one segment, got %v", files)
	}
	g, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	value := func(name string, labels ...reader.Pair) reader.Value {
		t.Helper()
		s := g.Find(name, labels...)
		if s == nil {
			t.Fatalf("want a series %s%v, got none", name, labels)
		}
		var v reader.Value
		for r := range g.Rows(s.Table, 0, 1) {
			if x, ok := r.Value(s); ok {
				v = x
				v.Buckets = append([]uint64(nil), x.Buckets...)
				if last := r.No == g.Head(s.Table, 0); last && r.Estimated != estimated {
					t.Errorf("last row: want estimated %v, got %v", estimated, r.Estimated)
				}
			}
		}
		return v
	}
	route := func(method, route string) []reader.Pair {
		return []reader.Pair{{Name: "method", Value: method}, {Name: "route", Value: route}}
	}
	code := func(labels []reader.Pair, class string) []reader.Pair {
		return append([]reader.Pair{{Name: "code", Value: class}}, labels...)
	}
	kvGet, kvPut := route("GET", "/kv/{key}"), route("PUT", "/kv/{key}")
	for _, c := range []struct {
		name   string
		labels []reader.Pair
		want   int64
	}{
		{"http_server_requests_total", code(kvPut, "2xx"), int64(4 * n)},
		{"http_server_requests_total", code(kvGet, "2xx"), int64(4 * n)},
		{"http_server_requests_total", code(kvGet, "4xx"), int64(4 * n)},
		{"http_server_requests_total", code(kvGet, "5xx"), 0},
		{"http_server_requests_total", code(route("DELETE", "/kv/{key}"), "2xx"), int64(4 * ((n + 1) / 2))},
		{"http_server_response_bytes_total", kvGet, int64(4 * n * (1000 + len("no such key\n")))},
		{"http_server_active_requests", nil, 0},
		{"kv_keys", nil, int64(4 * (n - (n+1)/2))},
		{"kv_stored_bytes", nil, int64(4 * (n - (n+1)/2) * 1000)},
	} {
		if v := value(c.name, c.labels...); v.Int != c.want {
			t.Errorf("%s%v: want %d, got %d", c.name, c.labels, c.want, v.Int)
		}
	}
	h := value("http_server_request_duration_seconds", kvGet...)
	if h.Count != uint64(8*n) || h.Sum <= 0 {
		t.Errorf("latency: want %d requests that took time, got %d in %v s", 8*n, h.Count, h.Sum)
	}
}

// The service counts what it serves, and its last row says so after a clean end.
func TestService(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-listen", "127.0.0.1:0", "-store", dir, "-job", "kv", "-instance", "one"}, out)
	}()
	load(t, listening(t, in), 30)
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("want the service to end within 10 s")
	}
	check(t, dir, 30, false)
}

// After SIGKILL nothing of it is lost: the last words have every request that was answered.
func TestServiceKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HTTPSERVICE_ARGS=-listen|127.0.0.1:0|-store|"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	load(t, listening(t, out), 31)
	quiesce(t, dir)
	cmd.Process.Kill()
	cmd.Wait()
	check(t, dir, 31, true)
}

// quiesce waits until the service is done with the last request: its client has the answer before the handler has returned.
func quiesce(t *testing.T, dir string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if len(files) != 1 {
		t.Fatalf("want one segment, got %v", files)
	}
	g, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.Find("http_server_active_requests")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r, err := g.Live(s.Table)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := r.Value(s); ok && v.Int == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("want no request in flight within 10 s")
		}
	}
}
