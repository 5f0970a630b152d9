package otlp

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// parts are a bit for each metric that a series becomes: of a stat in the order of partsOf, of anything else the first.
type parts uint8

var statParts = []string{names.Last, names.Min, names.Max, names.Sum, names.Count}

func partsOf(kind reader.Kind) []string {
	if kind == reader.Stat {
		return statParts
	}
	return statParts[:1]
}

// keep applies rules to what PromQL calls the metrics of a source's series. nil: there are no rules.
func keep(src *export.Source, rules *relabel.Rules) []parts {
	if rules.Len() == 0 {
		return nil
	}
	all := make([]parts, len(src.Series))
	base := labels.NewBuilder(labels.EmptyLabels())
	var of []string
	for _, p := range names.Labels(src.Labels) {
		base.Set(p.Name, p.Value)
		of = append(of, p.Name)
	}
	source := base.Labels()
	b := labels.NewBuilder(source)
	for i, s := range src.Series {
		metric := names.Metric(s.Name, s.Unit, s.Kind)
		for bit, part := range partsOf(s.Kind) {
			b.Reset(source)
			for _, p := range names.SeriesLabels(s.Labels, of) {
				b.Set(p.Name, p.Value)
			}
			for _, p := range src.Overrides[s] {
				b.Set(p.Name, p.Value)
			}
			b.Set(model.MetricNameLabel, names.StatPart(metric, part))
			if rules.Process(b) == relabel.Kept {
				all[i] |= 1 << bit
			}
		}
	}
	return all
}
