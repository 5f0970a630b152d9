// Package query is PromQL over rows: a storage.Queryable that shows the series of
// segments to the real Prometheus engine.
//
// Data comes in through Sources, an interface that this package declares: segments
// that are read in place now, an archive's extents later. From there on it is
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
	"github.com/shmts/shmts/reader"
)

// Sources is where segments come from. It is safe for concurrent use.
type Sources interface {
	// Segments is a snapshot, oldest first. The slice is not changed afterwards.
	Segments() []Segment
}

// Segment is one writer process's rows: of a living process, or of a dead one that is kept.
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
// Between. It appends to dst what Between's rows would have given: see Batch.
type ColumnReader interface {
	Columns(table, tier int, begin, end int64, dst *Batch)
}

// NewestReader is a Segment that finds the newest row of a span without reading the others. It yields what
// Between would have yielded last.
type NewestReader interface {
	Newest(table, tier int, begin, end int64, yield func(*reader.Row) bool)
}
