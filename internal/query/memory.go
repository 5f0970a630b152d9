package query

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Memory is an account of what queries hold, within a limit: of one query, of all of a tenant, of the daemon. It is an estimate from what
// is known of each part while it is made, in bytes:
//
//   - rows: 8 for a time, 2 for an epoch, 8 for each number in it, as they were allocated, not as they were filled; a histogram has a
//     number for each bucket. Where they are copied, to put staleness markers and zeros between them, the copy as well;
//   - series: their labels and what is known of each;
//   - what the engine makes of a series: 16 for each instant at which it has a value, and for histograms their buckets and spans;
//   - lists of labels: each string, and its place;
//   - once a query is done, its result alone, until the client has taken it. It is written in parts of 64 KiB.
//
// Not in it: what the engine makes of that inside an expression, which is at most as much again for each operator that is at work, and
// what the Go runtime needs until it collects.
type Memory struct {
	parent *Memory
	limit  int64 // 0: none
	whose  string
	used   atomic.Int64
}

// NewMemory is an account inside of another, or of none.
func NewMemory(limit int64, whose string, parent *Memory) *Memory {
	return &Memory{parent: parent, limit: limit, whose: whose}
}

// Used is what is held now.
func (m *Memory) Used() int64 { return m.used.Load() }

// smallMemory is what a query may have whatever others hold: a look at what is now must always be possible.
const smallMemory = 256 << 10

// MemoryError says that a query would hold more memory than it may.
type MemoryError struct {
	Limit int64
	Whose string // "a query", or what has more than one
	// Shared says that it is the limit of several queries: later there may be room.
	Shared bool
}

func (e *MemoryError) Error() string {
	if e.Shared {
		return fmt.Sprintf("shmts: query: want at most %d bytes in memory of %s at once, got more: try again", e.Limit, e.Whose)
	}
	return fmt.Sprintf("shmts: query: want at most %d bytes in memory of %s, got more: ask for less time, a longer step or fewer series", e.Limit, e.Whose)
}

// take adds n bytes, or none with an error.
func (m *Memory) take(n int64) error {
	if m == nil {
		return nil
	}
	own := m.used.Load() + n
	for a := m; a != nil; a = a.parent {
		if used := a.used.Add(n); a.limit > 0 && used > a.limit && (a == m || own > smallMemory) && n > 0 {
			for b := m; ; b = b.parent {
				b.used.Add(-n)
				if b == a {
					return &MemoryError{a.limit, a.whose, a != m}
				}
			}
		}
	}
	return nil
}

// room is how much there is left, and the error of who takes more.
func (m *Memory) room() (least int64, full *MemoryError) {
	least = math.MaxInt64
	for a := m; a != nil; a = a.parent {
		if a.limit <= 0 {
			continue
		}
		n := a.limit - a.used.Load()
		if a != m {
			n = max(n, smallMemory-m.used.Load())
		}
		if n < least {
			least, full = n, &MemoryError{a.limit, a.whose, a != m}
		}
	}
	return least, full
}

// settle has the account hold n bytes and no more. Of an account that several charge it is an error of the caller's.
func (m *Memory) settle(n int64) error {
	if m == nil {
		return nil
	}
	return m.take(n - m.used.Load())
}

// What parts take, in bytes, beside what is in them.
const (
	seriesBytes = 320 // a series with its part, its place in lists and tables, and the engine's own
	stringBytes = 64  // one in a set of strings
	pointBytes  = 16

	histogramHead = 192 // a histogram of the engine's, without its buckets and spans
)

// bytes of a batch, as allocated.
func (b *Batch) bytes() int64 {
	n := 8*cap(b.Times) + 2*cap(b.Epochs)
	for i := range b.Floats {
		n += 8 * cap(b.Floats[i])
	}
	for i := range b.Hists {
		n += 8 * (cap(b.Hists[i].Sum) + cap(b.Hists[i].Counts))
	}
	return int64(n)
}

// bytes of what was copied out of batches.
func (s *samples) bytes() int64 { return int64(8*cap(s.times) + 8*cap(s.floats) + 16*cap(s.hists)) }

func histogramBytes(h *histogram.FloatHistogram) int64 {
	return int64(histogramHead + 8*(cap(h.PositiveBuckets)+cap(h.NegativeBuckets)+cap(h.PositiveSpans)+cap(h.NegativeSpans)))
}

// resultBytes is what a result takes.
func resultBytes(v parser.Value) (n int64) {
	of := func(ls labels.Labels) int64 { return int64(ls.ByteSize()) }
	switch v := v.(type) {
	case promql.Matrix:
		for i := range v {
			n += 64 + of(v[i].Metric) + pointBytes*int64(cap(v[i].Floats)+cap(v[i].Histograms))
			for _, h := range v[i].Histograms {
				n += histogramBytes(h.H)
			}
		}
	case promql.Vector:
		for i := range v {
			n += 64 + of(v[i].Metric)
			if h := v[i].H; h != nil {
				n += histogramBytes(h)
			}
		}
	case promql.String:
		n = int64(len(v.V))
	}
	return n
}
