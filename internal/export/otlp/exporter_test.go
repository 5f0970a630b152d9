package otlp

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/writer"
)

// world is a store whose clock the test winds, writers in it, and an exporter of it.
type world struct {
	*exporttest.World
	e      *export.Exporter
	enc    *Encoder
	polled func() []export.Segment
	sent   func() // after each attempt; nil: nothing

	o         options
	positions string // file; empty: none
}

// options are a destination's.
type options struct {
	settings
	Interval time.Duration
}

// settings are what of Options tests say.
type settings struct {
	Endpoint, Protocol, Compression    string
	Headers                            map[string]string
	Timeout                            time.Duration
	Certificate, ClientCert, ClientKey string
	BatchPoints                        int
	Version                            string
	Delta                              bool
}

func (s settings) real() Options {
	return Options{Protocol: s.Protocol, Compression: s.Compression, BatchPoints: s.BatchPoints, Version: s.Version, Delta: s.Delta,
		HTTP: httpclient.Options{URL: s.Endpoint, Header: s.Headers, Timeout: s.Timeout, TLS: httpclient.TLS{CAFile: s.Certificate, CertFile: s.ClientCert, KeyFile: s.ClientKey}}}
}

func newWorld(t testing.TB, o options) *world {
	t.Helper()
	w := &world{World: exporttest.New(t, epoch), o: o}
	w.polled = w.Segments
	w.open(t)
	return w
}

// open begins an exporter.
func (w *world) open(t testing.TB) {
	t.Helper()
	var err error
	if w.enc, err = New(w.o.real()); err != nil {
		t.Fatal(err)
	}
	o := export.Options{Name: "test", Step: w.o.Interval, Delta: w.o.Delta, Backoff: time.Millisecond, Positions: w.positions, Now: w.Time, Exemplars: w.Traces,
		Sent: func(time.Duration) {
			if w.sent != nil {
				w.sent()
			}
		}}
	if w.e, err = export.New(o, w.enc, func() []export.Segment { return w.polled() }); err != nil {
		t.Fatal(err)
	}
}

func (w *world) flush() { w.T.Helper(); w.Flush(w.e) }

const allLines = `
	svc/rx.packets{queue=0,zone=a} "{packet}" counter 0..10 int 7
	svc/rx.packets{queue=1,zone=a} "{packet}" counter 0..10 double 9.223372036854776e+18
	svc/cpu{Zone=own,job=own,zone=a} "s" counter 0..10 double 2.5
	svc/open{zone=a} "" updown 0..10 int -3
	svc/temperature{zone=a} "Cel" gauge -..10 double 21.5
	svc/level{zone=a} "" gauge -..10 int -7
	svc/depth{zone=a} "" gauge -..10 double 1.5
	svc/depth_min{zone=a} "" gauge -..10 double 1.5
	svc/depth_max{zone=a} "" gauge -..10 double 4
	svc/depth_sum{zone=a} "" counter 0..10 double 5.5
	svc/depth_count{zone=a} "{record}" counter 0..10 int 2
	svc/queue.wait{zone=a} "s" gauge -..10 double -0.5
	svc/queue.wait.min{zone=a} "s" gauge -..10 double -0.5
	svc/queue.wait.max{zone=a} "s" gauge -..10 double -0.5
	svc/queue.wait.sum{zone=a} "s" updown 0..10 double -0.5
	svc/queue.wait.count{zone=a} "{record}" counter 0..10 int 1
	svc/silent_sum{zone=a} "" updown 0..10 double 0
	svc/silent_count{zone=a} "{record}" counter 0..10 int 0
	svc/latency{zone=a} "s" histogram 0..10 count 7 sum 10.375 scale 3 zero 3 <=0.25 -9:2 -1:1 0:1
	svc/size{zone=a} "By" histogram 0..10 count 2 sum 200 scale 0 zero 0 <=64 6:2
	svc/empty{zone=a} "" histogram 0..10 count 0 sum 0 scale 3 zero 0 <=0.25
`

