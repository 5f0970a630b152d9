//go:build peers

package remotewrite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/peers"
	"github.com/shmts/shmts/writer"
)

// server starts one, waits until it is ready, and ends it with the test.
func server(t *testing.T, ready string, cmd *exec.Cmd) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		cmd.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(log)
			t.Logf("%s said:\n%.4000s", cmd.Path, said)
		}
	})
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := http.Get(ready)
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(r.Status)
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v", cmd.Path, err)
		}
	}
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// prometheus starts a real one that receives remote-write, and answers its URL.
func prometheus(t *testing.T, flags ...string) string {
	t.Helper()
	binary, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	a := address(t)
	server(t, "http://"+a+"/-/ready", exec.Command(binary, append([]string{"--config.file=/dev/null", "--storage.tsdb.path=" + t.TempDir(), "--web.listen-address=" + a,
		"--web.enable-remote-write-receiver", "--log.level=warn"}, flags...)...))
	return "http://" + a
}

// victoria starts a real VictoriaMetrics, of Debian's package.
func victoria(t *testing.T, flags ...string) string {
	t.Helper()
	binary, err := exec.LookPath("victoria-metrics")
	if err != nil {
		t.Skip("VictoriaMetrics is not installed: apt-get install victoria-metrics")
	}
	a := address(t)
	server(t, "http://"+a+"/health", exec.Command(binary, append([]string{"-storageDataPath=" + t.TempDir(), "-httpListenAddr=" + a, "-retentionPeriod=1y"}, flags...)...))
	return "http://" + a
}

// lived is a world of the last half hour, in which things were recorded; known is what.
type lived struct {
	*world
	exporters []*export.Exporter
	known     known
}

// known is what was recorded by when, by arithmetic alone: values at the end of each second since the beginning, of the source app.
type known struct {
	total, steady []float64 // of a counter that is uneven, and of one of 5 a second
	values        [][]float64
}

const length = 30 * time.Minute

// live lets half an hour pass: app lives all the time, and is started anew after 20 minutes; 45 s long lives a VM; something is retired, and
// something unset. What there is is exported each so often.
func live(t *testing.T, step, each time.Duration, begin func(w *world) []*export.Exporter) *lived {
	w := newWorld(t, Options{}, "")
	w.Epoch = time.Now().Add(-length - time.Minute).Truncate(time.Minute).UnixNano()
	w.step = step
	l := &lived{world: w, exporters: begin(w)}
	labels := map[string]string{"zone": "a"}
	app := w.Writer(writer.Options{Job: "app", Instance: "1", Labels: labels, Attributes: map[string]string{"service.version": "1.2"}})
	var vm *writer.Writer
	uneven, steady := app.Counter("uneven"), app.Counter("steady")
	gauge, stat, hist := app.Gauge("level"), app.Stat("wait", writer.Unit("s"), writer.NonNegative()), app.Histogram("latency", writer.Unit("s"), writer.Buckets(0.001, 4))
	gone := app.Counter("gone")
	total, even := 0.0, 0.0
	for s := range int(length / time.Second) {
		if s == 20*60 {
			app.Close()
			w.Writers = slices.DeleteFunc(w.Writers, func(x *writer.Writer) bool { return x == app })
			app = w.Writer(writer.Options{Job: "app", Instance: "1", Labels: labels, Attributes: map[string]string{"service.version": "1.3"}})
			uneven, steady = app.Counter("uneven"), app.Counter("steady")
			gauge, stat, hist = app.Gauge("level"), app.Stat("wait", writer.Unit("s"), writer.NonNegative()), app.Histogram("latency", writer.Unit("s"), writer.Buckets(0.001, 4))
		}
		var now []float64
		for k := range 1 + s%5 {
			now = append(now, 0.002*float64(1+(s*7+k*13)%900))
		}
		for _, v := range now {
			stat.Record(v)
			hist.Record(v)
		}
		l.known.values = append(l.known.values, now)
		uneven.Add(uint64(s % 11))
		steady.Add(5)
		total, even = total+float64(s%11), even+5
		l.known.total, l.known.steady = append(l.known.total, total), append(l.known.steady, even)
		gauge.Set(float64(s % 100))
		switch s {
		case 5 * 60:
			vm = w.Writer(writer.Options{Job: "vm", Instance: "short"})
			vm.Counter("work").Add(1000)
			vm.Histogram("latency", writer.Unit("s"), writer.Buckets(0.001, 4)).Record(0.5)
		case 5*60 + 45:
			vm.Counter("work").Add(234)
			vm.Close()
			w.Writers = slices.DeleteFunc(w.Writers, func(x *writer.Writer) bool { return x == vm })
		case 10 * 60:
			gone.Retire()
		}
		w.Run(time.Second)
		if w.Now%each == 0 {
			for _, w.e = range l.exporters {
				w.flush()
			}
		}
	}
	return l
}

