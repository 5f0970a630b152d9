//go:build peers

package history_test

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// recording is forty minutes of real writers, under a clock of the test's: some live through it, one is started anew, some live for
// seconds, one is killed, one stalls. What the register saw of them is kept as the samples that a Prometheus would be sent.
type recording struct {
	*host
	begin int64 // unix s
	rnd   *rand.Rand

	floats map[string]*floatSeries
	hists  map[string]*histSeries
	seen   map[string]*taken // by segment id
}

type floatSeries struct {
	labels labels.Labels
	times  []int64
	values []float64
}

type histSeries struct {
	labels labels.Labels
	times  []int64
	values []*histogram.FloatHistogram
}

// taken is what was taken of a segment.
type taken struct {
	next [2]uint64       // row, of each table
	live map[string]live // what has a value, by its labels
	end  bool
}

type live struct {
	hist  bool
	table int
	again bool // in the row at hand
}

const recordedSeconds = 2400

// prometheusNames are those of what is recorded, by OpenTelemetry's rules for Prometheus.
var prometheusNames = map[string]string{
	"http.requests": "http_requests_total", "cpu.time": "cpu_time_seconds_total", "connections": "connections", "temperature": "temperature_celsius",
	"queue.depth": "queue_depth", "batch.size": "batch_size", "latency": "latency_seconds", "rx.size": "rx_size_bytes", "edge": "edge", "late": "late_total",
	"retired": "retired_total", "vm.bytes": "vm_bytes_total", "vm.load": "vm_load", "batch.jobs": "batch_jobs_total", "batch.progress": "batch_progress",
	"gap.requests": "gap_requests_total", "gap.level": "gap_level",
}

// apiServer is a process of job api: series of each kind.
type apiServer struct {
	w        *writer.Writer
	requests []*writer.Counter
	cpu      *writer.FloatCounter
	open     *writer.UpDownCounter
	temp     []*writer.Gauge
	depth    *writer.IntGauge
	batch    *writer.Stat
	latency  []*writer.Histogram
	size     *writer.IntHistogram
	level    float64
}

func (r *recording) server(instance, version string) *apiServer {
	w := r.writer(writer.Options{Job: "api", Instance: instance, Attributes: map[string]string{"service.version": version, "os": "linux"}})
	s := &apiServer{w: w, level: 18}
	for _, l := range [][2]string{{"200", "GET"}, {"200", "PUT"}, {"404", "GET"}, {"500", "GET"}} {
		s.requests = append(s.requests, w.Counter("http.requests", writer.Labels("code", l[0], "method", l[1])))
	}
	s.cpu = w.FloatCounter("cpu.time", writer.Unit("s"), writer.Label("mode", "user"))
	s.open = w.UpDownCounter("connections")
	for _, zone := range []string{"a", "b"} {
		s.temp = append(s.temp, w.Gauge("temperature", writer.Unit("Cel"), writer.Label("zone", zone)))
	}
	s.depth = w.IntGauge("queue.depth")
	s.batch = w.Stat("batch.size")
	for _, route := range []string{"/a", "/b"} {
		s.latency = append(s.latency, w.Histogram("latency", writer.Unit("s"), writer.Label("route", route), writer.Buckets(0.01, 2), writer.Scale(2)))
	}
	s.size = w.IntHistogram("rx.size", writer.Unit("By"), writer.Buckets(64, 1<<16), writer.Scale(1))
	return s
}

func (s *apiServer) work(rnd *rand.Rand) {
	for i, c := range s.requests {
		c.Add(uint64(rnd.IntN(40 >> i)))
	}
	s.cpu.Add(rnd.Float64() / 7)
	s.open.Add(int64(rnd.IntN(5) - 2))
	s.level += rnd.Float64() - 0.5
	for i, g := range s.temp {
		g.Set(s.level + float64(i)*3.3 + rnd.Float64())
	}
	s.depth.Set(int64(rnd.IntN(9) - 3))
	for range rnd.IntN(3) {
		s.batch.Record(float64(rnd.IntN(1000)) / 8)
	}
	for i, h := range s.latency {
		for range rnd.IntN(6) {
			h.Record(rnd.ExpFloat64() * 0.1 * float64(i+1))
		}
	}
	s.size.Record(uint64(rnd.IntN(100_000)))
}

