package query

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// The classic view of histograms: x_bucket with le, x_sum and x_count, for dashboards that were made for those. It is not there
// until it is asked for by name: a histogram of 160 buckets would be as many series in every listing, and the native
// one says all that they do. Where a series of that name was recorded, it alone is meant.
//
// Every row of a histogram gives all of its le, filled or not, the first of which is the zero bucket's: so sum by (le) adds up
// what belongs together. All of them are made from the histogram's one column, and each counts against the query's limit.

// shape is how a part's values are made of its column.
type shape uint8

const (
	asIs     shape = iota
	asBucket       // a histogram's: counts up to one
	asSum          // a histogram's
	asCount        // a histogram's
	asRows         // how many rows of the finest tier the rows stand for
	asTotal        // what those add up to
)

type classicPart struct {
	part string
	as   shape
}

// classicParts are the metrics of the classic view.
var classicParts = []classicPart{{"bucket", asBucket}, {names.Sum, asSum}, {names.Count, asCount}}

// named are the names that matchers of mask ask for, literally.
func named(matchers []*labels.Matcher, mask uint64) (out []string) {
	for i, m := range matchers {
		if mask>>i&1 == 0 || m.Name != model.MetricNameLabel {
			continue
		}
		switch m.Type {
		case labels.MatchEqual:
			out = append(out, m.Value)
		case labels.MatchRegexp:
			out = append(out, m.SetMatches()...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// classic appends to out the metrics of the classic view that matchers of mask ask for and accept.
func (s *schema) classic(out []*metric, matchers []*labels.Matcher, mask uint64) []*metric {
	for _, name := range named(matchers, mask) {
		if _, ok := s.byName[name]; ok {
			continue
		}
		for _, c := range classicParts {
			whole, ok := strings.CutSuffix(name, "_"+c.part)
			if !ok {
				continue
			}
			for k := s.byName[whole].from; k < s.byName[whole].to; k++ {
				m := s.metrics[k]
				if m.field != Buckets {
					continue
				}
				m.name, m.as = name, c.as
				for _, m := range s.split(m) {
					if s.accepts(m, matchers, mask) {
						out = append(out, m)
					}
				}
			}
		}
	}
	return out
}

// split is m itself, or a metric for each le.
func (s *schema) split(m metric) []*metric {
	if m.as != asBucket {
		return []*metric{&m}
	}
	if slices.Contains(s.source, model.BucketLabel) {
		return nil // le is taken
	}
	r := s.series[m.series].Buckets
	own := slices.Clone(s.labels(&m))
	for i := range own {
		if own[i].Name == model.BucketLabel {
			own[i].Name = exported + own[i].Name
		}
	}
	out := make([]*metric, r.Count+2)
	slab := make([]metric, len(out))
	for k := range out {
		le := "+Inf"
		if k <= r.Count {
			le = labels.FormatOpenMetricsFloat(reader.BucketRange{Scale: r.Scale, Min: r.Min + k}.ZeroThreshold()) // a bucket's lower bound is the upper one of that before
		}
		slab[k] = m
		slab[k].bucket = int32(k) + 1
		slab[k].own = append(own[:len(own):len(own)], labels.Label{Name: model.BucketLabel, Value: le})
		slices.SortFunc(slab[k].own, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
		out[k] = &slab[k]
	}
	return out
}

// accepts tests a metric with the matchers of mask.
func (s *schema) accepts(m *metric, matchers []*labels.Matcher, mask uint64) bool {
	for i, mt := range matchers {
		value := m.name
		if mt.Name != model.MetricNameLabel {
			value = get(s.labels(m), mt.Name)
		}
		if mask>>i&1 == 1 && !mt.Matches(value) {
			return false
		}
	}
	return true
}

// labels are a metric's own.
func (s *schema) labels(m *metric) []labels.Label {
	if m.own != nil {
		return m.own
	}
	return s.own[m.series]
}

// classic is the column of counts, or of sums, of a histogram's rows.
func (h *HistColumn) classic(as shape, buckets int) []float64 {
	if as == asSum {
		return h.Sum
	}
	stride := h.Stride()
	if as == asCount {
		buckets = stride
	}
	out := make([]float64, len(h.Sum))
	for i, sum := range h.Sum {
		if isStale(sum) {
			out[i] = stale
			continue
		}
		n := uint64(0)
		for _, c := range h.Counts[i*stride : i*stride+buckets] {
			n += c
		}
		out[i] = float64(n)
	}
	return out
}

// want has the group read what a part is made of.
func (g *group) want(p *part, c Column) {
	p.column = -1
	if p.as != asIs { // all of one histogram's are made of its one column, and were asked for one after the other
		if n := len(g.columns) - 1; n >= 0 && g.columns[n] == c {
			p.column = n
		}
	}
	if p.column < 0 {
		p.column = len(g.columns)
		g.columns = append(g.columns, c)
	}
	if !g.plan.weighs() {
		return
	}
	switch {
	case g.plan.rows:
		p.as = asRows
	case c.Field == Buckets: // histograms and what they are seen as: the rows that there are
		return
	default:
		p.as = asTotal
		if c.Series != nil && c.Series.Kind == reader.Stat && c.Field == Value {
			p.sum, g.means = len(g.columns)+1, true
			g.columns = append(g.columns, Column{c.Series, Sum}, Column{c.Series, Count})
		}
	}
	if g.cover == 0 {
		g.columns = append(g.columns, Column{Field: Rows})
		g.cover = len(g.columns)
	}
}
