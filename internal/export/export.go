// Package export sends rows to receivers: it knows what goes out when, and in what order; a package below it knows how one
// protocol writes and sends it.
//
//	register ─▶ living segments' rings ──┐
//	                                     ├─▶ Exporter, one a destination ─▶ Encoder ─▶ receiver
//	archive ──▶ what the rings forgot ───┘        └─▶ positions, on disk
//
// Of each table of each segment, the rows of the coarsest tier that is not coarser than the destination's step go out as they were
// recorded: cumulative, with the writer's own times in whole milliseconds. Where that tier is much finer than the step it is thinned: a
// row goes out when it is the first of its step, by its own time alone, and the last one of a writer in any case. So two
// daemons that read one store send the same series, whenever each was started.
//
// A position, the number of the last row sent of each table of each segment, says what comes next. Rows stay in the segments'
// rings and in the archive until then, so nothing is queued here, and memory is one request whatever a receiver does.
//
// A dead writer's last row goes out with the others, and behind it, a millisecond later, an end for each of its series.
//
// No row is of a time that is still to come. Where the wall clock was stepped back, rows recorded before have such times: they
// are passed over as are those that are too many, and the next row says what they said, but for a gauge's value in between. A
// dead writer's last row goes out at the time that it is. An epoch that moved (FORMAT.md 10.9) begins a new stream of
// cumulative points only if one of them fell: otherwise the clocks were stepped, and what is counted goes on.
package export

import (
	"context"
	"time"

	"github.com/shmts/shmts/reader"
)

// Segment is what is exported. It is safe for concurrent use. *source.Segment is one.
type Segment interface {
	ID() string     // 32 hexadecimal digits
	Group() string  // of the incarnation: equal for segments that one process grew
	Source() string // equal for the incarnations of a source
	Inode() (dev, ino uint64)
	Labels() []reader.Pair
	Attributes() []reader.Pair
	Series() []*reader.Series // the same slice until one is registered or retired
	Overrides() map[*reader.Series][]reader.Pair
	Tables() []reader.Table
	Start() int64
	End() (int64, bool)
	// Rows yields a tier's rows numbered from and up, oldest first. A row is valid during its call.
	Rows(table, tier int, from uint64, yield func(*reader.Row) bool)
	// Head is the number of a tier's newest row, 0 if there is none.
	Head(table, tier int) uint64
}

// Exemplars has those of living segments. *exemplars.Store is one.
type Exemplars interface {
	// Newest is the number of the newest one of a file, 0 if there is none.
	Newest(segment string, inode uint64) uint64
	// Above yields those of a file numbered above after, oldest first.
	Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool)
}

// An Encoder writes rows as one protocol has them into a request, and sends it. It belongs to its Exporter's goroutine.
//
// A request is filled by Add and End, sent by Send as often as it takes, and then Reset.
type Encoder interface {
	// Add puts a row's points into the request, from a place on, until it is full. It answers how far it came, and whether that
	// was all of the row; if not, the next request begins there. An empty request takes at least one point. A row that does not fit beside
	// what is there is better left for the next one whole: cut, its first part would be repeated, were this process killed in between. A series that has a
	// point is set in src.Seen; of one that is there and Gone the end is written instead, and it is cleared.
	Add(src *Source, row *Row, at Cursor) (Cursor, bool)
	// End puts the end of all series of the row's table that are in src.Seen into the request, as Add does: no value from its time on. Such
	// a row holds nothing, but knows Starts.
	End(src *Source, row *Row, at Cursor) (Cursor, bool)
	// Full tells whether the request is to be sent before more is added.
	Full() bool
	// Points is how many points are in the request.
	Points() int
	// Send sends the request once. After a Retry it is called again, with what was not taken; an encoder that sends in several
	// parts at once keeps those that were.
	Send(ctx context.Context) Result
	// Reset empties the request.
	Reset()
}

// Cursor is a place in a row, or in an end, at which a request was full. What its numbers mean is the Encoder's. The zero value is the beginning.
type Cursor struct{ Metric, Point int }

// Result is what became of one attempt to send.
type Result struct {
	Err     error          // nil: the receiver took it, perhaps but for Refused
	Retry   bool           // the protocol says to send what is left again
	After   time.Duration  // and not before; 0: it doesn't say
	Taken   int            // points that were taken
	Refused map[string]int // points that never will be, by reason. They are not sent again
	Message string         // what a receiver that took it had to say
	Bytes   int            // on the wire, before TLS, headers not counted
}

// Outcomes of an attempt.
const (
	OutcomeOK      = "ok"
	OutcomePartial = "partial" // taken, but for some points
	OutcomeRetry   = "retry"   // failed in a way that the protocol says to retry
	OutcomeRefused = "refused" // failed for good: the request is dropped
)

func (r *Result) outcome() string {
	switch {
	case r.Err == nil && len(r.Refused) == 0 && r.Message == "":
		return OutcomeOK
	case r.Err == nil:
		return OutcomePartial
	case r.Retry:
		return OutcomeRetry
	}
	return OutcomeRefused
}
