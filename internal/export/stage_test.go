package export_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// epoch is the tests' beginning of time, unix ns.
const epoch int64 = 1_800_000_000_000_000_000

// stage is a store with real segments, a register, an archive and who writes it, and exporters: all but time is real.
type stage struct {
	t       testing.TB
	store   string
	now     time.Duration
	reg     *source.Register
	archive *archive.Archive
	sweeper *archiver.Sweeper
	arch    *archiver.Archiver
	ids     uint32
	lives   []*life
	dests   []*destination
	phases  bool // writers' coarser rows fall on other seconds
	off     bool // the archiver does not run
}

// life is a writer whose counter counts its seconds.
type life struct {
	*writer.Writer
	instance   string
	born, died time.Duration
	c          *writer.Counter
	h          *writer.Histogram
	s          *writer.Stat
	closed     bool
	each       func(second int) // records more; nil: nothing
}

type destination struct {
	*export.Exporter
	s    *stage
	o    export.Options
	r    *recorder
	last time.Duration
}

func newStage(t testing.TB, tiers ...archive.TierOptions) *stage {
	t.Helper()
	store, err := os.MkdirTemp("/dev/shm", "shmts-export-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	s := &stage{t: t, store: store}
	if s.reg, err = source.Open(source.Options{Store: reader.Options{Dir: store}, DeadTTL: 5 * time.Second, HoldLimit: 24 * time.Hour, Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.reg.Close() })
	if len(tiers) == 0 {
		return s
	}
	if s.archive, err = archive.Open(archive.Options{Dir: t.TempDir(), Tiers: tiers, ExtentSize: 64 << 10, Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.archive.Close() })
	s.sweeper = archiver.NewSweeper(archiver.SweepOptions{Archive: s.archive, Ephemeral: true})
	s.arch = archiver.New(archiver.Options{Archive: s.sweeper, Missing: s.sweeper.Missing, Swept: s.sweeper.Sweep, Now: s.clock, UserBytesPerSecond: 1 << 40}, func() (out []archiver.Segment) {
		for _, g := range s.reg.Segments() {
			out = append(out, g)
		}
		return out
	})
	s.sweeper.Through(s.arch.Writer(), s.arch.Live)
	s.reg.Hold("archive", func(g *source.Segment) bool { return s.arch.Finished(g) })
	return s
}

// three are the usual tiers, of so many extents of 64 KiB.
func three(n ...int64) (tiers []archive.TierOptions) {
	for i, step := range []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute} {
		tiers = append(tiers, archive.TierOptions{Step: step, Budget: 4096 + n[i]*64<<10})
	}
	return tiers
}

func (s *stage) clock() time.Time { return time.Unix(0, epoch+int64(s.now)) }

func (s *stage) segments() (out []export.Segment) {
	for _, g := range s.reg.Segments() {
		out = append(out, g)
	}
	return out
}

// born gives birth to a process.
func (s *stage) born(instance string) *life {
	s.t.Helper()
	w, err := writer.Open(writer.Options{Job: "j", Instance: instance, Dir: s.store, NoTicker: true,
		Clock: func() (int64, int64) { return epoch + int64(s.now), int64(1000*time.Second + s.now) },
		NewID: func() [16]byte {
			s.ids++
			id := [16]byte{13: byte(s.ids >> 16), 14: byte(s.ids >> 8), 15: byte(s.ids)}
			if s.phases { // which an id decides
				sum := sha256.Sum256(id[:])
				copy(id[:12], sum[:])
			}
			return id
		}})
	if err != nil {
		s.t.Fatal(err)
	}
	l := &life{Writer: w, instance: instance, born: s.now, c: w.Counter("c"), s: w.Stat("s"), h: w.Histogram("h", writer.Buckets(1, 1024), writer.Scale(0))}
	s.t.Cleanup(l.close)
	s.lives = append(s.lives, l)
	return l
}

func (l *life) close() {
	if !l.closed {
		l.closed = true
		l.Close()
	}
}

// end closes one, half a second after its last tick.
func (s *stage) end(l *life) {
	s.now += 500 * time.Millisecond
	l.died = s.now
	l.close()
	s.now -= 500 * time.Millisecond
}

// destination is a new one.
func (s *stage) destination(o export.Options) *destination {
	s.t.Helper()
	d := &destination{s: s, o: o, r: &recorder{points: map[string][]point{}}, last: s.now}
	s.dests = append(s.dests, d)
	d.open()
	return d
}

func (d *destination) open() {
	d.s.t.Helper()
	o := d.o
	o.Name, o.Backoff, o.MaxBackoff, o.Now, o.CatchUpRate = "test", time.Microsecond, time.Microsecond, d.s.clock, 1<<30
	if d.s.archive != nil {
		o.Archive = d.s.archive
		o.SourceKey = source.Key
	}
	if testing.Verbose() && os.Getenv("SHMTS_TEST_LOG") != "" {
		o.Logger = slog.Default()
	}
	e, err := export.New(o, d.r, d.s.segments)
	if err != nil {
		d.s.t.Fatal(err)
	}
	d.Exporter = e
	d.r.Reset()
}