// clean takes from lines what a store does not keep.
var clean = regexp.MustCompile(` hint \d| since \S+`)

func cleaned(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = clean.ReplaceAllString(l, "")
		// VictoriaMetrics rounds to 15 decimal digits or so.
		if of := strings.Split(out[i], " "); len(of) == 3 {
			if f, err := strconv.ParseFloat(of[1], 64); err == nil {
				out[i] = fmt.Sprintf("%s %.12g %s", of[0], f, of[2])
			}
		}
	}
	slices.Sort(out)
	return out
}

// differ says how what a store answers differs from what was sent.
func differ(t *testing.T, got, want []string) {
	t.Helper()
	got, want = cleaned(got), cleaned(want)
	if slices.Equal(got, want) {
		return
	}
	n := 0
	for _, l := range want {
		if _, ok := slices.BinarySearch(got, l); !ok && n < 10 {
			t.Errorf("missing: %s", l)
			n++
		}
	}
	n = 0
	for _, l := range got {
		if _, ok := slices.BinarySearch(want, l); !ok && n < 10 {
			t.Errorf("more: %s", l)
			n++
		}
	}
	t.Errorf("want the %d samples that were sent, got %d", len(want), len(got))
}

// remoteRead is every sample that a Prometheus holds, staleness markers included, as lines.
func remoteRead(t *testing.T, base string) (lines []string) {
	t.Helper()
	req := prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: time.Now().Add(-2 * time.Hour).UnixMilli(), EndTimestampMs: time.Now().Add(time.Hour).UnixMilli(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "job", Value: "app|vm"}}}}}
	body, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(base+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err = io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, body)
	}
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	var resp prompb.ReadResponse
	if err == nil {
		err = resp.Unmarshal(body)
	}
	if err != nil {
		t.Fatal(err)
	}
	rcv := &receiver{t: t}
	b := labels.NewScratchBuilder(8)
	for _, ts := range resp.Results[0].Timeseries {
		name := rcv.series(ts.ToLabels(&b, nil), sorted(ts.Labels))
		for _, s := range ts.Samples {
			lines = append(lines, line(name, s.Timestamp, 0, s.Value))
		}
		for _, h := range ts.Histograms {
			lines = append(lines, histogramLine(t, name, h.Timestamp, 0, h.ToIntHistogram()))
		}
	}
	return lines
}

