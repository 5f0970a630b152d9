package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/writer"
)

// one is a world with two points to send: in 2.0 of one counter, in 1.0, where that would be two requests, of two gauges.
func one(t *testing.T, o Options, r *receiver) *world {
	w := newWorld(t, o, start(t, r))
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	if o.Message == MessageV1 {
		wr.Gauge("a").Set(1)
		wr.Gauge("b").Set(1)
	} else {
		wr.Counter("c").Add(7)
	}
	w.Run(10 * time.Second)
	return w
}

var onePoint = []string{"c_total{instance=i,job=j} 0 @0", "c_total{instance=i,job=j} 7 @10 since 0"}

type handler = func(http.ResponseWriter, *http.Request)

func code(n int, body string, header ...string) handler {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(n)
		io.WriteString(w, body)
	}
}

// What a receiver may do with a request, and what must come of it: the table of docs/export.md. The next request it takes.
func TestFailures(t *testing.T) {
	const samples = "X-Prometheus-Remote-Write-Samples-Written"
	const retried, refused, taken = "retried", "refused", "taken"
	cases := []struct {
		name    string
		first   handler
		o       Options
		want    string
		wait    time.Duration
		refused map[string]uint64
		v1      bool // 1.0 is spoken afterwards
	}{
		{name: "429", first: code(429, "slow down"), want: retried},
		{name: "429, Retry-After", first: code(429, "slow down", "Retry-After", "1"), want: retried, wait: time.Second},
		{name: "429, told not to", first: code(429, ""), o: Options{NoRetryOn429: true}, want: refused, refused: map[string]uint64{"status_429": 2}},
		{name: "500", first: code(500, "broken"), want: retried},
		{name: "501", first: code(501, ""), want: retried},
		{name: "503, Retry-After", first: code(503, "", "Retry-After", "1"), want: retried, wait: time.Second},
		{name: "400", first: code(400, "no"), want: refused, refused: map[string]uint64{"status_400": 2}},
		{name: "400 of 1.0, out of order", first: code(400, "out of order sample"), o: Options{Message: MessageV1}, want: refused, refused: map[string]uint64{RefusedOutOfOrder: 2}, v1: true},
		{name: "400, too old", first: code(400, "out of bounds", samples, "0"), want: refused, refused: map[string]uint64{RefusedTooOld: 2}},
		{name: "400 of Mimir's", first: code(400, "failed pushing: the sample has been rejected (err-mimir-sample-duplicate-timestamp)"), o: Options{Message: MessageV1}, want: refused, refused: map[string]uint64{RefusedDuplicate: 2}, v1: true},
		{name: "400, a part", first: code(400, "too old sample for series c", samples, "1"), want: taken, refused: map[string]uint64{RefusedTooOld: 1}},
		{name: "400, more written than sent", first: code(400, "out of order exemplar", samples, "3"), want: taken},
		{name: "401", first: code(401, ""), want: refused, refused: map[string]uint64{"status_401": 2}},
		{name: "404", first: code(404, ""), want: refused, refused: map[string]uint64{"status_404": 2}},
		{name: "413", first: code(413, ""), want: refused, refused: map[string]uint64{"status_413": 2}},
		{name: "301", first: code(301, "", "Location", "/elsewhere"), want: refused, refused: map[string]uint64{"status_301": 2}},
		{name: "415", first: code(415, ""), want: "fallen back", v1: true},
		{name: "415 of 1.0", first: code(415, ""), o: Options{Message: MessageV1}, want: refused, refused: map[string]uint64{"status_415": 2}, v1: true},
		{name: "2xx that does not say", first: code(204, ""), want: "fallen back", v1: true},
		{name: "2xx of 1.0", first: code(204, ""), o: Options{Message: MessageV1}, want: taken, v1: true},
		{name: "2xx, less written", first: code(200, "one was not to my taste", samples, "1"), want: taken, refused: map[string]uint64{RefusedUnwritten: 1}},
		{name: "2xx, more written than sent", first: code(200, "", samples, "99999999999999999999"), want: taken, refused: map[string]uint64{RefusedUnwritten: 2}},
		{name: "2xx, garbage written", first: code(200, "", samples, "-1"), want: taken, refused: map[string]uint64{RefusedUnwritten: 2}},
		{name: "hang", first: func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }, want: retried},
		{name: "slow", first: func(w http.ResponseWriter, q *http.Request) {
			time.Sleep(300 * time.Millisecond)
			code(200, "", samples, "2")(w, q)
		}, want: taken},
		{name: "cut before the answer", first: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: retried},
		{name: "cut in a good answer", first: func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Length", "100")
			code(200, "x", samples, "2")(w, q)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, want: taken},
		{name: "cut in a bad answer", first: func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Length", "100")
			code(500, "x")(w, q)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, want: retried},
		{name: "an endless answer", first: func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Encoding", "snappy")
			code(400, "\xff\xff\xff\xff\x0f")(w, q) // as if it were of 4 GiB
			for q.Context().Err() == nil {
				if _, err := w.Write(slices.Repeat([]byte("out of order sample\n"), 5000)); err != nil {
					return
				}
			}
		}, want: refused, refused: map[string]uint64{RefusedOutOfOrder: 2}},
	}
	names := []string{"an hour"} // TestOutage
	for _, c := range cases {
		names = append(names, c.name)
	}
	exporttest.HoldFailures(t, "remote-write", "tried", names)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &receiver{first: func(n int, w http.ResponseWriter, q *http.Request, _ int) bool {
				if n == 1 {
					c.first(w, q)
				}
				return n == 1
			}}
			c.o.HTTP.Timeout = 2 * time.Second
			w := one(t, c.o, r)
			began := time.Now()
			w.flush()
			if d := time.Since(began); d < c.wait {
				t.Errorf("want %v waited, got %v", c.wait, d)
			}
			w.flush() // nothing goes out twice
			s := w.e.Stats()
			requests, lines := 1, []string(nil)
			outcome := map[string]uint64{}
			switch c.want {
			case retried:
				requests, lines = 2, onePoint
				outcome[export.OutcomeRetry], outcome[export.OutcomeOK] = 1, 1
			case "fallen back":
				requests, lines = 3, exporttest.Lines(asV1(strings.Join(onePoint, "\n")))
				outcome[export.OutcomeOK] = 1
			case refused:
				outcome[export.OutcomeRefused] = 1
			case taken:
				if outcome[export.OutcomeOK] = 1; c.refused != nil {
					outcome = map[string]uint64{export.OutcomePartial: 1}
				}
			}
			if r.requests() != requests || !slices.Equal(r.got(), lines) {
				t.Errorf("want %d requests and %q, got %d and %q", requests, lines, r.requests(), r.got())
			}
			if !maps.Equal(s.Requests, outcome) && c.name != "400, more written than sent" {
				t.Errorf("want outcomes %v, got %v", outcome, s.Requests)
			}
			if !maps.Equal(s.Refused, c.refused) {
				t.Errorf("want refused %v, got %v", c.refused, s.Refused)
			}
			n := uint64(2)
			for _, k := range c.refused {
				n -= k
			}
			if s.Points != n {
				t.Errorf("want %d points taken, got %+v", n, s)
			}
			if c.want == refused && (!strings.HasPrefix(s.LastError, "shmts: remote_write: want status 2xx of http://127.0.0.1:")) {
				t.Errorf("want an error that says what was wanted, got %q", s.LastError)
			}
			if got := w.enc.Version() == "1.0"; got != c.v1 {
				t.Errorf("want 1.0 spoken afterwards: %v, got %v", c.v1, got)
			}
		})
	}
}