// kill ends the exporter as SIGKILL would, and begins another one with the positions that are in the file.
func (d *destination) kill() {
	d.s.t.Helper()
	b, err := os.ReadFile(d.o.Positions)
	if err != nil {
		d.s.t.Fatal(err)
	}
	d.o.Positions = filepath.Join(d.s.t.TempDir(), "positions")
	if err := os.WriteFile(d.o.Positions, b, 0o600); err != nil {
		d.s.t.Fatal(err)
	}
	d.open()
}

// flush exports, for as long as the receiver takes it.
func (d *destination) flush() {
	d.s.t.Helper()
	timeout := 20 * time.Second
	if d.r.isDown() {
		timeout = 2 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := d.Flush(ctx); err != nil && !(d.r.isDown() && errors.Is(err, context.DeadlineExceeded)) {
		d.s.t.Fatalf("at %v: %v", d.s.now, err)
	}
}

// run lets time pass: each second a record and a tick of all, a poll, and an export when it is due.
func (s *stage) run(d time.Duration) {
	s.t.Helper()
	for end := s.now + d; s.now < end; {
		s.now += time.Second
		for _, l := range s.lives {
			if !l.closed {
				l.c.Add(1)
				l.s.Record(float64((s.now - l.born) / time.Second))
				l.h.Record(float64(1 + (s.now-l.born)/time.Second%1000))
				if l.each != nil {
					l.each(int((s.now - l.born) / time.Second))
				}
				l.Tick()
			}
		}
		if err := s.reg.Poll(); err != nil {
			s.t.Fatal(err)
		}
		if s.arch != nil && !s.off {
			s.arch.Poll()
		}
		for _, d := range s.dests {
			if s.now-d.last >= d.interval() {
				d.last = s.now
				d.flush()
			}
		}
	}
}

func (d *destination) interval() time.Duration {
	if d.o.Interval > 0 {
		return d.o.Interval
	}
	return cmp.Or(d.o.Step, 10*time.Second)
}

// point is one that was received.
type point struct {
	time, start time.Duration // since epoch
	value       float64
	min, max    float64 // of a stat
	end, born   bool
	before      float64 // with Delta: what it differs from
	since       time.Duration
	request     int
	text        string // all of the value
}

// recorder is an export.Encoder, and a receiver that keeps what it is sent: series by segment and name.
type recorder struct {
	mu       sync.Mutex
	down     bool
	texts    bool // values are kept as a whole
	requests int
	batch    int // points a request; 0: 100

	filling map[string][]point
	placed  []string // series and time, in their order
	shut    bool     // the next row does not fit
	n       int
	points  map[string][]point
	order   []string // of arrival: series and time
}

func (r *recorder) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

func (r *recorder) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

func (r *recorder) Full() bool  { return r.shut || r.n >= cmp.Or(r.batch, 100) }
func (r *recorder) Points() int { return r.n }
func (r *recorder) Reset()      { r.filling, r.placed, r.n, r.shut = map[string][]point{}, nil, 0, false }

func (r *recorder) put(src *export.Source, i int, p point) {
	instance := ""
	for _, l := range src.Labels {
		if l.Name == "instance" {
			instance = l.Value
		}
	}
	name := fmt.Sprintf("%s %s %s", src.ID[24:], instance, src.Series[i].Name)
	for _, o := range src.Overrides[src.Series[i]] {
		name += " " + o.Name
	}
	p.request = r.requests
	r.filling[name] = append(r.filling[name], p)
	r.placed = append(r.placed, fmt.Sprintf("%s %v", name, p.time))
	r.n++
}

// Add takes a row whole, unless it alone is more than a request.
func (r *recorder) Add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	n, seen := r.n, slices.Clone(src.Seen)
	lengths := map[string]int{}
	for k, v := range r.filling {
		lengths[k] = len(v)
	}
	next, done := r.add(src, row, at)
	if !done && n > 0 {
		for k, v := range r.filling {
			r.filling[k] = v[:lengths[k]]
		}
		r.n, r.placed = n, r.placed[:n]
		copy(src.Seen, seen)
		r.shut = true
		return at, false
	}
	return next, done
}

func (r *recorder) add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	for ; at.Point < len(src.Series); at.Point++ {
		i := at.Point
		if src.Series[i].Table != row.Table {
			continue
		}
		if r.Full() {
			return at, false
		}
		v, ok := row.Value(i)
		if !ok {
			if src.Seen.Has(i) && row.Gone(i) {
				src.Seen.Clear(i)
				r.put(src, i, point{time: time.Duration(row.Time - epoch), end: true})
			}
			continue
		}
		if v.Kind == reader.Gauge && v.Unset {
			continue
		}
		p := point{time: time.Duration(row.Time - epoch), start: time.Duration(row.Start(i) - epoch), born: row.Born(i)}
		src.Seen.Set(i)
		p.value = number(&v)
		if r.texts {
			p.text = fmt.Sprint(v.Kind, v.Number, v.Int, v.Float, v.Count, v.Sum, v.Last, v.Min, v.Max, v.Unset, v.Zero, v.Above, v.Buckets)
		}
		p.min, p.max = v.Min, v.Max
		if was, since, ok := row.Before(i); ok {
			p.before, p.since = number(&was), time.Duration(since-epoch)
		} else {
			p.since = p.start
		}
		r.put(src, i, p)
	}
	return at, true
}