func sorted(ls []prompb.Label) []prompb.Label {
	out := slices.Clone(ls)
	slices.SortFunc(out, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// exported is every sample that a VictoriaMetrics holds.
func exported(t *testing.T, base string) (lines []string) {
	t.Helper()
	http.Get(base + "/internal/force_flush")
	r, err := http.Get(base + "/api/v1/export?" + url.Values{"match[]": {`{job=~"app|vm"}`}, "reduce_mem_usage": {"1"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	rcv := &receiver{t: t}
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		var x struct {
			Metric     map[string]string
			Values     []any
			Timestamps []int64
		}
		if err := json.Unmarshal(s.Bytes(), &x); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		ls := labels.FromMap(x.Metric)
		var pairs []prompb.Label
		ls.Range(func(l labels.Label) { pairs = append(pairs, prompb.Label{Name: l.Name, Value: l.Value}) })
		name := rcv.series(ls, pairs)
		for i, v := range x.Values {
			f, ok := v.(float64)
			if !ok {
				f = math.Float64frombits(staleNaN)
			}
			lines = append(lines, line(name, x.Timestamps[i], 0, f))
		}
	}
	return lines
}

func writeURL(base string) string { return base + "/api/v1/write" }

// noneRefused holds a destination's counts against what it sent.
func noneRefused(t *testing.T, e *export.Exporter) {
	t.Helper()
	if s := e.Stats(); len(s.Refused) != 0 || s.Requests[export.OutcomeRefused]+s.Requests[export.OutcomeRetry]+s.Requests[export.OutcomePartial] != 0 || s.Points == 0 {
		t.Errorf("want everything taken, got %+v", s)
	}
}

// A real Prometheus holds afterwards what was sent: series by series, bucket by bucket, staleness included; by 2.0, by 1.0, with and without
// its storage of start timestamps.
func TestPrometheusHoldsIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		message string
		flags   []string
		version string
	}{
		{"2.0", MessageV2, nil, "2.0"},
		{"2.0 with starts", MessageV2, []string{"--enable-feature=st-storage,use-start-timestamps"}, "2.0"},
		{"1.0", MessageV1, nil, "1.0"},
		{"fall back", MessageV2, []string{"--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest"}, "1.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := prometheus(t, c.flags...)
			sent := &receiver{}
			l := live(t, 10*time.Second, time.Minute, func(w *world) []*export.Exporter {
				return []*export.Exporter{w.exporter(Options{Message: c.message}, start(t, sent)), w.exporter(Options{Message: c.message}, writeURL(base))}
			})
			if l.enc.Version() != c.version {
				t.Errorf("want %s spoken, got %s", c.version, l.enc.Version())
			}
			noneRefused(t, l.exporters[1])
			differ(t, remoteRead(t, base), sent.got())
		})
	}
}

// A real VictoriaMetrics, which takes 1.0 and no native histograms, holds it too, as classic ones.
func TestVictoriaMetricsHoldsIt(t *testing.T) {
	base := victoria(t)
	sent := &receiver{only1: true}
	l := live(t, 10*time.Second, time.Minute, func(w *world) []*export.Exporter {
		return []*export.Exporter{w.exporter(Options{Classic: true}, start(t, sent)), w.exporter(Options{Classic: true}, writeURL(base))}
	})
	if l.enc.Version() != "1.0" {
		t.Errorf("want 1.0 spoken, got %s", l.enc.Version())
	}
	noneRefused(t, l.exporters[1])
	differ(t, exported(t, base), sent.got())
}

// Two daemons at once, one of which is started anew in between: a receiver takes both, and holds what one of them sends.
func TestTwoDaemons(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     Options
		start func(*testing.T) string
		all   func(*testing.T, string) []string
	}{
		{"Prometheus, 2.0", Options{}, func(t *testing.T) string { return prometheus(t) }, remoteRead},
		{"Prometheus, 1.0", Options{Message: MessageV1}, func(t *testing.T) string { return prometheus(t) }, remoteRead},
		{"VictoriaMetrics", Options{Classic: true}, func(t *testing.T) string { return victoria(t, "-dedup.minScrapeInterval=1ms") }, exported},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := c.start(t)
			sent := &receiver{only1: c.o.Classic}
			l := live(t, 10*time.Second, 10*time.Second, func(w *world) []*export.Exporter {
				return []*export.Exporter{w.exporter(c.o, start(t, sent)), w.exporter(c.o, writeURL(base)), w.exporter(c.o, writeURL(base))}
			})
			for _, e := range l.exporters[1:] {
				// A 0 in front of a first row, and a last row in front of its end, are older than what the other one has sent.
				s := e.Stats()
				refused := s.Refused[RefusedOutOfOrder]
				if delete(s.Refused, RefusedOutOfOrder); len(s.Refused) != 0 || s.Points == 0 || refused > 100 || s.Requests[export.OutcomeRetry] > 0 {
					t.Errorf("want all but that taken, got %+v, %d out of order", s, refused)
				}
			}
			differ(t, c.all(t, base), sent.got())
		})
	}
}

