package remotewrite

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/writer"
)

// all is what comes of exporttest.RecordAll after ten seconds, with "since 0" where 2.0 has it. LABELS are instance=i-1,job=svc.
const all = `
	target_info{host_name=h,instance=i-1,job=svc,zone=a} 1 @10
	rx_packets_total{instance=i-1,job=svc,queue=0,zone=a} 0 @0
	rx_packets_total{instance=i-1,job=svc,queue=0,zone=a} 7 @10 since 0
	rx_packets_total{instance=i-1,job=svc,queue=1,zone=a} 0 @0
	rx_packets_total{instance=i-1,job=svc,queue=1,zone=a} 9.223372036854776e+18 @10 since 0
	cpu_seconds_total{Zone=own,exported_job=own,instance=i-1,job=svc,zone=a} 0 @0
	cpu_seconds_total{Zone=own,exported_job=own,instance=i-1,job=svc,zone=a} 2.5 @10 since 0
	open{instance=i-1,job=svc,zone=a} -3 @10
	temperature_celsius{instance=i-1,job=svc,zone=a} 21.5 @10
	level{instance=i-1,job=svc,zone=a} -7 @10
	depth{instance=i-1,job=svc,zone=a} 1.5 @10
	depth_min{instance=i-1,job=svc,zone=a} 1.5 @10
	depth_max{instance=i-1,job=svc,zone=a} 4 @10
	depth_sum{instance=i-1,job=svc,zone=a} 0 @0
	depth_sum{instance=i-1,job=svc,zone=a} 5.5 @10 since 0
	depth_count{instance=i-1,job=svc,zone=a} 0 @0
	depth_count{instance=i-1,job=svc,zone=a} 2 @10 since 0
	queue_wait_seconds{instance=i-1,job=svc,zone=a} -0.5 @10
	queue_wait_seconds_min{instance=i-1,job=svc,zone=a} -0.5 @10
	queue_wait_seconds_max{instance=i-1,job=svc,zone=a} -0.5 @10
	queue_wait_seconds_sum{instance=i-1,job=svc,zone=a} -0.5 @10
	queue_wait_seconds_count{instance=i-1,job=svc,zone=a} 0 @0
	queue_wait_seconds_count{instance=i-1,job=svc,zone=a} 1 @10 since 0
	silent_sum{instance=i-1,job=svc,zone=a} 0 @10
	silent_count{instance=i-1,job=svc,zone=a} 0 @0
	silent_count{instance=i-1,job=svc,zone=a} 0 @10 since 0
	latency_seconds{instance=i-1,job=svc,zone=a} histogram count 0 sum 0 schema 3 zero 0 <=0.25 hint 1 @0
	latency_seconds{instance=i-1,job=svc,zone=a} histogram count 7 sum 10.375 schema 3 zero 3 <=0.25 (0.458502,0.5]:2 (0.917004,1]:1 (1,1.090507]:1 @10 since 0
	size_bytes{instance=i-1,job=svc,zone=a} histogram count 0 sum 0 schema 0 zero 0 <=64 hint 1 @0
	size_bytes{instance=i-1,job=svc,zone=a} histogram count 2 sum 200 schema 0 zero 0 <=64 (64,128]:2 @10 since 0
	empty{instance=i-1,job=svc,zone=a} histogram count 0 sum 0 schema 3 zero 0 <=0.25 hint 1 @0
	empty{instance=i-1,job=svc,zone=a} histogram count 0 sum 0 schema 3 zero 0 <=0.25 @10 since 0
`

var digits = regexp.MustCompile(`(\d\.\d{6})\d+`)

// rounded cuts bounds of buckets.
func rounded(lines []string) []string {
	for i := range lines {
		if strings.Contains(lines[i], "histogram") {
			lines[i] = digits.ReplaceAllString(lines[i], "$1")
		}
	}
	return lines
}

func asV1(text string) string { return regexp.MustCompile(` since \S+`).ReplaceAllString(text, "") }

