// Package names turns what an author wrote into what Prometheus and OTLP call it, by
// OpenTelemetry's rules of compatibility with Prometheus.
//
// A segment holds the author's words: a name such as "rx_packets_total" or
// "http.server.request.duration", and a UCUM unit such as "s". They are translated once on
// their way out, and nowhere else:
//
//   - To PromQL, Metric: only letters, digits, '_' and ':'; the unit as a word (s: seconds, By:
//     bytes); counters end in _total, gauges of unit 1 in _ratio. Runs of other characters
//     become one '_'. A name that already says its unit, or _total, does not say it twice.
//   - To OTLP: name and unit as recorded. A receiver that feeds Prometheus applies the same rules,
//     and arrives at the same name; so _total is not taken off, as it would not come back on a
//     receiver that adds no suffixes.
//
// Attributes become labels by Label; those of the source become target_info, but for the three
// that say who it is, which are job and instance: see Resource and Source.
package names

import (
	"slices"
	"strings"

	"github.com/prometheus/otlptranslator"

	"github.com/shmts/shmts/reader"
)

var (
	metricNamer = otlptranslator.MetricNamer{WithMetricSuffixes: true}
	unitNamer   = otlptranslator.UnitNamer{}
	labelNamer  = otlptranslator.LabelNamer{}
)

// Metric is the Prometheus name of a series of this name, UCUM unit and kind. A stat is several
// metrics, see Part. A name of which nothing legal is left (such as "日") becomes "_".
func Metric(name, unit string, kind reader.Kind) string {
	m := otlptranslator.Metric{Name: name, Unit: unit}
	switch kind {
	case reader.Counter:
		m.Type = otlptranslator.MetricTypeMonotonicCounter
	case reader.UpDown:
		m.Type = otlptranslator.MetricTypeNonMonotonicCounter
	case reader.Gauge, reader.Stat:
		m.Type = otlptranslator.MetricTypeGauge
	case reader.Histogram:
		m.Type = otlptranslator.MetricTypeExponentialHistogram
	}
	s, err := metricNamer.Build(m)
	if err != nil {
		return "_"
	}
	return s
}

// Unit is the word for a UCUM unit, as metrics' names have it: "seconds" for "s". Empty if there is none, as for "{packet}".
func Unit(ucum string) string { return unitNamer.Build(ucum) }

// The parts of a stat. Last has the stat's own name.
const (
	Last  = ""
	Min   = "min"
	Max   = "max"
	Sum   = "sum"
	Count = "count"
)

// StatPart is the Prometheus name of a part of a stat whose own is metric: latency_seconds_max.
func StatPart(metric, part string) string {
	if part == "" {
		return metric
	}
	return metric + "_" + part
}

// OTelStatPart is the OTLP name of a part of a stat named name: queue.depth.max where the author
// writes dots, queue_depth_max where he does not.
func OTelStatPart(name, part string) string {
	switch {
	case part == "":
		return name
	case strings.Contains(name, "."):
		return name + "." + part
	}
	return name + "_" + part
}

// Label is the Prometheus name of a label or attribute. One of which nothing legal is left becomes "_".
func Label(name string) string {
	if plainLabel(name) {
		return name
	}
	s, err := labelNamer.Build(name)
	if err != nil {
		return "_"
	}
	return s
}

// plainLabel tells the names that the rules leave alone from others, without the rules' allocations.
func plainLabel(name string) bool {
	letter, before := false, byte(0)
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letter = true
		case c >= '0' && c <= '9' && i > 0:
		case c == '_' && before != '_':
		default:
			return false
		}
		before = c
	}
	return letter
}

// Labels translates the names of pairs and sorts by them. Where two become one, their values are
// joined by ';' in the order of the original names, as the rules say.
func Labels(pairs []reader.Pair) []reader.Pair {
	out := make([]reader.Pair, 0, len(pairs))
	sorted := slices.Clone(pairs)
	slices.SortStableFunc(sorted, byName)
	for _, p := range sorted {
		name := Label(p.Name)
		if i := slices.IndexFunc(out, func(o reader.Pair) bool { return o.Name == name }); i >= 0 {
			out[i].Value += ";" + p.Value
			continue
		}
		out = append(out, reader.Pair{Name: name, Value: p.Value})
	}
	slices.SortFunc(out, byName)
	return out
}

// Exported is Prometheus's rule for a series' label that the source has too: it is put in front of the series' own.
const Exported = "exported_"

// SeriesLabels are a series' own labels with legal names, sorted, without empty values; Exported where the source has a label
// of that name.
func SeriesLabels(own []reader.Pair, source []string) []reader.Pair {
	if len(own) == 0 {
		return nil
	}
	out := make([]reader.Pair, 0, len(own))
	legal := Labels(own)
	for _, p := range legal {
		n := p.Name
		taken := func(n string) bool {
			return n == metricName || slices.Contains(source, n) || slices.ContainsFunc(out, func(o reader.Pair) bool { return o.Name == n })
		}
		if taken(n) {
			for n = Exported + n; taken(n) || slices.ContainsFunc(legal, func(p reader.Pair) bool { return p.Name == n }); {
				n = Exported + n
			}
		}
		if p.Value != "" {
			out = append(out, reader.Pair{Name: n, Value: p.Value})
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// metricName is the label that holds it.
const metricName = "__name__"

func byName(a, b reader.Pair) int { return strings.Compare(a.Name, b.Name) }