// query is an instant query's one value at a second of the world.
func (l *lived) query(t *testing.T, base, q string, second int) float64 {
	t.Helper()
	at := float64(l.Epoch)/1e9 + float64(second)
	r, err := http.Get(base + "/api/v1/query?" + url.Values{"query": {q}, "time": {strconv.FormatFloat(at, 'f', 3, 64)}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var a struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil || len(a.Data.Result) != 1 {
		t.Errorf("%s: want one series, got %+v, %v", q, a, err)
		return math.NaN()
	}
	f, err := strconv.ParseFloat(a.Data.Result[0].Value[1].(string), 64)
	if err != nil {
		t.Error(err)
	}
	return f
}

// What a receiver makes of rollups of 10 s and of 60 s: the queries of docs/export.md, and what was recorded in fact.
func TestRollups(t *testing.T) {
	for _, step := range []time.Duration{10 * time.Second, time.Minute} {
		for _, message := range []string{MessageV2, MessageV1} {
			t.Run(fmt.Sprint(step, " ", message), func(t *testing.T) {
				base := prometheus(t)
				l := live(t, step, time.Minute, func(w *world) []*export.Exporter {
					return []*export.Exporter{w.exporter(Options{Message: message}, writeURL(base))}
				})
				noneRefused(t, l.exporters[0])
				const from, to = 5 * 60, 15 * 60
				var all []float64
				for _, v := range l.known.values[from:to] {
					all = append(all, v...)
				}
				slices.Sort(all)
				sum := 0.0
				for _, v := range all {
					sum += v
				}
				last := l.known.values[to-1]
				for _, c := range []struct {
					q    string
					want float64
					near float64 // how far off, as a share
				}{
					{`uneven_total`, l.known.total[to-1], 0},
					{`uneven_total - uneven_total offset 10m`, l.known.total[to-1] - l.known.total[from-1], 0},
					{`increase(uneven_total[10m] anchored)`, l.known.total[to-1] - l.known.total[from-1], 0},
					{`rate(steady_total[10m])`, 5, 1e-12},
					{`increase(steady_total[10m])`, 3000, 1e-12},
					{`wait_seconds`, last[len(last)-1], 0},
					{`min_over_time(wait_seconds_min[10m])`, all[0], 0},
					{`max_over_time(wait_seconds_max[10m])`, all[len(all)-1], 0},
					{`increase(wait_seconds_count[10m] anchored)`, float64(len(all)), 0},
					{`increase(wait_seconds_sum[10m] anchored)`, sum, 1e-12},
					{`increase(wait_seconds_sum[10m] anchored) / increase(wait_seconds_count[10m] anchored)`, sum / float64(len(all)), 1e-12},
					{`histogram_count(latency_seconds{job="app"} - latency_seconds{job="app"} offset 10m)`, float64(len(all)), 0},
					{`histogram_sum(latency_seconds{job="app"} - latency_seconds{job="app"} offset 10m)`, sum, 1e-12},
					{`histogram_quantile(0.5, rate(latency_seconds{job="app"}[10m]))`, all[len(all)/2], 0.0443},
					{`histogram_quantile(0.99, rate(latency_seconds{job="app"}[10m]))`, all[len(all)*99/100], 0.0443},
				} {
					if got := l.query(t, base, c.q, to); !(math.Abs(got-c.want) <= c.near*math.Abs(c.want)) {
						t.Errorf("%s: want %v, got %v", c.q, c.want, got)
					}
				}
				// Across the start of a new process: what was counted before its last row, and all since.
				if got, want := l.query(t, base, `increase(steady_total[10m] anchored)`, 25*60), 3000.0; got != want {
					t.Errorf("over a restart: want %v, got %v", want, got)
				}
				// A life of 45 s, shorter than a step perhaps: all that it counted.
				if got, want := l.query(t, base, `increase(work_total[10m] anchored)`, 10*60), 1234.0; got != want {
					t.Errorf("a short life: want %v, got %v", want, got)
				}
				if got := l.query(t, base, `count(work_total) or vector(0)`, 5*60+47); got != 0 {
					t.Errorf("after the end: want nothing, got %v", got)
				}
				if got := l.query(t, base, `count(gone_total) or vector(0)`, 11*60); got != 0 {
					t.Errorf("after a series was retired: want nothing, got %v", got)
				}
			})
		}
	}
}

// Start timestamps alone, where Prometheus looks at them, and the 0 at the start together count a first increase once.
func TestStartTimestamps(t *testing.T) {
	base := prometheus(t, "--enable-feature=st-storage,use-start-timestamps")
	l := live(t, time.Minute, time.Minute, func(w *world) []*export.Exporter { return []*export.Exporter{w.exporter(Options{}, writeURL(base))} })
	for _, q := range []string{`increase(work_total[10m])`, `increase(work_total[10m] anchored)`} {
		got := l.query(t, base, q, 10*60)
		t.Logf("%s: %v", q, got)
		if got < 1234 || got > 1234*1.6 {
			t.Errorf("%s: want 1234, or what extrapolation makes of it, got %v", q, got)
		}
	}
	if got := l.query(t, base, `rate(steady_total[10m])`, 15*60); math.Abs(got-5) > 1e-9 {
		t.Errorf("want 5 a second, got %v", got)
	}
}

// A real Prometheus keeps the exemplars that it is sent.
func TestPrometheusKeepsExemplars(t *testing.T) {
	for _, message := range []string{MessageV2, MessageV1} {
		base := prometheus(t, "--enable-feature=exemplar-storage")
		w := newWorld(t, Options{}, "")
		w.Epoch = time.Now().Add(-10 * time.Minute).Truncate(time.Minute).UnixNano()
		e := w.exporter(Options{Message: message, Exemplars: true}, writeURL(base))
		wr := w.Writer(writer.Options{Job: "app", Instance: "1"})
		h := wr.Histogram("latency", writer.Unit("s"), writer.Buckets(0.001, 4))
		for i := range 20 {
			h.RecordExemplar(0.1*float64(i+1), writer.Exemplar{TraceID: [16]byte{byte(i + 1)}, SpanID: [8]byte{1}, Time: w.Time()})
			w.Run(10 * time.Second)
			w.flush()
		}
		noneRefused(t, e)
		r, err := http.Get(base + "/api/v1/query_exemplars?" + url.Values{"query": {"latency_seconds"}, "start": {fmt.Sprint(time.Now().Unix() - 3600)}, "end": {fmt.Sprint(time.Now().Unix())}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		var a struct {
			Data []struct {
				Exemplars []struct {
					Labels map[string]string
					Value  string
				}
			}
		}
		err = json.NewDecoder(r.Body).Decode(&a)
		r.Body.Close()
		if err != nil || len(a.Data) != 1 || len(a.Data[0].Exemplars) != 20 {
			t.Fatalf("%s: want 20 exemplars of one series, got %+v, %v", message, a, err)
		}
		for i, x := range a.Data[0].Exemplars {
			if want := fmt.Sprintf("%02x%030d", i+1, 0); x.Labels["trace_id"] != want || x.Labels["span_id"] != "0100000000000000" || x.Value != strconv.FormatFloat(0.1*float64(i+1), 'f', -1, 64) {
				t.Errorf("exemplar %d: got %+v", i, x)
			}
		}
	}
}
