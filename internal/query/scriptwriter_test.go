package query_test

import (
	"math"
	"regexp"
	"time"

	"github.com/prometheus/prometheus/model/value"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// absolute are expressions whose answer is of the time itself. A script's begins at 1970, when no writer did.
var absolute = regexp.MustCompile(`@|time|date|day|hour|minute|month|year|start\(|end\(|ts_of|step\(|range\(`)

// written are the series of a script as writers record them, each a gauge of a process of its own whose tier has the step of its
// load line, and what is time 0 there, unix ms. Nil, if that can't be:
//
//   - a writer ticks at steps of 100 ms to 1 h, from its birth on, and never says that a gauge is stale;
//   - all that it knows ends at once: of series that end before others it knows that they did, and Prometheus goes by its lookback;
//   - names and labels that a writer has no words for are translated, and would be others.
func (s *script) written(line string) (query.Sources, int64) {
	base := time.Now().Truncate(24 * time.Hour).UnixMilli()
	if s.unfit || len(s.series) == 0 || absolute.MatchString(line) {
		return nil, 0
	}
	if s.store == nil {
		end, cells := int64(-1), 0
		for _, g := range s.series {
			if cells += len(g.times); !g.fit() || end >= 0 && g.times[len(g.times)-1] != end || cells > 20_000 {
				s.unfit = true
				return nil, 0
			}
			end = g.times[len(g.times)-1]
		}
		s.store = newStore(s.t, false)
		for _, g := range s.series {
			step := g.times[1]
			s.store.now.Store((base - step) * 1e6)
			w := s.store.writer(writer.Options{Job: "script", Instance: "script", Descriptors: 2, HeapBytes: 4096, Tables: []writer.Table{
				{Name: "scalars", Gauges: 1, Lanes: 1, Tiers: []writer.Tier{{Step: time.Duration(step) * time.Millisecond, Rows: len(g.times) + 8}}},
			}})
			var pairs []string
			for _, l := range g.labels {
				pairs = append(pairs, l.Name, l.Value)
			}
			gauge := w.Gauge(g.series[0].Name, writer.Labels(pairs...))
			for i, v := range g.values {
				gauge.Set(v)
				s.store.now.Store((base + g.times[i]) * 1e6)
				w.Tick()
			}
		}
		s.store.poll()
	}
	return query.Snapshot(func() (out []query.Segment) {
		for _, g := range s.store.register.Segments() {
			out = append(out, bare{g})
		}
		return out
	}), base
}

// fit tells whether a writer could record a series.
func (g *scriptSegment) fit() bool {
	name := g.series[0].Name
	if len(g.times) < 2 || g.times[1] < 100 || g.times[1]%100 != 0 || g.times[1] > 3_600_000 || name == "" || names.Metric(name, "", reader.Gauge) != name {
		return false
	}
	for i, t := range g.times {
		if t != int64(i)*g.times[1] || math.Float64bits(g.values[i]) == value.StaleNaN {
			return false
		}
	}
	for _, l := range g.labels {
		if names.Label(l.Name) != l.Name || l.Value == "" {
			return false
		}
	}
	return true
}

// bare is a process that says nothing of itself: a script's series have the labels that they have.
type bare struct{ query.Segment }

func (bare) Labels() []reader.Pair     { return nil }
func (bare) Attributes() []reader.Pair { return nil }