var protocols = []struct{ protocol, compression string }{
	{"http/protobuf", "gzip"}, {"http/protobuf", "none"}, {"grpc", "gzip"}, {"grpc", "none"},
}

// Every kind, over every protocol, value by value and bucket by bucket; then all of it again in requests of a few points.
func TestValues(t *testing.T) {
	for _, p := range protocols {
		for _, batch := range []int{0, 3} {
			t.Run(p.protocol+" "+p.compression+" "+strconv.Itoa(batch), func(t *testing.T) {
				r := &receiver{}
				o := settings{Protocol: p.protocol, Compression: p.compression, Headers: map[string]string{"X-Tenant": "a b"}, BatchPoints: batch, Version: "1.2"}
				if o.Endpoint = startHTTP(t, r); p.protocol == "grpc" {
					o.Endpoint = startGRPC(t, r)
				}
				w := newWorld(t, options{settings: o})
				exporttest.RecordAll(w.Writer(writer.Options{Job: "ns/svc", Instance: "i-1", Labels: map[string]string{"zone": "a"}, Attributes: map[string]string{"host.name": "h"}}))
				w.Run(10 * time.Second)
				w.flush()
				exporttest.SameLines(t, r.lines(), allLines)
				if batch > 0 && len(r.all) < 7 {
					t.Errorf("21 points, 3 a request: want 7 requests or more, got %d", len(r.all))
				}
				resource := attributes(r.all[0].ResourceMetrics[0].Resource.Attributes)
				for k, v := range map[string]string{"service.name": "svc", "service.namespace": "ns", "service.instance.id": "i-1", "host.name": "h"} {
					if resource[k] != v {
						t.Errorf("resource attribute %s: want %q, got %q", k, v, resource[k])
					}
				}
				if scope := r.all[0].ResourceMetrics[0].ScopeMetrics[0].Scope; scope.Version != "1.2" || scope.Name == "" {
					t.Errorf("scope: got %v", scope)
				}
				for _, h := range r.seen {
					if h.Get("X-Tenant") != "a b" || !strings.HasPrefix(h.Get("User-Agent"), "OTel-OTLP-Exporter-shmtsd/") {
						t.Errorf("headers: got %v", h)
					}
				}
				if s := w.e.Stats(); s.Points != 21 || s.Requests[export.OutcomeOK] != uint64(len(r.all)) || s.Lost[export.LostOverrun] != 0 {
					t.Errorf("stats: got %+v", s)
				}
			})
		}
	}
}