// killedWriter is the process that is killed: what it reads on its standard input is a second, what to count, and what the gauge is.
func killedWriter() {
	in := bufio.NewScanner(os.Stdin)
	var now, count int64
	var level float64
	read := func() (tick bool) {
		if !in.Scan() {
			os.Exit(0)
		}
		var verb string
		if _, err := fmt.Sscan(in.Text(), &verb, &now, &count, &level); err != nil {
			panic(err)
		}
		return verb == "tick"
	}
	read()
	w, err := writer.Open(writer.Options{Dir: os.Getenv("SHMTS_DIR"), Job: "batch", Instance: "k:1", NoTicker: true,
		Clock: func() (int64, int64) { return now, now }, NewID: func() [16]byte { return [16]byte{15: 77} }})
	if err != nil {
		panic(err)
	}
	jobs, progress := w.Counter("batch.jobs"), w.Gauge("batch.progress")
	for {
		jobs.Add(uint64(count))
		progress.Set(level)
		w.Tick()
		fmt.Println("done")
		for !read() {
			jobs.Add(uint64(count)) // after the last row
			fmt.Println("done")
		}
	}
}

func init() { child["killed"] = killedWriter }

// record makes the recording.
func record(t *testing.T) *recording {
	store, err := os.MkdirTemp("/dev/shm", "shmts-history-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	r := &recording{begin: t0 / 1000, rnd: rand.New(rand.NewPCG(4, 1)), floats: map[string]*floatSeries{}, hists: map[string]*histSeries{}, seen: map[string]*taken{},
		host: &host{t: t, store: store, dir: t.TempDir(), options: query.Options{Experimental: true},
			tiers: []archive.TierOptions{{Step: time.Second, Budget: 64 << 20}, {Step: 10 * time.Second, Budget: 16 << 20}, {Step: 5 * time.Minute, Budget: 8 << 20}}}}
	at := func(second int, ms int64) { r.now.Store((r.begin+int64(second))*1e9 + ms*1e6) }
	at(0, 0)
	r.start()
	t.Cleanup(func() { r.stop() })

	at(0, 40)
	a := r.server("a:1", "1.2.3")
	at(0, 130)
	b := r.server("b:1", "1.2.3")
	edge := r.writer(writer.Options{Job: "edge", Instance: "e:1", Histograms: -1})
	values := map[string][]float64{
		"nan": {math.NaN(), 1}, "inf": {math.Inf(1)}, "-inf": {math.Inf(-1), -2}, "zero": {math.Copysign(0, -1), 0}, "tiny": {5e-324}, "huge": {math.MaxFloat64}, "half": {0.5, -0.5, 1.5},
	}
	edges := map[string]*writer.Gauge{}
	for kind := range values {
		edges[kind] = edge.Gauge("edge", writer.Label("kind", kind))
	}
	edge.Gauge("edge", writer.Label("kind", "unset"))
	retired := edge.Counter("retired")
	var late *writer.Counter
	gap := r.writer(writer.Options{Job: "gap", Instance: "g:1", Histograms: -1})
	gapRequests, gapLevel := gap.Counter("gap.requests"), gap.Gauge("gap.level")
	var vm *writer.Writer
	var vmBytes *writer.Counter
	var vmLoad *writer.Gauge
	vms := 0

	killed := exec.Command(os.Args[0])
	killed.Env = append(os.Environ(), childEnv+"=killed", "SHMTS_DIR="+store)
	killed.Stderr = os.Stderr
	killed.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := killed.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := killed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killed.Process.Kill() })
	answers := bufio.NewScanner(out)
	tell := func(verb string, count int, level float64) {
		fmt.Fprintln(in, verb, r.now.Load(), count, level)
		if verb != "open" && !answers.Scan() {
			t.Fatal("the writer to be killed has ended")
		}
	}
	at(0, 500)
	tell("open", 0, 0)
	alive := true

	for i := 1; i <= recordedSeconds; i++ {
		at(i, 40)
		a.work(r.rnd)
		a.w.Tick()
		at(i, 130)
		switch i {
		case 720: // it is started anew, seconds later
			b.work(r.rnd)
			b.w.Close()
		case 725:
			b = r.server("b:1", "1.3.0")
		}
		if i < 720 || i >= 725 {
			b.work(r.rnd)
			b.w.Tick()
		}
		at(i, 210)
		for kind, list := range values {
			edges[kind].Set(list[i/30%len(list)])
		}
		switch i {
		case 900:
			retired.Retire()
		case 1300:
			retired = edge.Counter("retired")
		case 1000:
			late = edge.Counter("late")
		}
		if i < 900 || i >= 1300 {
			retired.Add(3)
		}
		if late != nil {
			late.Add(uint64(i % 4))
		}
		edge.Tick()
		at(i, 330)
		if i < 600 || i >= 690 { // it stalls
			gapRequests.Add(5)
			gapLevel.Set(float64(i))
			gap.Tick()
		}
		at(i, 470)
		switch life := (i - 1) % 150; { // a machine of each length
		case life == 0:
			vms++
			vm = r.writer(writer.Options{Job: "vm", Instance: fmt.Sprint("vm:", vms), Histograms: -1})
			vmBytes, vmLoad = vm.Counter("vm.bytes"), vm.Gauge("vm.load")
		case life < 20+7*(vms%11):
			vmBytes.Add(uint64(r.rnd.IntN(3000)))
			vmLoad.Set(float64(r.rnd.IntN(100)) / 4)
			vm.Tick()
		case life == 20+7*(vms%11):
			vmBytes.Add(11)
			vm.Close()
		}
		at(i, 500)
		switch {
		case i < 1800:
			tell("tick", i%3, float64(i)/8)
		case i == 1800:
			tell("add", 1000, 0)
			alive = false
			killed.Process.Kill()
			killed.Wait()
		}
		at(i, 800)
		if err := r.register.Poll(); err != nil {
			t.Fatal(err)
		}
		r.take()
		r.archiver.Poll()
		if i == 1111 { // the daemon is started anew
			r.stop()
			r.start()
			if err := r.register.Poll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if alive || vms < 10 {
		t.Fatalf("want one killed and 10 machines, got %v, %d", alive, vms)
	}
	return r
}

// take keeps the rows that are new.
func (r *recording) take() {
	for _, s := range r.register.Segments() {
		had := r.seen[s.ID()]
		if had == nil {
			had = &taken{next: [2]uint64{1, 1}, live: map[string]live{}}
			r.seen[s.ID()] = had
		}
		for table := range s.Tables() {
			s.Rows(table, 0, had.next[table], func(row *reader.Row) bool {
				had.next[table] = row.No + 1
				r.takeRow(s, had, row)
				return true
			})
		}
		if end, ended := s.End(); ended && !had.end {
			had.end = true
			for key, l := range had.live { // what ends is stale a millisecond later
				r.stale(key, l, floorMilli(end)+1)
			}
		}
	}
}

func floorMilli(ns int64) int64 { return ns / 1_000_000 }

func (r *recording) stale(key string, l live, t int64) {
	if l.hist {
		h := r.hists[key]
		h.times, h.values = append(h.times, t), append(h.values, &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)})
		return
	}
	f := r.floats[key]
	f.times, f.values = append(f.times, t), append(f.values, math.Float64frombits(value.StaleNaN))
}

