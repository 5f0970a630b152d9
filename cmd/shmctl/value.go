package main

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// What --json prints of a value: the parts that the kind has.
type valueJSON struct {
	Value   any          `json:"value,omitempty" doc:"counter, updown, gauge: the value; absent from a gauge never set"`
	Count   *uint64      `json:"count,omitempty" doc:"stat, histogram"`
	Sum     any          `json:"sum,omitempty" doc:"stat, histogram"`
	Last    any          `json:"last,omitempty" doc:"stat; absent when nothing was recorded yet"`
	Min     any          `json:"min,omitempty" doc:"stat: of the row's own window; absent when nothing was recorded in it"`
	Max     any          `json:"max,omitempty" doc:"stat: as min"`
	Zero    *uint64      `json:"zero,omitempty" doc:"histogram: what lies at or below the lowest bucket's lower bound"`
	Above   *uint64      `json:"above,omitempty" doc:"histogram: what lies beyond the last bucket"`
	Buckets []bucketJSON `json:"buckets,omitempty" doc:"histogram: those that hold something"`
}

type bucketJSON struct {
	Lower float64 `json:"lower" doc:"exclusive"`
	Upper float64 `json:"upper" doc:"inclusive"`
	Count uint64  `json:"count" doc:"cumulative since birth, of this bucket alone"`
}

// number is a float for JSON: nil for what has no value, a string for infinities and NaN, for which
// JSON has no word.
func number(v float64, unset bool) any {
	switch {
	case unset:
		return nil
	case math.IsNaN(v) || math.IsInf(v, 0):
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return v
}

// scalar is the value of a counter, updown or gauge, exact.
func scalar(v *reader.Value) any {
	switch {
	case v.Kind == reader.Gauge && v.Unset:
		return nil
	case v.Number == reader.U64:
		return uint64(v.Int)
	case v.Number == reader.I64:
		return v.Int
	}
	return number(v.Float, false)
}

func valueOf(s *reader.Series, v *reader.Value) valueJSON {
	switch s.Kind {
	case reader.Stat:
		return valueJSON{Count: &v.Count, Sum: number(v.Sum, false), Last: number(v.Last, v.Unset || math.IsNaN(v.Last)),
			Min: number(v.Min, math.IsNaN(v.Min)), Max: number(v.Max, math.IsNaN(v.Max))}
	case reader.Histogram:
		j := valueJSON{Count: &v.Count, Sum: number(v.Sum, false), Zero: &v.Zero, Above: &v.Above}
		for i, n := range v.Buckets {
			if n > 0 {
				at := s.Buckets.Min + i
				j.Buckets = append(j.Buckets, bucketJSON{layout.BucketUpper(s.Buckets.Scale, at-1), layout.BucketUpper(s.Buckets.Scale, at), n})
			}
		}
		return j
	}
	return valueJSON{Value: scalar(v)}
}

// valueText is a value on one line.
func valueText(s *reader.Series, v *reader.Value) string {
	switch s.Kind {
	case reader.Stat:
		if v.Count == 0 {
			return "count=0"
		}
		return fmt.Sprintf("count=%d mean=%s last=%s min=%s max=%s", v.Count, shortText(v.Sum/float64(v.Count)),
			shortText(v.Last), shortText(v.Min), shortText(v.Max))
	case reader.Histogram:
		if v.Count == 0 {
			return "count=0"
		}
		return fmt.Sprintf("count=%d mean=%s p50=%s p99=%s", v.Count, shortText(v.Sum/float64(v.Count)),
			shortText(v.Quantile(s.Buckets, 0.5)), shortText(v.Quantile(s.Buckets, 0.99)))
	}
	return partText(scalar(v))
}

// partText prints what scalar and number answer.
func partText(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case float64:
		return floatText(v)
	}
	return fmt.Sprint(v)
}