// Each row of the tier goes out once, however often there is an export.
func TestEachRowOnce(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c := wr.Counter("c")
	for range 5 {
		c.Add(1)
		w.Run(10 * time.Second)
		if w.Now != 30*time.Second { // one export is late: its row goes with the next
			w.flush()
			w.flush()
		}
	}
	wr.Counter("late").Add(9)
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..10 int 1
		j/c{} "" counter 0..20 int 2
		j/c{} "" counter 0..30 int 3
		j/c{} "" counter 0..40 int 4
		j/c{} "" counter 0..50 int 5
		j/c{} "" counter 0..60 int 5
		j/late{} "" counter 50..60 int 9
	`)
}

// A process's end: its final row, then no recorded value, a millisecond later; then nothing.
func TestEnd(t *testing.T) {
	for _, batch := range []int{0, 1} {
		r := &receiver{}
		w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r), BatchPoints: batch}})
		wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
		wr.Counter("c").Add(1)
		wr.Gauge("never")
		wr.Stat("s").Record(2)
		wr.Histogram("h", writer.Buckets(1, 2), writer.Scale(0)).Record(2)
		w.Run(10 * time.Second)
		w.flush()
		id := w.Segments()[0].ID()
		wr.Counter("c").Add(1)
		w.Now += 1500 * time.Millisecond
		wr.Close()
		if w.e.Finished(id) {
			t.Error("finished before the final row was sent")
		}
		w.flush()
		w.flush()
		if !w.e.Finished(id) {
			t.Error("everything was sent: want finished")
		}
		exporttest.SameLines(t, r.lines(), `
			j/c{} "" counter 0..10 int 1
			j/s{} "" gauge -..10 double 2
			j/s_min{} "" gauge -..10 double 2
			j/s_max{} "" gauge -..10 double 2
			j/s_sum{} "" updown 0..10 double 2
			j/s_count{} "{record}" counter 0..10 int 1
			j/h{} "" histogram 0..10 count 1 sum 2 scale 0 zero 0 <=1 0:1
			j/c{} "" counter 0..11.5 int 2
			j/s{} "" gauge -..11.5 double 2
			j/s_sum{} "" updown 0..11.5 double 2
			j/s_count{} "{record}" counter 0..11.5 int 1
			j/h{} "" histogram 0..11.5 count 1 sum 2 scale 0 zero 0 <=1 0:1
			j/c{} "" counter 0..11.501 stale
			j/s{} "" gauge -..11.501 stale
			j/s_min{} "" gauge -..11.501 stale
			j/s_max{} "" gauge -..11.501 stale
			j/s_sum{} "" updown 0..11.501 stale
			j/s_count{} "{record}" counter 0..11.501 stale
			j/h{} "" histogram 0..11.501 stale
		`)
	}
}

// A predecessor's rows and its end go out before its successor's rows.
func TestSuccessor(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	old := w.Writer(writer.Options{Job: "j", Instance: "i"})
	old.Counter("c").Add(1)
	w.Run(12 * time.Second)
	old.Close()
	w.Now += time.Second
	young := w.Writer(writer.Options{Job: "j", Instance: "i"})
	young.Counter("c").Add(100)
	w.Run(7 * time.Second)
	w.flush()
	got := r.lines()
	want := []string{
		`j/c{} "" counter 0..10 int 1`,
		`j/c{} "" counter 0..12 int 1`,
		`j/c{} "" counter 0..12.001 stale`,
		`j/c{} "" counter 13..20 int 100`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
}

// A retired series: no recorded value with the first row that does not hold it.
func TestRetire(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	a, b := wr.Counter("a"), wr.Stat("b")
	wr.Counter("keep").Add(5)
	a.Add(1)
	b.Record(3)
	w.Run(10 * time.Second)
	w.flush()
	a.Retire()
	b.Retire()
	w.Run(20 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/a{} "" counter 0..10 int 1
		j/b{} "" gauge -..10 double 3
		j/b_min{} "" gauge -..10 double 3
		j/b_max{} "" gauge -..10 double 3
		j/b_sum{} "" updown 0..10 double 3
		j/b_count{} "{record}" counter 0..10 int 1
		j/keep{} "" counter 0..10 int 5
		j/a{} "" counter 0..20 stale
		j/b{} "" gauge -..20 stale
		j/b_min{} "" gauge -..20 stale
		j/b_max{} "" gauge -..20 stale
		j/b_sum{} "" updown 0..20 stale
		j/b_count{} "{record}" counter 0..20 stale
		j/keep{} "" counter 0..20 int 5
		j/keep{} "" counter 0..30 int 5
	`)
}

// Where the only tier is much finer than the interval, rows are passed over, and their windows folded in.
func TestThin(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings{Endpoint: startHTTP(t, r)}, 5 * time.Second})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i", Tables: []writer.Table{{Name: "t", Tiers: []writer.Tier{{Step: time.Second, Rows: 60}}, Stats: 2, Scalars: 4}}})
	s, c := wr.Stat("s"), wr.Counter("c")
	for i := range 11 {
		c.Inc()
		s.Record(float64(10 - i))
		w.Run(time.Second)
		if i == 3 {
			w.flush()
			wr.Counter("late") // the windows so far are not forgotten
		}
	}
	w.flush()
	var got []string
	for _, l := range r.lines() {
		if !strings.Contains(l, "late") {
			got = append(got, l)
		}
	}
	exporttest.SameLines(t, got, `
		j/c{} "" counter 0..5 int 5
		j/s{} "" gauge -..5 double 6
		j/s_min{} "" gauge -..5 double 6
		j/s_max{} "" gauge -..5 double 10
		j/s_sum{} "" updown 0..5 double 40
		j/s_count{} "{record}" counter 0..5 int 5
		j/c{} "" counter 0..10 int 10
		j/s{} "" gauge -..10 double 1
		j/s_min{} "" gauge -..10 double 1
		j/s_max{} "" gauge -..10 double 5
		j/s_sum{} "" updown 0..10 double 55
		j/s_count{} "{record}" counter 0..10 int 10
	`)
}

