package bridge

import (
	"math"
	"slices"
	"strconv"

	"github.com/shmts/shmts/writer"
)

// Classic is a point of a histogram with explicit bounds, or of a summary. The format has no such kind: it becomes the
// series that Prometheus makes of it, <name>_count, <name>_sum, and <name>_bucket with a label le, or <name> with a label
// quantile. Counts are counters, quantiles gauges; the sum is a counter until it falls, as negative
// observations make it, and a gauge from then on.
type Classic struct {
	Bounds    []float64 // of buckets, ascending; the last one, +Inf, may be left out
	Counts    []uint64  // of what lies at or below each
	Summary   bool      // it has Quantiles, perhaps none, and no Bounds
	Quantiles []float64
	Values    []float64 // at each
	Count     uint64
	Sum       float64
	Start     int64 // unix ns; 0: unknown
}

type classic struct {
	bounds    []float64
	quantiles []float64
	buckets   []count
	gauges    []*writer.Gauge
	count     count
	sum       *writer.Gauge // in the place of entry.amount, once it fell
}

// Classic brings a point.
func (s *Set[K]) Classic(key K, p *Classic, describe func() Series) {
	bounds := p.Bounds
	if n := len(bounds); n > 0 && math.IsInf(bounds[n-1], 1) {
		bounds = bounds[:n-1]
	}
	if e := s.byKey[key]; e != nil && e.form == formClassic &&
		(!slices.Equal(bounds, e.classic.bounds) || !slices.Equal(p.Quantiles, e.classic.quantiles)) {
		s.drop(key, e)
	}
	e, fresh := s.entry(key, formClassic, describe)
	if e == nil {
		return
	}
	c := &e.classic
	if fresh {
		s.registerClassic(e, bounds, p.Quantiles, !p.Summary)
	}
	restarted := e.restarted(p.Start) || p.Count < c.count.last
	for i := range c.buckets {
		total := p.Count
		if i < len(bounds) {
			total = p.Counts[i]
		}
		c.buckets[i].to(total, restarted)
	}
	for i := range c.gauges {
		c.gauges[i].Set(p.Values[i])
	}
	c.count.to(p.Count, restarted)
	if c.sum == nil && (!isTotal(p.Sum) || p.Sum < e.amount.last && !restarted) {
		e.handles[0].Retire()
		c.sum = register(s, e, "_sum", (*writer.Writer).Gauge)
	}
	if c.sum != nil {
		c.sum.Set(p.Sum)
		return
	}
	e.amount.to(p.Sum, restarted)
}

func (s *Set[K]) registerClassic(e *entry, bounds, quantiles []float64, buckets bool) {
	c := &e.classic
	c.bounds, c.quantiles = slices.Clone(bounds), slices.Clone(quantiles)
	e.amount.add = register(s, e, "_sum", (*writer.Writer).FloatCounter).Merge
	c.count.h = register(s, e, "_count", (*writer.Writer).Counter)
	for _, q := range quantiles {
		c.gauges = append(c.gauges, register(s, e, "", (*writer.Writer).Gauge, writer.Label("quantile", number(q))))
	}
	if !buckets {
		return
	}
	for _, b := range append(slices.Clone(bounds), math.Inf(1)) {
		c.buckets = append(c.buckets, count{h: register(s, e, "_bucket", (*writer.Writer).Counter, writer.Label("le", number(b)))})
	}
	e.offer = c.offer
}

// number is a bound or quantile as Prometheus writes it.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
