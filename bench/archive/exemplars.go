package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	wal "github.com/prometheus/prometheus/tsdb/record"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// traced measures exemplars from the rings to the disk: writers of ten histograms each, of which every record offers one. It is the
// number that a handle admits which are then taken over, written, and found again. Beside it, what a Prometheus writes to its log for the same.
func traced(o options) error {
	t := &tracing{minutes: max(o.rounds, 2), r: rand.New(rand.NewPCG(1, 2))}
	err := t.open(o.segments)
	if err == nil {
		err = t.run()
	}
	return errors.Join(err, t.close())
}

type tracing struct {
	minutes  int
	r        *rand.Rand
	clock    int64
	began    int64
	dir      string
	disk     string
	writers  []*writer.Writer
	hists    []*writer.Histogram
	register *source.Register
	store    *exemplars.Store
	archive  archive.Writer
	archiver *archiver.Archiver
	closers  []func() error
}

const tracedHistograms = 10

func (t *tracing) open(segments int) (err error) {
	if t.disk, err = scratch(); err != nil {
		return err
	}
	t.closers = append(t.closers, func() error { return os.RemoveAll(t.disk) })
	if t.dir, err = os.MkdirTemp("/dev/shm", "shmts-exemplars-"); err != nil {
		return err
	}
	t.closers = append(t.closers, func() error { return os.RemoveAll(t.dir) })
	t.began = time.Now().Truncate(time.Minute).UnixNano()
	t.clock = t.began
	now := func() time.Time { return time.Unix(0, t.clock) }
	if t.archive, err = archive.Open(archive.Options{Dir: t.disk, Tiers: []archive.TierOptions{{Step: time.Second, Budget: 512 << 20}}}); err != nil {
		return err
	}
	t.closers = append(t.closers, t.archive.Close)
	if t.register, err = source.Open(source.Options{Store: reader.Options{Dir: t.dir, MapBytes: -1, ControlBytes: 4 << 20}, Now: now}); err != nil {
		return err
	}
	t.closers = append(t.closers, t.register.Close)
	t.store = exemplars.New(10_000)
	t.archiver = archiver.New(archiver.Options{Archive: t.archive, Now: now, SyncInterval: 5 * time.Second, Exemplars: t.store, UserBytesPerSecond: 1 << 30}, func() (out []archiver.Segment) {
		for _, s := range t.register.Segments() {
			out = append(out, s)
		}
		return out
	})
	for i := range segments {
		w, err := writer.Open(writer.Options{Job: "traced", Instance: strconv.Itoa(i), Dir: t.dir, NoTicker: true,
			Clock: func() (int64, int64) { return t.clock, t.clock - t.began + 1e12 }})
		if err != nil {
			return err
		}
		t.closers = append(t.closers, w.Close)
		t.writers = append(t.writers, w)
		for k := range tracedHistograms {
			t.hists = append(t.hists, w.Histogram("http.server.request.duration", writer.Unit("s"), writer.Label("http.route", fmt.Sprintf("/api/v1/things/%d", k)), writer.Buckets(1e-4, 10)))
		}
		if err := w.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tracing) trace() (x writer.Exemplar) {
	for i := range 2 {
		v := t.r.Uint64()
		for k := range 8 {
			x.TraceID[8*i+k] = byte(v >> (8 * k))
		}
	}
	v := t.r.Uint64()
	for k := range 8 {
		x.SpanID[k] = byte(v >> (8 * k))
	}
	return x
}

// second lets one pass: each histogram has records of exponential latencies, each with a trace and its own time.
func (t *tracing) second(offered bool) error {
	t.clock += 1e9
	if offered {
		for _, h := range t.hists {
			for k := range 5 {
				x := t.trace()
				x.Time = time.Unix(0, t.clock-1e9+int64(k)*2e8+t.r.Int64N(2e8))
				h.RecordExemplar(t.r.ExpFloat64()/50, x)
			}
		}
	}
	for _, w := range t.writers {
		w.Tick()
	}
	return t.register.Poll()
}

func (t *tracing) segments() (out []exemplars.Segment) {
	for _, s := range t.register.Segments() {
		out = append(out, s)
	}
	return out
}

func (t *tracing) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var moved, still time.Duration
	polls := 60 * t.minutes
	for range polls {
		if err := t.second(true); err != nil {
			return err
		}
		all := t.segments()
		begin := threadTime()
		t.store.Collect(all)
		moved += threadTime() - begin
		t.archiver.Poll()
	}
	for range 10 { // the rest is written
		if err := t.second(false); err != nil {
			return err
		}
		all := t.segments()
		t.store.Collect(all)
		t.archiver.Poll()
	}
	for range polls {
		if err := t.second(false); err != nil {
			return err
		}
		all := t.segments()
		begin := threadTime()
		t.store.Collect(all)
		still += threadTime() - begin
	}
	if why := t.archiver.Stopped(); why != nil {
		return why
	}
	seen, wrote := t.store.Stats(), t.archiver.Stats()
	if seen.Seen == 0 || wrote.Exemplars != seen.Seen || wrote.ExemplarsLost > 0 {
		return fmt.Errorf("shmts: exemplars: want all that were seen, %d, written, got %d, and %d lost", seen.Seen, wrote.Exemplars, wrote.ExemplarsLost)
	}
	n := float64(seen.Seen)
	scale := 1000 / float64(len(t.writers))
	print("exemplars/offered", float64(len(t.hists)*5*polls))
	print("exemplars/taken", n)
	print("exemplars/missed", float64(seen.Missed))
	print("exemplars/bytes_each", float64(wrote.ExemplarBytes)/n)
	print("exemplars/flush_ns_each", float64(wrote.ExemplarTime)/n)
	print("exemplars/collect_ns_each", float64(moved)/n)
	print("exemplars/poll_us_1000_idle", float64(still)/float64(polls)/1e3*scale)
	print("exemplars/poll_us_1000_busy", float64(moved)/float64(polls)/1e3*scale)
	log, err := t.log()
	if err != nil {
		return err
	}
	print("exemplars/prometheus_log_bytes_each", log/n)
	return t.find(n)
}

