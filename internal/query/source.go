// Package query is PromQL over rows: a storage.Queryable that shows the series of
// segments to the real Prometheus engine.
//
// Data comes in through Sources, an interface that this package declares: segments
// that are read in place, an archive's incarnations, or both as one. From there on it is
// columns: one pass over the rows of one table, one tier and one span of time
// collects all series that a selector wants of it, and everything behind that
// (tier joins, staleness, start-time zeros, merging of incarnations) sees columns
// of milliseconds and values, never a row.
//
//	matchers ─▶ schema (shared by segments) ─▶ plan: which tier, since when ─▶ columns ─▶ series
//
// What a selector reads is decided in plan.go, and only there.
package query

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/reader"
)

// Sources is where segments come from. It is safe for concurrent use.
type Sources interface {
	// Select answers segments, oldest first: all that may have a row that is asked for, and perhaps others. The slice is not
	// changed afterwards, by nobody. Warnings say what is missing; an error, that nothing can be said.
	Select(ctx context.Context, s Selection) (found []Segment, warnings []error, err error)
	// Coarsest is the longest step from row to row in any tier that there is.
	Coarsest() time.Duration
}

// Selection is what Select is asked for. Times are unix ms, inclusive.
type Selection struct {
	From, To int64 // rows of which time are wanted
	// First is the first instant that is evaluated: of what has ended before it no row is wanted, nor one that had gone stale
	// by then. It is From where rows count however old they are.
	First    int64
	Matchers []*labels.Matcher
	// Exemplars, if not 0, says that exemplars are wanted, of those times, and not rows: each segment that has any is answered as an Exemplary,
	// and no others. It is how many there may be, all together.
	Exemplars int
	// Yield, if not nil, is to be called now and then by what takes long.
	Yield func(context.Context)
	// Partial says that where more is found than may be, a part of it with a warning will do.
	Partial bool
}

// ErrTooManySources is what Select answers, wrapped, where it finds more than may be.
var ErrTooManySources = errors.New("shmts: query: too many sources")

// Snapshot is Sources of segments that are all at hand: what it answers is oldest first, and not changed afterwards.
type Snapshot func() []Segment

// Select implements Sources.
func (f Snapshot) Select(context.Context, Selection) ([]Segment, []error, error) {
	return f(), nil, nil
}

// Coarsest implements Sources.
func (f Snapshot) Coarsest() time.Duration { return Coarsest(f()) }

// Coarsest is the longest step of any tier of some segments.
func Coarsest(segments []Segment) (d time.Duration) {
	for _, g := range segments {
		for _, t := range g.Tables() {
			if n := len(t.Tiers); n > 0 {
				d = max(d, t.Tiers[n-1].Step)
			}
		}
	}
	return d
}

// Segment is one writer process's rows: of a living process, of a dead one that is kept, or of either as an archive has them.
// It is safe for concurrent use; *reader.Segment alone is not.
type Segment interface {
	// Labels are those that every series carries: job, instance and others, sorted.
	Labels() []reader.Pair
	// Attributes are the resource attributes, from which target_info is made.
	Attributes() []reader.Pair
	// Series are the segment's. The slice is the same one until a series is registered or
	// retired, and is not changed: what is known of it is kept by its identity.
	Series() []*reader.Series
	// Overrides are labels that single series carry beside Labels, such as shmts_segment
	// where two live segments say the same series. Nil for nearly all segments.
	Overrides() map[*reader.Series][]reader.Pair
	// Tables, each with its tiers, finest first.
	Tables() []reader.Table
	// Between yields the rows of a tier whose Time lies in [begin, end], unix ns, oldest
	// first, until yield says false. A row is valid during the call that it is passed to.
	Between(table, tier int, begin, end int64, yield func(*reader.Row) bool)
	// Start is the unix ns of birth.
	Start() int64
	// End is the unix ns of the last row, once the process has ended.
	End() (int64, bool)
	// AsOf is the unix ns up to which rows are known: later ones may be there and not be
	// seen yet, so what is missing since then is no gap. 0: nothing is known of it.
	AsOf() int64
}

// ColumnReader is a Segment that has columns already, and would have to make rows for
// Between, which is not called then. Columns appends to dst what Between's rows would have given: see Batch. An error
// says what is missing of it; what was appended counts.
type ColumnReader interface {
	Columns(table, tier int, begin, end int64, dst *Batch) error
}

// NewestReader is a Segment that finds the newest row of a span without reading the others. It yields what
// Between would have yielded last.
type NewestReader interface {
	Newest(table, tier int, begin, end int64, yield func(*reader.Row) bool)
}

// Archived is a Segment of which an archive has rows. Of its Tables, two tiers may have one step: a writer's own ring
// and what was folded. Tiers may end before others do, and begin later.
type Archived interface {
	ColumnReader
	// Starts are when each of Series was registered, unix ms, where the segment shares its Series with others; nil where each
	// Series' own Start says so.
	Starts() []int64
	// Span says what a tier of Tables has, without reading it.
	Span(table, tier int) Span
}

// Span is where in time the rows of a tier are, unix ms: none, if Oldest is greater than Newest.
type Span struct {
	Oldest, Newest int64
	Folded         bool // a gauge has a Min, Max, Sum and Count of its own, which say all that the finest tier did
}