// Every kind, over both protocols, value by value and bucket by bucket, with PromQL's names; then all of it again in requests of a few
// points over several shards.
func TestValues(t *testing.T) {
	for _, message := range []string{MessageV2, MessageV1, "fall back"} {
		for _, most := range []int{0, 3} {
			t.Run(fmt.Sprint(message, " ", most), func(t *testing.T) {
				r := &receiver{only1: message == "fall back"}
				o := Options{Message: message, MaxSamples: most}
				if message == "fall back" {
					o.Message = ""
				}
				o.HTTP.Header = map[string]string{"X-Scope-OrgID": "t"}
				w := newWorld(t, o, start(t, r))
				exporttest.RecordAll(w.Writer(writer.Options{Job: "svc", Instance: "i-1", Labels: map[string]string{"zone": "a"}, Attributes: map[string]string{"host.name": "h"}}))
				w.Run(10 * time.Second)
				w.flush()
				want := all
				if message != MessageV2 {
					want = asV1(all)
				}
				exporttest.SameLines(t, rounded(r.got()), want)
				s := w.e.Stats()
				if n := len(exporttest.Lines(want)); s.Points != uint64(n) || len(s.Refused) != 0 || s.Bytes == 0 {
					t.Errorf("want %d points counted, got %+v", n, s)
				}
				if most > 0 && r.requests() < 5 {
					t.Errorf("want several requests, got %d", r.requests())
				}
				for _, h := range r.headers {
					if h.Get("X-Scope-OrgID") != "t" {
						t.Errorf("want the headers that were given, got %v", h)
					}
				}
				for family, want := range map[string]string{
					"rx_packets_total": `counter "packets" ""`, "cpu_seconds_total": `counter "" "seconds"`, "latency_seconds": `histogram "" "seconds"`,
					"depth_max": `gauge "" ""`, "size_bytes": `histogram "" "bytes"`, "target_info": `gauge "Resource attributes of the source." ""`,
				} {
					if got := r.metadata[family]; got != want {
						t.Errorf("metadata of %s: want %s, got %s", family, want, got)
					}
				}
				w.flush()
				if n := len(r.got()); n != len(exporttest.Lines(want)) {
					t.Errorf("nothing new: want nothing more sent, got %d lines", n)
				}
			})
		}
	}
}

// For receivers without native histograms they are classic ones: every le, whether it counted something or not.
func TestClassic(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{Classic: true, Message: MessageV1}, start(t, r))
	wr := w.Writer(writer.Options{Job: "svc", Instance: "i"})
	h := wr.Histogram("latency", writer.Unit("s"), writer.Help("how long"), writer.Buckets(0.25, 1), writer.Scale(0), writer.Label("le", "own"))
	for _, v := range []float64{0.1, 0.3, 0.5, 0.7, 8} {
		h.Record(v)
	}
	w.Run(10 * time.Second)
	w.flush()
	w.Run(time.Second)
	wr.Close()
	w.flush()
	exporttest.SameLines(t, rounded(r.got()), `
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.25} 0 @0
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.5} 0 @0
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=1.0} 0 @0
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=+Inf} 0 @0
		latency_seconds_sum{exported_le=own,instance=i,job=svc} 0 @0
		latency_seconds_count{exported_le=own,instance=i,job=svc} 0 @0
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.25} 1 @10
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.5} 3 @10
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=1.0} 4 @10
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=+Inf} 5 @10
		latency_seconds_sum{exported_le=own,instance=i,job=svc} 9.6 @10
		latency_seconds_count{exported_le=own,instance=i,job=svc} 5 @10
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.25} 1 @11
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.5} 3 @11
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=1.0} 4 @11
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=+Inf} 5 @11
		latency_seconds_sum{exported_le=own,instance=i,job=svc} 9.6 @11
		latency_seconds_count{exported_le=own,instance=i,job=svc} 5 @11
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.25} stale @11.001
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=0.5} stale @11.001
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=1.0} stale @11.001
		latency_seconds_bucket{exported_le=own,instance=i,job=svc,le=+Inf} stale @11.001
		latency_seconds_sum{exported_le=own,instance=i,job=svc} stale @11.001
		latency_seconds_count{exported_le=own,instance=i,job=svc} stale @11.001
	`)
	if got := r.metadata["latency_seconds"]; got != `histogram "how long" "seconds"` || len(r.metadata) != 1 {
		t.Errorf("want one family, got %v", r.metadata)
	}
}