func number(v *reader.Value) float64 {
	if v.Kind == reader.Counter {
		return v.Float
	}
	return float64(v.Count)
}

func (r *recorder) End(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	for ; at.Point < len(src.Series); at.Point++ {
		i := at.Point
		if src.Series[i].Table != row.Table || !src.Seen.Has(i) {
			continue
		}
		if r.Full() {
			return at, false
		}
		r.put(src, i, point{time: time.Duration(row.Time - epoch), start: time.Duration(row.Start(i) - epoch), end: true})
	}
	return at, true
}

func (r *recorder) Send(ctx context.Context) export.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return export.Result{Err: errors.New("shmts: test: down"), Retry: true}
	}
	r.requests++
	for name, points := range r.filling {
		r.points[name] = append(r.points[name], points...)
	}
	r.order = append(r.order, r.placed...)
	return export.Result{Taken: r.n, Bytes: 1}
}

// series are the names that came, of one kind.
func (r *recorder) series(name string) (out []string) {
	for k := range r.points {
		if strings.HasSuffix(k, " "+name) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// check holds what came of a life against what it recorded. Points lie at most so far apart.
func (d *destination) check(l *life, apart time.Duration) {
	d.s.t.Helper()
	for _, name := range []string{"c", "s", "h"} {
		var points []point
		for _, k := range d.r.series(name) {
			if f := strings.Fields(k); f[1] == l.instance {
				points = append(points, d.r.points[k]...)
			}
		}
		d.checkSeries(l, name, points, apart)
	}
}

func (d *destination) checkSeries(l *life, name string, points []point, apart time.Duration) {
	t := d.s.t
	t.Helper()
	if len(points) == 0 {
		t.Errorf("%s %s: want points, got none", l.instance, name)
		return
	}
	last := point{time: l.born}
	for i, p := range points {
		if p.time <= last.time && !(i == 0 && p.time == l.born) {
			t.Errorf("%s %s: want times to rise, got %v after %v", l.instance, name, p.time, last.time)
		}
		if last.end {
			t.Errorf("%s %s: want nothing behind the end, got %v at %v", l.instance, name, p.value, p.time)
		}
		if p.end {
			if p.time != last.time+time.Millisecond || i < len(points)-1 {
				t.Errorf("%s %s: want the end 1 ms behind the last point at %v, got it at %v", l.instance, name, last.time, p.time)
			}
			last = p
			continue
		}
		if p.time-last.time > apart {
			t.Errorf("%s %s: want points %v apart, got none from %v to %v", l.instance, name, apart, last.time, p.time)
		}
		if want := float64((p.time - l.born) / time.Second); p.value != want {
			t.Errorf("%s %s at %v: want %v, got %v", l.instance, name, p.time, want, p.value)
		}
		if name == "s" && last.value < p.value && !d.s.phases && (p.max != p.value || p.min != last.value+1) {
			t.Errorf("%s %s at %v: want least and greatest since %v, got %v and %v", l.instance, name, p.time, last.time, p.min, p.max)
		}
		if p.start != l.born {
			t.Errorf("%s %s at %v: want it started at %v, got %v", l.instance, name, p.time, l.born, p.start)
		}
		if p.born != (i == 0) {
			t.Errorf("%s %s at %v: point %d: born %v", l.instance, name, p.time, i, p.born)
		}
		if d.o.Delta {
			if p.before != last.value || p.since != max(last.time, p.start) {
				t.Errorf("%s %s at %v: want it to differ from %v at %v, got from %v at %v", l.instance, name, p.time, last.value, last.time, p.before, p.since)
			}
		}
		last = p
	}
	if l.closed && (!last.end || last.time != l.died+time.Millisecond) {
		t.Errorf("%s %s: died at %v: want an end, got a point at %v, end %v", l.instance, name, l.died, last.time, last.end)
	}
	if !l.closed && d.s.now-last.time > apart {
		t.Errorf("%s %s: want points up to %v, got the last one at %v", l.instance, name, d.s.now, last.time)
	}
}

func (d *destination) lostNothing() {
	d.s.t.Helper()
	s := d.Stats()
	for reason, n := range s.Lost {
		if n > 0 {
			d.s.t.Errorf("want no rows lost, got %d: %s", n, reason)
		}
	}
	if s.Extents > 0 || s.Waiting > 0 {
		d.s.t.Errorf("want nothing left, got %+v", s)
	}
}