// parts are a value's parts by the names that cat gives its columns. before is the value in the row
// before, if there is one: quantiles are of what was recorded in between.
func parts(s *reader.Series, v, before *reader.Value) map[string]any {
	switch s.Kind {
	case reader.Stat:
		j := valueOf(s, v)
		return map[string]any{"count": v.Count, "sum": j.Sum, "last": j.Last, "min": j.Min, "max": j.Max}
	case reader.Histogram:
		d := since(v, before)
		m := map[string]any{"count": v.Count, "sum": number(v.Sum, false)}
		for name, q := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99} {
			x := d.Quantile(s.Buckets, q)
			m[name] = number(x, math.IsNaN(x))
		}
		return m
	}
	return map[string]any{"value": scalar(v)}
}

// partNames are the columns in the order in which they stand.
var partNames = []string{"value", "count", "sum", "last", "min", "max", "p50", "p90", "p99"}

func partsOf(k reader.Kind) []string {
	switch k {
	case reader.Stat:
		return partNames[1:6]
	case reader.Histogram:
		return []string{"count", "sum", "p50", "p90", "p99"}
	}
	return partNames[:1]
}

// since subtracts a histogram's earlier value; from one of another epoch, which may be
// larger, nothing.
func since(v, before *reader.Value) reader.Value {
	d := *v
	if before == nil || before.Count > v.Count || len(before.Buckets) != len(v.Buckets) {
		return d
	}
	d.Buckets = make([]uint64, len(v.Buckets))
	for i := range d.Buckets {
		d.Buckets[i] = v.Buckets[i] - before.Buckets[i]
	}
	d.Count, d.Zero, d.Above, d.Sum = v.Count-before.Count, v.Zero-before.Zero, v.Above-before.Above, v.Sum-before.Sum
	return d
}

// keep is a copy of a value that outlives its row.
func keep(v reader.Value) *reader.Value {
	v.Buckets = slices.Clone(v.Buckets)
	return &v
}

// A pick says which series are meant: a name, in which * and ? stand for text, and labels that they have.
type pick struct {
	name   string
	labels []layout.Pair
}

// parsePick reads name or name{a="b",...}.
func parsePick(text string) (pick, error) {
	name, labels, err := parseSeries(text)
	if err == nil {
		if _, bad := path.Match(name, ""); bad != nil {
			err = fmt.Errorf("shmts: series %q: want a name with * and ? at most, got %w", text, bad)
		}
	}
	return pick{name, labels}, err
}

func (p *pick) is(s *reader.Series) bool {
	if ok, _ := path.Match(p.name, s.Name); !ok && p.name != s.Name {
		return false
	}
	for _, l := range p.labels {
		if layout.Value(s.Labels, l.Name) != l.Value {
			return false
		}
	}
	return true
}

// parseSeries reads name or name{a="b",c="d"}; values are quoted as in Go and PromQL.
func parseSeries(text string) (name string, labels []layout.Pair, err error) {
	bad := func(want string, at string) (string, []layout.Pair, error) {
		return "", nil, fmt.Errorf("shmts: series %q: want %s, got %q", text, want, at)
	}
	text = strings.TrimSpace(text)
	open := strings.IndexByte(text, '{')
	if open < 0 {
		if text == "" {
			return bad("a name", text)
		}
		return text, nil, nil
	}
	name = strings.TrimSpace(text[:open])
	rest := strings.TrimSpace(text[open+1:])
	if name == "" {
		return bad("a name before {", text)
	}
	for !strings.HasPrefix(rest, "}") {
		label, after, ok := strings.Cut(rest, "=")
		if label = strings.TrimSpace(label); !ok || label == "" || strings.ContainsAny(label, `{}",`) {
			return bad(`label="value"`, rest)
		}
		after = strings.TrimSpace(after)
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil || quoted[0] == '\'' {
			return bad("a quoted value", after)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return bad("a quoted value", after)
		}
		labels = append(labels, layout.Pair{Name: label, Value: value})
		rest = strings.TrimSpace(after[len(quoted):])
		if more, ok := strings.CutPrefix(rest, ","); ok {
			rest = strings.TrimSpace(more)
		} else if !strings.HasPrefix(rest, "}") {
			return bad(`, or }`, rest)
		}
	}
	if rest != "}" {
		return bad("nothing behind }", rest[1:])
	}
	return name, labels, nil
}
