package bridge

import (
	"slices"
	"sort"

	"github.com/shmts/shmts/writer"
)

// Exemplar is one of a point's: a recorded value with its trace and the time of the record.
type Exemplar struct {
	Value float64
	writer.Exemplar
}

// Exemplars offers the exemplars of the point that was brought last under the key. The other library shows those that it holds again
// and again: only what is younger than all that came before is offered, oldest first. What has no trace or no time is
// counted. list is put in order.
func (s *Set[K]) Exemplars(key K, list []Exemplar) {
	e := s.byKey[key]
	if len(list) == 0 || e == nil || e.round != s.round || e.offer == nil {
		return
	}
	slices.SortStableFunc(list, func(a, b Exemplar) int { return a.Time.Compare(b.Time) })
	newest := e.newest
	for i := range list {
		x := &list[i]
		if x.Time.IsZero() || x.TraceID == [16]byte{} {
			if x.Time.IsZero() || x.Time.UnixNano() > e.newest {
				s.stats.untraced.Add(1)
			}
		} else if x.Time.UnixNano() > e.newest {
			e.offer(x.Value, x.Exemplar)
		}
		if !x.Time.IsZero() {
			newest = max(newest, x.Time.UnixNano())
		}
	}
	e.newest = newest
}

// offer gives an exemplar of an observation to the bucket that counts it, as Prometheus has it.
func (c *classic) offer(v float64, ex writer.Exemplar) {
	if i := sort.SearchFloat64s(c.bounds, v); i < len(c.buckets) { // the first bound that is not below
		c.buckets[i].h.MergeExemplar(v, ex)
	}
}