// A receiver that is away for an hour: memory stays one batch, and what the rings still hold arrives, once and in order.
func TestOutage(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	r := &receiver{first: func(_ int, w http.ResponseWriter, _ *http.Request, _ int) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	}}
	w := newWorld(t, Options{MaxSamples: 10, MaxShards: 2}, start(t, r))
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c := wr.Counter("c")
	var want []string
	for range 6 { // an hour in tens of minutes
		for range 60 {
			c.Add(1)
			w.Run(10 * time.Second)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := w.e.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the receiver is down: want the context's error, got %v", err)
		}
		cancel()
		if w.enc.points > 12 {
			t.Fatalf("want one batch of 10 points in memory, got %d", w.enc.points)
		}
	}
	down.Store(false)
	w.flush()
	got := r.got()
	// The first batch was made when the receiver was away: it is the oldest; then comes what the ring has.
	for i, l := range got {
		if i > 0 && !strings.HasPrefix(l, "c_total{instance=i,job=j} ") {
			t.Fatalf("unexpected %q", l)
		}
	}
	want = got
	slices.SortStableFunc(want, func(a, b string) int {
		var ta, tb float64
		fmt.Sscanf(a[strings.Index(a, "@")+1:], "%f", &ta)
		fmt.Sscanf(b[strings.Index(b, "@")+1:], "%f", &tb)
		return int(ta - tb)
	})
	if !slices.Equal(got, want) || got[len(got)-1] != "c_total{instance=i,job=j} 360 @3600 since 0" {
		t.Errorf("want order kept up to the last row, got %q", got)
	}
	if len(slices.Compact(slices.Clone(want))) != len(got) {
		t.Errorf("want nothing twice, got %q", got)
	}
	s := w.e.Stats()
	if rows := uint64(len(got) - 1); rows+s.Lost[export.LostOverrun] != 360 || s.Lost[export.LostOverrun] == 0 {
		t.Errorf("want 360 rows sent or counted as lost, got %d and %v", rows, s.Lost)
	}
}