// A life of three seconds arrives whole: 0 at its start, its last row, the end of every series that had a value.
func TestShortLife(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{}, start(t, r))
	wr := w.Writer(writer.Options{Job: "vm", Instance: "a", Attributes: map[string]string{"os": "x"}})
	wr.Counter("c").Add(5)
	wr.Gauge("g").Set(1)
	wr.Gauge("never")
	wr.Stat("silent")
	wr.Histogram("h", writer.Buckets(1, 2), writer.Scale(0)).Record(1.5)
	w.Run(3 * time.Second)
	wr.Close()
	w.flush()
	w.flush()
	exporttest.SameLines(t, r.got(), `
		target_info{instance=a,job=vm,os=x} 1 @3
		c_total{instance=a,job=vm} 0 @0
		c_total{instance=a,job=vm} 5 @3 since 0
		g{instance=a,job=vm} 1 @3
		silent_sum{instance=a,job=vm} 0 @3
		silent_count{instance=a,job=vm} 0 @0
		silent_count{instance=a,job=vm} 0 @3 since 0
		h{instance=a,job=vm} histogram count 0 sum 0 schema 0 zero 0 <=1 hint 1 @0
		h{instance=a,job=vm} histogram count 1 sum 1.5 schema 0 zero 0 <=1 (1,2]:1 @3 since 0
		target_info{instance=a,job=vm,os=x} stale @3.001
		c_total{instance=a,job=vm} stale @3.001
		g{instance=a,job=vm} stale @3.001
		silent_sum{instance=a,job=vm} stale @3.001
		silent_count{instance=a,job=vm} stale @3.001
		h{instance=a,job=vm} histogram stale @3.001
	`)
}

// Where a value ends while its process goes on: a retired series, a gauge that is unset, a stat's window without a record.
func TestEnds(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{}, start(t, r))
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c := wr.Counter("c")
	c.Add(1)
	st := wr.Stat("s")
	st.Record(3)
	w.Run(10 * time.Second)
	w.flush()
	r.lines = nil
	c.Retire()
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.got(), `
		c_total{instance=i,job=j} stale @20
		s{instance=i,job=j} 3 @20
		s_min{instance=i,job=j} stale @20
		s_max{instance=i,job=j} stale @20
		s_sum{instance=i,job=j} 3 @20
		s_count{instance=i,job=j} 1 @20 since 0
	`)
	r.lines = nil
	st.Record(-4)
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.got(), `
		s{instance=i,job=j} -4 @30
		s_min{instance=i,job=j} -4 @30
		s_max{instance=i,job=j} -4 @30
		s_sum{instance=i,job=j} -1 @30
		s_count{instance=i,job=j} 2 @30 since 0
	`)
}