// log is what Prometheus's write-ahead log takes for the same: a record of each scrape of each process.
func (t *tracing) log() (bytes float64, err error) {
	var enc wal.Encoder
	n := 0
	for p, err := range t.archive.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			return 0, err
		}
		var refs []wal.RefExemplar
		for _, x := range p.List {
			refs = append(refs, wal.RefExemplar{Ref: 1, T: x.Time / 1e6, V: x.Value, Labels: labels.FromStrings("trace_id", fmt.Sprintf("%x", x.TraceID), "span_id", fmt.Sprintf("%x", x.SpanID))})
		}
		n += len(refs)
		bytes += float64(len(enc.Exemplars(refs, nil)) + 7) // the log's own header
	}
	if n == 0 {
		return 0, errors.New("shmts: exemplars: none found again")
	}
	return bytes, nil
}

// find measures a look for one process's, and for all.
func (t *tracing) find(n float64) error {
	one := []archive.Matcher{{Name: "instance", Equal: "7", Match: func(v string) bool { return v == "7" }}}
	for _, c := range []struct {
		name   string
		labels []archive.Matcher
		least  float64
	}{{"one", one, 1}, {"all", nil, n}} {
		var took []time.Duration
		for range 21 {
			found := 0
			begin := time.Now()
			for p, err := range t.archive.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64, Labels: c.labels}) {
				if err != nil {
					return err
				}
				found += len(p.List)
			}
			if took = append(took, time.Since(begin)); float64(found) < c.least {
				return fmt.Errorf("shmts: exemplars of %s: want at least %v, got %d", c.name, c.least, found)
			}
		}
		median, _ := middle(took)
		print("exemplars/find_"+c.name+"_ms", median)
	}
	return nil
}

func (t *tracing) close() error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i]())
	}
	return errors.Join(errs...)
}
