// Package bridge brings the values of another metrics library into a segment: otelshm and promshm are
// what it says of OpenTelemetry's SDK and of a client_golang registry.
//
// The other library has cumulative points, the writer has handles that add. A Set keeps the last point of each
// series, and adds what came since; a point that starts anew adds all that it holds. A series that
// a round does not bring is retired.
package bridge

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// Series says what the points of a key belong to. It is asked for when the key is new.
type Series struct {
	Name, Unit, Help string
	Labels           []string // name, value, name, value...; an empty value means no label
}

// Shape is the range and the resolution of a histogram's buckets: see writer.Buckets and writer.Scale.
type Shape struct {
	Low, High float64
	Scale     int // a point of a lower scale lowers it for its series
}

// Stats counts what a bridge could not bring as it is. Each series counts once for each reason, and again when it comes back.
type Stats struct {
	Series      int    // that the last round brought, those dropped included
	Dropped     uint64 // no room in the segment, or a name, label or value too long for the format; tried again when others made room
	Unsupported uint64 // no kind of the format's holds it: negative observations, float counts, buckets wider than powers of two
	Conflicts   uint64 // another series has the same name and labels already
	Rejected    uint64 // points, not series, that can't be: a counter of NaN, infinity or less than 0
	Rescaled    uint64 // histograms that went on as a new series, of a lower scale, because the points' scale fell
	Untraced    uint64 // exemplars, not series, without a trace id that is one, or a time
	Coarse      uint64 // points, not series, of histograms whose zero bucket is wider than ours: what it holds is in our zero bucket
}

// stats are the same, counted while others look.
type stats struct {
	series                                                      atomic.Int64
	dropped, unsupported, conflicts, rejected, rescaled, coarse atomic.Uint64
	untraced                                                    atomic.Uint64
}

// Set is the series of one bridge, by a key of its own making. One goroutine at a time uses it; Stats and Err any.
type Set[K comparable] struct {
	w       *writer.Writer
	byKey   map[K]*entry
	taken   map[string]*entry // by name and labels
	round   uint64
	retired uint64 // newest round that retired something

	stats stats
	err   atomic.Pointer[error]

	diff []uint64 // scratch
}

// New is an empty Set that registers its series with w.
func New[K comparable](w *writer.Writer) *Set[K] {
	return &Set[K]{w: w, byKey: map[K]*entry{}, taken: map[string]*entry{}}
}

// entry is what a key stands for. Which of the handles there are, its form says.
type entry struct {
	round    uint64 // newest that brought it
	born     uint64 // first
	id       string
	form     form
	handles  []interface{ Retire() }
	lost     bool // a handle found no room
	describe Series
	start    int64                               // of the point, unix ns; 0: unknown
	newest   int64                               // exemplar offered, unix ns
	offer    func(v float64, ex writer.Exemplar) // nil: it may have none

	count   count
	amount  amount
	level   level
	gauge   *writer.Gauge
	integer *writer.IntGauge

	histogram histogram
	classic   classic
}

type form uint8

const (
	formUnsupported form = iota // nothing is recorded
	formConflict                // the same
	formCount
	formAmount
	formLevel
	formGauge
	formIntGauge
	formHistogram
	formIntHistogram
	formClassic
)

// Begin begins a round: one pass over all points of the other library's.
func (s *Set[K]) Begin() { s.round++ }

// End ends it, and retires what was not brought; nothing where the pass was not whole.
func (s *Set[K]) End(whole bool) {
	if whole {
		for key, e := range s.byKey {
			if e.round != s.round {
				s.drop(key, e)
			}
		}
	}
	s.stats.series.Store(int64(len(s.byKey)))
}

// Stats may be called at any time, by any goroutine.
func (s *Set[K]) Stats() Stats {
	return Stats{Series: int(s.stats.series.Load()), Dropped: s.stats.dropped.Load(), Unsupported: s.stats.unsupported.Load(), Conflicts: s.stats.conflicts.Load(),
		Rejected: s.stats.rejected.Load(), Rescaled: s.stats.rescaled.Load(), Coarse: s.stats.coarse.Load(), Untraced: s.stats.untraced.Load()}
}