// A successor of the same name begins at 0 behind its predecessor's end; where they overlap no sample is older than one that was sent.
func TestSuccessor(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{}, start(t, r))
	first := w.Writer(writer.Options{Job: "j", Instance: "i"})
	first.Counter("c").Add(9)
	w.Run(10 * time.Second)
	w.flush()
	w.Run(time.Second)
	first.Close()
	w.Run(4 * time.Second)
	second := w.Writer(writer.Options{Job: "j", Instance: "i"})
	second.Counter("c").Add(20)
	w.Run(5 * time.Second)
	w.flush()
	w.Run(time.Second)
	second.Counter("late").Add(1)
	w.Run(9 * time.Second)
	w.flush()
	want := exporttest.Lines(`
		c_total{instance=i,job=j} 0 @0
		c_total{instance=i,job=j} 9 @10 since 0
		c_total{instance=i,job=j} 9 @11 since 0
		c_total{instance=i,job=j} stale @11.001
		c_total{instance=i,job=j} 0 @15
		c_total{instance=i,job=j} 20 @20 since 15
		c_total{instance=i,job=j} 20 @30 since 15
		late_total{instance=i,job=j} 0 @21
		late_total{instance=i,job=j} 1 @30 since 21
	`)
	got := r.got()
	if !slices.Equal(got, want) {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// Two rows of one millisecond, the second of which is the last: it goes out a millisecond later, and the end behind it. Rows of a time
// that was sent already, since the wall clock was stepped back, are left out and counted.
func TestTimesGoOn(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{}, start(t, r))
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	c := wr.Counter("c")
	c.Add(1)
	w.Run(10 * time.Second)
	w.flush()
	w.Stepped = -25 * time.Second
	w.Run(20 * time.Second)
	w.flush()
	w.Run(10 * time.Second)
	c.Add(1)
	wr.Close()
	w.flush()
	exporttest.SameLines(t, r.got(), `
		c_total{instance=i,job=j} 0 @0
		c_total{instance=i,job=j} 1 @10 since 0
		c_total{instance=i,job=j} 1 @15 since 0
		c_total{instance=i,job=j} 2 @15.001 since 0
		c_total{instance=i,job=j} stale @15.002
	`)
	if s := w.e.Stats(); s.Refused[RefusedOutOfOrder] == 0 {
		t.Errorf("want what was left out counted, got %+v", s)
	}
}

func TestRelabel(t *testing.T) {
	rules, err := relabel.Parse([]byte(`
- source_labels: [__name__]
  regex: (.*)_(min|max)
  action: drop
- source_labels: [instance]
  regex: (.*):.*
  target_label: host
- target_label: cluster
  replacement: c-1
- regex: zone
  action: labeldrop
- source_labels: [instance, __name__]
  regex: b:1;target_info
  action: drop
`))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
	w := newWorld(t, Options{Rules: func() *relabel.Rules { return rules }}, start(t, r))
	for _, i := range []string{"a:1", "b:1"} {
		wr := w.Writer(writer.Options{Job: "j", Instance: i, Labels: map[string]string{"zone": "z"}, Attributes: map[string]string{"os": "x"}})
		wr.Stat("s").Record(1)
		wr.Gauge("g", writer.Label("cluster", "own")).Set(2)
	}
	w.Run(10 * time.Second)
	w.flush()
	var want string
	for _, i := range []string{"a", "b"} {
		of := fmt.Sprintf("{cluster=c-1,host=%s,instance=%s:1,job=j} ", i, i)
		want += "s" + of + "1 @10\ns_sum" + of + "1 @10\ns_count" + of + "0 @0\ns_count" + of + "1 @10 since 0\ng" + of + "2 @10\n"
	}
	exporttest.SameLines(t, r.got(), want+"target_info{cluster=c-1,host=a,instance=a:1,job=j,os=x} 1 @10")
	// Other rules hold from the next row on.
	if rules, err = relabel.Parse([]byte("- {source_labels: [__name__, instance], regex: 'g;a:1', action: keep}")); err != nil {
		t.Fatal(err)
	}
	r.lines = nil
	w.Run(10 * time.Second)
	w.flush()
	exporttest.SameLines(t, r.got(), "g{cluster=own,instance=a:1,job=j,zone=z} 2 @20")
}