// What a ring overwrote before it could be sent is counted; the rest goes out.
func TestRowsLost(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings{Endpoint: startHTTP(t, r)}, time.Second})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i", Tables: []writer.Table{{Name: "t", Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}, Scalars: 4}}})
	wr.Counter("c").Inc()
	w.Run(2 * time.Second)
	w.flush()
	w.Run(20 * time.Second)
	w.flush()
	got := r.lines()
	lost := w.e.Stats().Lost[export.LostOverrun]
	if lost < 12 || int(lost)+len(got) != 22 {
		t.Errorf("22 rows, 8 in the ring: want 12 or more lost and all others sent, got %d lost, %d sent", lost, len(got))
	}
}

// Segments of one program share one schema.
func TestSchemaIsShared(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	for i := range 20 {
		wr := w.Writer(writer.Options{Job: "j", Instance: strconv.Itoa(i)})
		wr.Counter("a", writer.Label("k", "v")).Inc()
		wr.Stat("b").Record(1)
	}
	w.Writer(writer.Options{Job: "other", Instance: "x"}).Counter("a").Inc()
	w.Run(10 * time.Second)
	w.flush()
	if n := len(w.enc.schemas); n != 2 {
		t.Errorf("want 2 schemas for two programs, got %d", n)
	}
	if n := len(r.lines()); n != 20*6+1 {
		t.Errorf("want %d points, got %d", 20*6+1, n)
	}
}

// A series' own label that the source has too is exported_, as in PromQL: an attribute never comes twice.
func TestLabelConflict(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	w.Writer(writer.Options{Job: "j", Instance: "i", Labels: map[string]string{"zone": "a"}}).Counter("c", writer.Label("zone", "own")).Add(2)
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.lines(), `j/c{exported_zone=own,zone=a} "" counter 0..10 int 2`)
}

// 1,000 segments of 100 series, each with one new row of the 10 s tier: what an export interval costs.
func BenchmarkFlush(b *testing.B) {
	for _, p := range protocols {
		b.Run(p.protocol+"-"+p.compression, func(b *testing.B) {
			c := &sink{}
			w := newWorld(b, options{settings: settings{Endpoint: "http://127.0.0.1:1", Compression: p.compression}})
			real := w.enc.client.(*httpClient)
			c.zip = real.zip
			w.enc.client = c
			for i := range 1000 {
				wr := w.Writer(writer.Options{Job: "j" + strconv.Itoa(i/10), Instance: strconv.Itoa(i)})
				for k := range 90 {
					wr.Counter("requests", writer.Label("handler", "h"+strconv.Itoa(k)), writer.Unit("{request}")).Add(uint64(i*k) * 977)
				}
				for k := range 10 {
					wr.Histogram("duration", writer.Label("handler", "h"+strconv.Itoa(k)), writer.Unit("s"), writer.Buckets(0.001, 1)).Record(float64(i) / 1000)
				}
			}
			segments := w.Segments()
			w.polled = func() []export.Segment { return segments }
			w.flush()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				w.Run(10 * time.Second)
				w.Segments()
				b.StartTimer()
				w.flush()
			}
			b.ReportMetric(float64(c.points(w.e))/float64(w.e.Stats().Cycles), "points/op")
		})
	}
}

// sink is a receiver that costs nothing but the compression.
type sink struct{ transport }

func (s *sink) export(_ context.Context, body []byte) result {
	if s.zip != nil {
		s.zipped.Reset()
		s.zip.Reset(&s.zipped)
		s.zip.Write(body)
		s.zip.Close()
		return result{bytes: s.zipped.Len()}
	}
	return result{bytes: len(body)}
}

func (s *sink) points(e *export.Exporter) uint64 { return e.Stats().Points }