// Err is the first thing that could not be brought, nil if all was.
func (s *Set[K]) Err() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *Set[K]) fail(counter *atomic.Uint64, format string, args ...any) {
	counter.Add(1)
	if s.err.Load() == nil {
		err := fmt.Errorf("shmts: "+format, args...)
		s.err.CompareAndSwap(nil, &err)
	}
}

func (s *Set[K]) drop(key K, e *entry) {
	if len(e.handles) > 0 && !e.lost {
		s.retired = s.round
	}
	e.retire()
	delete(s.byKey, key)
	if s.taken[e.id] == e {
		delete(s.taken, e.id)
	}
}

func (e *entry) retire() {
	for _, h := range e.handles {
		h.Retire()
	}
	e.handles = nil
}

// entry is that of a key, new if there is none, or none of that form: fresh then. nil: nothing is to be recorded.
func (s *Set[K]) entry(key K, f form, describe func() Series) (e *entry, fresh bool) {
	e = s.byKey[key]
	if e != nil && !s.stale(e, f) {
		e.round = s.round
		if e.form == formConflict {
			return nil, false
		}
		return e, false
	}
	if e != nil {
		s.drop(key, e)
	}
	e = s.add(key, f, describe())
	if s.taken[e.id] != nil {
		e.form = formConflict
		s.fail(&s.stats.conflicts, "bridge: series %q: want a name and labels of its own, got those of another series: %q", e.describe.Name, e.describe.Labels)
		return nil, false
	}
	s.taken[e.id] = e
	return e, true
}

// stale tells whether a key whose next point has form f needs an entry anew.
func (s *Set[K]) stale(e *entry, f form) bool {
	switch {
	case e.form == formConflict:
		return s.taken[e.id] == nil
	case e.form != f:
		return true
	}
	// What was retired frees its cells within rows, its descriptor within a ring.
	return e.lost && s.round-e.born >= retryRounds && s.retired != 0 && s.round-s.retired < retryFor
}

// A series that found no room is tried again so many rounds later, while something was retired not longer ago.
const (
	retryRounds = 64
	retryFor    = 1024
)

func (s *Set[K]) add(key K, f form, d Series) *entry {
	e := &entry{round: s.round, born: s.round, form: f, describe: d, id: identity(&d)}
	s.byKey[key] = e
	return e
}

// Unsupported says that the format has no kind for what the key stands for, and why.
func (s *Set[K]) Unsupported(key K, why string, describe func() Series) {
	if e := s.byKey[key]; e != nil {
		if e.form == formUnsupported {
			e.round = s.round
			return
		}
		s.drop(key, e)
	}
	e := s.add(key, formUnsupported, describe())
	s.fail(&s.stats.unsupported, "bridge: series %q: %s", e.describe.Name, why)
}