func (r *recording) takeRow(s *source.Segment, had *taken, row *reader.Row) {
	t := floorMilli(row.Time)
	for key, l := range had.live {
		l.again = l.table != row.Table
		had.live[key] = l
	}
	var own []reader.Pair
	put := func(name string, v float64, more ...string) {
		if math.IsNaN(v) && name != "edge" {
			return // a minimum of nothing
		}
		b := labels.NewBuilder(labels.FromStrings(more...))
		b.Set("__name__", name)
		for _, p := range s.Labels() {
			b.Set(p.Name, p.Value)
		}
		for _, p := range own {
			b.Set(p.Name, p.Value)
		}
		key := b.Labels().String()
		f := r.floats[key]
		if f == nil {
			f = &floatSeries{labels: b.Labels()}
			r.floats[key] = f
		}
		f.times, f.values = append(f.times, t), append(f.values, v)
		had.live[key] = live{false, row.Table, true}
	}
	if row.Table == 0 {
		var attributes []string
		for _, p := range s.Attributes() {
			attributes = append(attributes, map[string]string{"service.version": "service_version", "os": "os"}[p.Name], p.Value)
		}
		if len(attributes) > 0 {
			put("target_info", 1, attributes...)
		}
	}
	for _, sr := range s.Series() {
		v, ok := row.Value(sr)
		if sr.Table != row.Table || !ok || v.Unset && sr.Kind == reader.Gauge {
			continue
		}
		own = sr.Labels
		name := prometheusNames[sr.Name]
		switch sr.Kind {
		case reader.Stat:
			if !v.Unset {
				put(name, v.Last)
			}
			put(name+"_min", v.Min)
			put(name+"_max", v.Max)
			put(name+"_sum", v.Sum)
			put(name+"_count", float64(v.Count))
		case reader.Histogram:
			r.takeHistogram(s, had, row.Table, sr, &v, t)
			if sr.Name == "latency" {
				put(name+"_sum", v.Sum)
				put(name+"_count", float64(v.Count))
				n := v.Zero
				for k := range len(v.Buckets) + 1 {
					bound := math.Exp2(float64(sr.Buckets.Min+k) / float64(int(1)<<sr.Buckets.Scale))
					le := strconv.FormatFloat(bound, 'g', -1, 64)
					if bound == math.Trunc(bound) && bound < 1e6 {
						le += ".0"
					}
					put(name+"_bucket", float64(n), "le", le)
					if k < len(v.Buckets) {
						n += v.Buckets[k]
					}
				}
				put(name+"_bucket", float64(v.Count), "le", "+Inf")
			}
		default:
			put(name, v.Float)
		}
	}
	for key, l := range had.live {
		if !l.again {
			r.stale(key, l, t)
			delete(had.live, key)
		}
	}
}