// The processes of one program share a schema, also behind rules that look at names alone.
func TestSchemaIsShared(t *testing.T) {
	rules, err := relabel.Parse([]byte("- source_labels: [__name__]\n  regex: x\n  action: drop\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
	w := newWorld(t, Options{Rules: func() *relabel.Rules { return rules }}, start(t, r))
	for i := range 20 {
		exporttest.RecordAll(w.Writer(writer.Options{Job: "j", Instance: fmt.Sprint(i)}))
	}
	w.Run(10 * time.Second)
	w.flush()
	if n := len(w.enc.schemas); n != 1 {
		t.Errorf("want one schema, got %d", n)
	}
	if n := len(r.got()); n != 20*31 {
		t.Errorf("want %d lines, got %d", 20*31, n)
	}
}

// Order is kept for each series, however many shards there are, and more work has more of them.
func TestShards(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, Options{MaxSamples: 50, MaxShards: 4}, start(t, r))
	for i := range 10 {
		wr := w.Writer(writer.Options{Job: "j", Instance: fmt.Sprint(i)})
		for k := range 40 {
			wr.Counter("c", writer.Label("k", fmt.Sprint(k))).Add(1)
		}
	}
	w.Run(300 * time.Second)
	w.flush()
	if got, want := len(r.got()), 10*40*31; got != want {
		t.Errorf("want %d samples, got %d", want, got)
	}
	last := map[string]float64{}
	for _, l := range r.got() {
		var at float64
		name, rest, _ := strings.Cut(l, " ")
		fmt.Sscanf(rest[strings.Index(rest, "@")+1:], "%f", &at)
		if before, ok := last[name]; ok && at <= before {
			t.Fatalf("%s: want a time after %v, got %v", name, before, at)
		}
		last[name] = at
	}
	if w.enc.used != 4 && w.enc.used != 2 { // the last batch is a small one
		t.Errorf("want more shards for more work, got %d", w.enc.used)
	}
	for _, lines := range r.each {
		if len(lines) > 70 { // a row is not cut for a few
			t.Errorf("want some 50 samples a request at most, got %d", len(lines))
		}
	}
	for range 3 {
		w.Run(10 * time.Second)
		r.first = nil
		w.enc.o.MaxSamples = 1 << 20
		w.flush()
	}
	if w.enc.used != 1 {
		t.Errorf("want one shard for little work, got %d", w.enc.used)
	}
}

// Exemplars go out with the sample behind them, with their traces' ids as OpenMetrics names them; of a classic histogram with the bucket
// that they are in.
func TestExemplars(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Exemplars: true}, `
			c_total{instance=i,job=j} {span_id="0200000000000000", trace_id="01000000000000000000000000000000"} 3 @4
			h{instance=i,job=j} {trace_id="03000000000000000000000000000000"} 1.5 @5
			h{instance=i,job=j} {trace_id="04000000000000000000000000000000"} 9 @6`},
		{Options{Exemplars: true, Message: MessageV1, Classic: true}, `
			c_total{instance=i,job=j} {span_id="0200000000000000", trace_id="01000000000000000000000000000000"} 3 @4
			h_bucket{instance=i,job=j,le=2.0} {trace_id="03000000000000000000000000000000"} 1.5 @5
			h_bucket{instance=i,job=j,le=+Inf} {trace_id="04000000000000000000000000000000"} 9 @6`},
		{Options{}, ""},
	} {
		r := &receiver{}
		w := newWorld(t, c.o, start(t, r))
		wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
		at := func(s int64) time.Time { return time.Unix(0, epoch).Add(time.Duration(s) * time.Second) }
		h := wr.Histogram("h", writer.Buckets(1, 4), writer.Scale(0))
		cn := wr.Counter("c")
		w.Run(time.Second)
		cn.AddExemplar(3, writer.Exemplar{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Time: at(4)})
		h.RecordExemplar(1.5, writer.Exemplar{TraceID: [16]byte{3}, Time: at(5)})
		h.RecordExemplar(9, writer.Exemplar{TraceID: [16]byte{4}, Time: at(6)})
		w.Run(9 * time.Second)
		w.flush()
		w.Run(10 * time.Second)
		w.flush()
		if c.want == "" {
			if len(r.traces) > 0 {
				t.Errorf("want none sent where none are wanted, got %q", r.traces)
			}
			continue
		}
		exporttest.SameLines(t, r.traces, c.want)
	}
}
