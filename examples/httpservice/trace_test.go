package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

func TestTraceOf(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for header, want := range map[string]bool{
		"00-" + id + "-" + span + "-01":      true,
		"00-" + id + "-" + span + "-03":      true,
		"cc-" + id + "-" + span + "-01-what": true, // a later version may say more
		"":                                   false,
		"00-" + id + "-" + span + "-00":      false, // not sampled
		"00-" + id + "-" + span + "-01-":     false,
		"ff-" + id + "-" + span + "-01":      false,
		"00-" + id + "-" + span + "-zz":      false,
		"00-" + strings.Replace(id, "f", "g", 1) + "-" + span + "-01": false,
		"00-" + id + "-" + strings.Replace(span, "f", "g", 1) + "-01": false,
		"00-" + id + "_" + span + "-01":                               false,
		strings.Repeat("-", 55):                                       false,
	} {
		ex := traceOf(http.Header{"Traceparent": {header}})
		if got := ex.TraceID[0] == 0x4b && ex.TraceID[15] == 0x36 && ex.SpanID[7] == 0xb7; got != want || !want && (ex.TraceID != [16]byte{} || ex.SpanID != [8]byte{}) {
			t.Errorf("%q: want a trace: %v, got %+v", header, want, ex)
		}
	}
}

// A request with a trace leaves it with its latency; one without leaves none.
func TestServiceLeavesTraces(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-listen", "127.0.0.1:0", "-store", dir}, out) }()
	url := listening(t, in)
	began := time.Now()
	for _, header := range []string{"", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"} {
		req, err := http.NewRequest("GET", url+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("traceparent", header)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	g, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	n := 0
	for x := range g.Exemplars(0) {
		n++
		if x.Series.Name != "http_server_request_duration_seconds" || x.TraceID[0] != 0x4b || x.SpanID[7] != 0xb7 || x.Value <= 0 || x.Time < began.UnixNano() {
			t.Errorf("want the trace of the request, got %+v", x)
		}
	}
	if n != 1 {
		t.Errorf("want one exemplar, got %d", n)
	}
}