// takeHistogram makes a native histogram of a row's buckets.
func (r *recording) takeHistogram(s *source.Segment, had *taken, table int, sr *reader.Series, v *reader.Value, t int64) {
	b := labels.NewBuilder(labels.FromStrings("__name__", prometheusNames[sr.Name]))
	for _, p := range append(s.Labels()[:len(s.Labels()):len(s.Labels())], sr.Labels...) {
		b.Set(p.Name, p.Value)
	}
	key := b.Labels().String()
	h := r.hists[key]
	if h == nil {
		h = &histSeries{labels: b.Labels()}
		r.hists[key] = h
	}
	f := &histogram.FloatHistogram{
		Schema: int32(sr.Buckets.Scale), ZeroThreshold: math.Exp2(float64(sr.Buckets.Min) / float64(int(1)<<sr.Buckets.Scale)),
		ZeroCount: float64(v.Zero), Count: float64(v.Count), Sum: v.Sum,
		PositiveSpans: []histogram.Span{{Offset: int32(sr.Buckets.Min) + 1, Length: uint32(len(v.Buckets)) + 1}}, // a bucket is named by its upper bound
	}
	for _, n := range append(v.Buckets[:len(v.Buckets):len(v.Buckets)], v.Above) {
		f.PositiveBuckets = append(f.PositiveBuckets, float64(n))
	}
	h.times, h.values = append(h.times, t), append(h.values, f.Compact(0))
	had.live[key] = live{true, table, true}
}