// identity is the series' name and labels, in one order.
func identity(d *Series) string {
	labels := map[string]string{}
	for i := 0; i+1 < len(d.Labels); i += 2 {
		if d.Labels[i+1] != "" {
			labels[d.Labels[i]] = d.Labels[i+1]
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%q", d.Name)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, ",%q=%q", name, labels[name])
	}
	return b.String()
}

// register makes a handle of e's, and notes whether it found room.
func register[K comparable, H interface{ Retire() }](s *Set[K], e *entry, suffix string, fresh func(*writer.Writer, string, ...writer.SeriesOption) H, more ...writer.SeriesOption) H {
	d := &e.describe
	options := append([]writer.SeriesOption{writer.Help(fitHelp(d.Help)), writer.Labels(d.Labels...)}, more...)
	if counted := suffix == "_bucket" || suffix == "_count"; len(d.Unit) <= layout.MaxUnit && !counted {
		options = append(options, writer.Unit(d.Unit))
	}
	// The writer counts what finds no room. Where somebody else's registration finds none at this very moment, ours
	// is taken for it: trying it again then finds the series that it has.
	before := s.w.Stats().DroppedSeries
	h := fresh(s.w, d.Name+suffix, options...)
	e.handles = append(e.handles, h)
	if s.w.Stats().DroppedSeries != before && !e.lost {
		e.lost = true
		s.fail(&s.stats.dropped, "bridge: series %q was not registered; the writer's first error: %w", d.Name+suffix, s.w.Err())
	}
	return h
}

// fitHelp cuts a text to what the format holds, between two characters.
func fitHelp(text string) string {
	text = strings.ToValidUTF8(text, "�")
	if len(text) <= layout.MaxHelp {
		return text
	}
	n := layout.MaxHelp
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// restarted tells whether a point of that start time counts from zero again.
func (e *entry) restarted(start int64) bool {
	moved := start > e.start && e.start != 0
	e.start = max(e.start, start)
	return moved
}

// Counter brings a total that never falls, but to begin again.
func (s *Set[K]) Counter(key K, total uint64, start int64, describe func() Series) {
	e, fresh := s.entry(key, formCount, describe)
	if e == nil {
		return
	}
	if fresh {
		e.count.h = register(s, e, "", (*writer.Writer).Counter)
		e.offer = e.count.h.MergeExemplar
	}
	e.count.to(total, e.restarted(start))
}

// FloatCounter is Counter in f64.
func (s *Set[K]) FloatCounter(key K, total float64, start int64, describe func() Series) {
	e, fresh := s.entry(key, formAmount, describe)
	if e == nil {
		return
	}
	if fresh {
		h := register(s, e, "", (*writer.Writer).FloatCounter)
		e.amount.add, e.offer = h.Merge, h.MergeExemplar
	}
	if !isTotal(total) {
		s.fail(&s.stats.rejected, "bridge: series %q: want a total that is finite and not negative, got %g", e.describe.Name, total)
		return
	}
	e.amount.to(total, e.restarted(start) || total < e.amount.last)
}

// Reject counts a total that can't be one; its series stays as it is.
func (s *Set[K]) Reject(key K, total int64) {
	if e := s.byKey[key]; e != nil {
		e.round = s.round
	}
	s.fail(&s.stats.rejected, "bridge: want a total that is not negative, got %d", total)
}

// UpDownCounter brings a sum that may fall.
func (s *Set[K]) UpDownCounter(key K, total int64, describe func() Series) {
	e, fresh := s.entry(key, formLevel, describe)
	if e == nil {
		return
	}
	if fresh {
		e.level.h = register(s, e, "", (*writer.Writer).UpDownCounter)
	}
	e.level.h.Add(total - e.level.last)
	e.level.last = total
}

// Gauge brings a last value.
func (s *Set[K]) Gauge(key K, v float64, describe func() Series) {
	e, fresh := s.entry(key, formGauge, describe)
	if e == nil {
		return
	}
	if fresh {
		e.gauge = register(s, e, "", (*writer.Writer).Gauge)
	}
	e.gauge.Set(v)
}

// IntGauge is Gauge in i64.
func (s *Set[K]) IntGauge(key K, v int64, describe func() Series) {
	e, fresh := s.entry(key, formIntGauge, describe)
	if e == nil {
		return
	}
	if fresh {
		e.integer = register(s, e, "", (*writer.Writer).IntGauge)
	}
	e.integer.Set(v)
}

// count is a total in u64 and the handle that has it.
type count struct {
	h    *writer.Counter
	last uint64
}

func (c *count) to(total uint64, restarted bool) {
	if restarted || total < c.last {
		c.last = 0
	}
	c.h.Add(total - c.last)
	c.last = total
}

type level struct {
	h    *writer.UpDownCounter
	last int64
}

// amount is a total in f64. add is a Merge: what it adds up to is applied, to the bit.
type amount struct {
	add     func(float64)
	base    float64 // what the series held, before the point began again
	last    float64
	applied float64
}

func (a *amount) to(total float64, restarted bool) {
	if restarted {
		a.base = a.applied
	}
	a.last = total
	a.advance(a.base + total)
}

// advance makes applied target, exactly: the first step may fall short by a rounding, the second has none, as
// the difference of two numbers so near to one another is a number too.
func (a *amount) advance(target float64) {
	for range 2 {
		step := target - a.applied
		if !(step > 0) || math.IsInf(step, 0) {
			return
		}
		for a.applied+step > target {
			step = math.Nextafter(step, 0)
		}
		a.add(step)
		a.applied += step
	}
}

func isTotal(v float64) bool { return v >= 0 && v <= math.MaxFloat64 }
