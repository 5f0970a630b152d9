package health

import (
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/shmts/shmts/writer"
)

func TestText(t *testing.T) {
	h := New(nil) // without a store, /metrics works all the same
	const help = "Help with a \\ and\na line."
	c := h.Counter("b_total", help, "", "k", "v\"\\\n")
	c.Add(1.5)
	c.Add(-1)  // a counter does not fall
	c.Total(4) // of which 1.5 are counted
	c.Total(3)
	h.Counter("b_total", help, "", "k", "a").Total(1e15)
	h.Gauge("a", "First by name.", "By").Set(-0.25)
	d := h.Histogram("c_seconds", "Times.", "code", "200")
	d.Record(0.0001) // upper bounds are inclusive
	d.Record(3)
	d.Record(1000)
	if h.Gauge("a", "", "By") != h.Gauge("a", "", "") {
		t.Error("the same metric: want the same handle")
	}

	w := httptest.NewRecorder()
	h.ServeHTTP(w, nil)
	if ct := w.Header().Get("Content-Type"); !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("content type: got %q", ct)
	}
	var got []string
	for _, l := range strings.Split(strings.TrimSpace(w.Body.String()), "\n") {
		if !strings.Contains(l, "_bucket") || strings.Contains(l, `"0.0001"`) || strings.Contains(l, `"2.5"`) || strings.Contains(l, `"5"`) || strings.Contains(l, "Inf") {
			got = append(got, l)
		}
	}
	want := `# HELP a First by name.
# TYPE a gauge
a -0.25
# HELP b_total Help with a \\ and\na line.
# TYPE b_total counter
b_total{k="a"} 1e+15
b_total{k="v\"\\\n"} 4
# HELP c_seconds Times.
# TYPE c_seconds histogram
c_seconds_bucket{code="200",le="0.0001"} 1
c_seconds_bucket{code="200",le="2.5"} 1
c_seconds_bucket{code="200",le="5"} 2
c_seconds_bucket{code="200",le="+Inf"} 3
c_seconds_sum{code="200"} 1003.0001
c_seconds_count{code="200"} 3`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("want\n%s\ngot\n%s", want, text)
	}
}

func TestProcess(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-health-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: dir, NoTicker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h := New(w)
	p := NewProcess(h)
	for range 2 {
		p.Update()
	}
	if p.rss.Value() < 1<<20 || p.fds.Value() < 3 || p.cpu.Value() <= 0 || p.goroutines.Value() < 1 || p.heap.Value() <= 0 || p.start.Value() < 1.7e9 {
		t.Errorf("got\n%s", h.Text())
	}
	if s := w.Stats(); s.DroppedSeries != 0 || s.RejectedRecords != 0 || s.Series != 8 {
		t.Errorf("recorded: got %+v", s)
	}
}

func TestConcurrent(t *testing.T) {
	h := New(nil)
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 500 {
				h.Counter("c_total", "", "").Add(1)
				h.Gauge("g", "", "").Set(1)
				h.Histogram("h_seconds", "").Record(1)
				h.Text()
			}
		})
	}
	g.Wait()
	if v := h.Counter("c_total", "", "").Value(); v != 2000 {
		t.Errorf("want 2000, got %v", v)
	}
}