// Of several shards only those are sent again whose request was not taken.
func TestPartsAreKept(t *testing.T) {
	var failed atomic.Int64
	r := &receiver{}
	r.first = func(n int, w http.ResponseWriter, _ *http.Request, _ int) bool {
		if n > 1 && n%3 == 0 {
			failed.Add(1)
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	w := newWorld(t, Options{MaxSamples: 20, MaxShards: 4}, start(t, r))
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	for k := range 300 {
		wr.Counter("c", writer.Label("k", fmt.Sprint(k))).Add(1)
	}
	w.Run(60 * time.Second)
	w.flush()
	got := r.got()
	slices.Sort(got)
	if len(got) != 300*7 || len(slices.Compact(got)) != 300*7 || failed.Load() == 0 {
		t.Errorf("want %d samples once each after some failures, got %d, %d failures, %+v", 300*7, len(got), failed.Load(), w.e.Stats())
	}
	attempts := 0
	for _, h := range r.headers {
		if h.Get("Retry-Attempt") != "" {
			attempts++
		}
	}
	if attempts == 0 {
		t.Error("want Retry-Attempt in what is sent again")
	}
}

// A receiver that did not take 2.0 is asked again after an hour.
func TestFallBackEnds(t *testing.T) {
	r := &receiver{only1: true}
	w := one(t, Options{}, r)
	wr := w.Writers[0]
	w.flush()
	w.Run(10 * time.Second)
	before := r.requests()
	w.flush()
	if n := r.requests() - before; n != 1 || w.enc.Version() != "1.0" {
		t.Errorf("want one request of 1.0, got %d, %s", n, w.enc.Version())
	}
	r.only1 = false
	w.Now += time.Hour
	wr.Tick()
	w.Run(10 * time.Second)
	w.flush()
	if got := r.got(); w.enc.Version() != "2.0" || !strings.HasSuffix(got[len(got)-1], "since 0") {
		t.Errorf("want 2.0 again, got %s, %q", w.enc.Version(), got)
	}
}

// In 1.0 a request holds one sample of each series: so one that is repeated is not refused, and of one that is, nothing else goes with it.
func TestLayers(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{Message: MessageV1}, start(t, r))
	for _, i := range []string{"a", "b", "a"} { // the third one follows the first
		wr := w.Writer(writer.Options{Job: "j", Instance: i})
		wr.Counter("c").Add(1)
		wr.Gauge("g").Set(1)
		wr.Histogram("h", writer.Buckets(1, 2)).Record(1.5)
		w.Run(30 * time.Second)
		wr.Close()
		w.Writers = nil
	}
	w.flush()
	for _, lines := range r.each {
		seen := map[string]bool{}
		for _, l := range lines {
			name, _, _ := strings.Cut(l, " ")
			if seen[name] {
				t.Errorf("%s twice in a request: %q", name, lines)
			}
			seen[name] = true
		}
	}
	if len(r.each) < 5 || len(r.each) > 20 {
		t.Errorf("want a request for each of a series' rows, got %d", len(r.each))
	}
	times := map[string]float64{}
	for _, l := range r.got() {
		name, _, _ := strings.Cut(l, " ")
		var at float64
		fmt.Sscanf(l[strings.LastIndex(l, "@")+1:], "%f", &at)
		if at <= times[name] && times[name] != 0 {
			t.Errorf("%s: want a time after %v, got %v", name, times[name], at)
		}
		times[name] = at
	}
}

func TestOptionErrors(t *testing.T) {
	for _, o := range []Options{
		{HTTP: httpclient.Options{URL: "localhost:9090"}},
		{HTTP: httpclient.Options{URL: "http://x"}, Message: "3.0"},
		{HTTP: httpclient.Options{URL: "http://x", Auth: httpclient.Auth{Password: "p"}}},
	} {
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "shmts: remote_write") {
			t.Errorf("%+v: want an error, got %v", o, err)
		}
	}
}

// Metadata of 1.0 go out each minute, those that fail with the next.
func TestMetadata(t *testing.T) {
	r := &receiver{}
	w := one(t, Options{Message: MessageV1}, r)
	w.flush()
	if got := r.metadata["a"]; got != `gauge "" ""` {
		t.Errorf("want metadata at once, got %q", got)
	}
	r.metadata = map[string]string{}
	for range 5 {
		w.Run(10 * time.Second)
		w.flush()
	}
	if len(r.metadata) > 0 {
		t.Error("want none within the minute")
	}
	w.Run(10 * time.Second)
	w.flush()
	if len(r.metadata) == 0 {
		t.Error("want them again after the minute")
	}
}
