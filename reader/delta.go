package reader

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/shmts/shmts/layout"
)

// ErrNoRows is what Delta answers where no row holds the series: it was born a moment
// ago, or its table has no tiers (FORMAT.md 10.8).
var ErrNoRows = errors.New("no row holds the series")

// Delta is what a series did in a window.
type Delta struct {
	From, To int64         // unix ns: what the rows really cover
	Elapsed  time.Duration // the same by the monotonic clock, which nobody steps
	Gaps     time.Duration // of it, what no row covers at the tier's step
	Tier     int
	Rows     int   // that lie in (From, To]
	First    Value // at From: absent (zero) when the series was born inside
	Last     Value // at To
	Change   Value // additive parts subtracted; Min, Max over the window; Last the newest

	buckets BucketRange
}

// Delta is the change of a series over the newest rows that cover window, to half a step. It takes
// the finest tier whose ring reaches back that far; if none does, the one that reaches furthest, and From says how far.
//
// A series born inside the window changed from nothing: First is zero and From its
// Start. No row is subtracted from one of another epoch (FORMAT.md 10.9): the window then begins with the epoch.
// For a gauge, Change is Last, with the least and greatest value of the window's rows in Min and Max.
//
// The newest row may be old: To says so, and Liveness why.
func (g *Segment) Delta(s *Series, window time.Duration) (Delta, error) {
	if s.Table < 0 || s.Table >= len(g.tables) || window <= 0 {
		return Delta{}, fmt.Errorf("shmts: segment %s: delta of %s: want a series of this segment and a window > 0, got table %d, %v",
			g.path, s.Name, s.Table, window)
	}
	v, err := g.win.use()
	if err != nil {
		return Delta{}, err
	}
	defer v.done()
	var best Delta
	found := false
	for tier, t := range g.tables[s.Table].Tiers {
		d, ok, covers := g.delta(&v, s, tier, int64(window), int64(t.Step))
		if ok && (!found || covers || d.Elapsed > best.Elapsed) {
			best, found = d, true
		}
		if covers {
			break
		}
	}
	if !found {
		return Delta{}, fmt.Errorf("shmts: segment %s: delta of %s: %w", g.path, s.Name, ErrNoRows)
	}
	return best, nil
}

// delta walks a tier from its newest row back. covers says whether it reaches back over the window, to the
// series' birth, or to the beginning of the epoch: no other tier knows more then.
//
// The row taken last, at, waits: it is inside the window if there is one behind it to subtract, else it is what
// the others are subtracted from.
func (g *Segment) delta(v *view, s *Series, tier int, window, step int64) (d Delta, ok, covers bool) {
	sc, at := takeScratch(), takeScratch()
	defer func() { sc.give(); at.give() }() // they change places
	head, oldest := g.Head(s.Table, tier), uint64(1)
	if n := uint64(g.h.Tables[s.Table].Tier[tier].Rows); head > n {
		oldest = head - n + 1
	}
	var value, next Value // of the row under way, and of at
	var newest Row
	low, high := math.NaN(), math.NaN()
	inside := func(beginMono int64) {
		d.Rows++
		low, high = next.widen(low, high)
		if span := at.row.Mono - beginMono; span > step+step/2 {
			d.Gaps += time.Duration(span - step)
		}
	}
	born := false
	for n := head; n >= oldest && n > 0 && !covers; n-- {
		if !g.row(v, sc, s.Table, tier, n) {
			continue
		}
		var held bool
		value, held = sc.row.Value(s)
		switch {
		case !ok && !held: // retired since
			continue
		case !ok:
			newest = sc.row
			d, ok = Delta{To: newest.Time, Tier: tier, Last: value.clone(), buckets: s.Buckets}, true
		case sc.row.Epoch != newest.Epoch:
			covers = true
			continue
		case !held:
			born = true
			covers = true
			continue
		default:
			inside(sc.row.Mono)
			covers = newest.Mono-sc.row.Mono >= window-step/2
		}
		sc, at, next = at, sc, value
	}
	if !ok {
		return d, false, false
	}
	if born || !covers && (at.row.No == 1 || tier == 0 && at.row.No <= s.bornRow) {
		// The first row that holds it: everything in it happened since the registration.
		begin := at.row.Mono - max(at.row.Time-s.Start, 0)
		inside(begin)
		d.From, d.Elapsed, covers = s.Start, time.Duration(newest.Mono-begin), true
	} else {
		d.From, d.Elapsed, d.First = at.row.Time, time.Duration(newest.Mono-at.row.Mono), next.clone()
	}
	d.Change = d.Last.minus(d.First)
	if s.Kind == Gauge || s.Kind == Stat {
		d.Change.Min, d.Change.Max = low, high
	}
	return d, true, covers
}

// widen takes a row's extremes of a stat, or its value of a gauge, into a least and a greatest one; NaN is none.
func (v *Value) widen(low, high float64) (float64, float64) {
	l, h := v.Min, v.Max
	switch {
	case v.Kind == Gauge && v.Unset:
		return low, high
	case v.Kind == Gauge:
		l, h = v.Float, v.Float
	case v.Kind != Stat:
		return low, high
	}
	if !(low <= l) && l == l {
		low = l
	}
	if !(high >= h) && h == h {
		high = h
	}
	return low, high
}

// Seconds is the time that the delta covers.
func (d *Delta) Seconds() float64 { return d.Elapsed.Seconds() }

// PerSecond is the rate of a counter's or updown's change, or of that of a stat's or histogram's sum. It is
// NaN for a gauge, and where the delta covers no time.
func (d *Delta) PerSecond() float64 {
	var change float64
	switch d.Change.Kind {
	case Counter, UpDown:
		change = d.Change.Float
	case Stat, Histogram:
		change = d.Change.Sum
	default:
		return math.NaN()
	}
	if d.Elapsed <= 0 {
		return math.NaN()
	}
	return change / d.Seconds()
}

// Quantile estimates the q-quantile of what a histogram recorded in the window: see Value.Quantile.
func (d *Delta) Quantile(q float64) float64 { return d.Change.Quantile(d.buckets, q) }

// Quantile estimates the q-quantile of a histogram with the buckets of its series, as
// Prometheus does for native histograms: exponential interpolation inside a bucket, linear from 0 inside the zero bucket.
// What lies above the last bucket counts as that bucket's upper bound. NaN if nothing was recorded, or of another kind;
// -Inf for q < 0 and +Inf for q > 1.
func (v *Value) Quantile(buckets BucketRange, q float64) float64 {
	switch {
	case v.Kind != Histogram || v.Count == 0 || math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	rank := q * float64(v.Count)
	lower := layout.BucketUpper(buckets.Scale, buckets.Min-1)
	if n := float64(v.Zero); n > 0 && rank <= n {
		return lower * (rank / n)
	}
	rank -= float64(v.Zero)
	for i, count := range v.Buckets {
		n := float64(count)
		if n > 0 && rank <= n {
			bottom := layout.BucketUpper(buckets.Scale, buckets.Min+i-1)
			top := layout.BucketUpper(buckets.Scale, buckets.Min+i)
			b := math.Log2(bottom)
			return math.Exp2(b + (math.Log2(top)-b)*max(rank, 0)/n)
		}
		rank -= n
	}
	return layout.BucketUpper(buckets.Scale, buckets.Min+len(v.Buckets)-1)
}
