package query_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/almost"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// The scripts that come with Prometheus's promqltest, against our Storage, by a runner of our own: promqltest itself
// would bring fifty modules, cloud SDKs among them, into go.mod. What it does not run:
//
//   - what is evaluated over native histograms of a script: their shapes (negative or custom buckets) are none of ours;
//   - names that OpenTelemetry's rules would write otherwise, of which there are four, with two _ side by side;
//   - start_timestamps.test: a 0 sample says here what start timestamps say there;
//   - expected annotations, and range vectors as results.
//
// Everything is evaluated over a Sources of the test's own; and what real writers can record in step with a script, over their rows
// too: see written.
func TestPromQLScripts(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	if err != nil {
		t.Skipf("the scripts are in Prometheus's module, which can't be found: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "promql/promqltest/testdata/*.test"))
	if len(files) < 15 {
		t.Fatalf("want Prometheus's scripts, got %d files", len(files))
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 10_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, EnableDelayedNameRemoval: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, Parser: scriptParser,
	})
	total, recorded := 0, 0
	for _, file := range files {
		name := filepath.Base(file)
		if name == "start_timestamps.test" || name == "native_histograms.test" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, engine: engine}
			s.run(string(text))
			t.Logf("%d evaluated, %d of them also over writers' rows, %d over histograms left out", s.evaluated, s.recorded, s.left)
			total += s.evaluated
			recorded += s.recorded
		})
	}
	if total < 1000 || recorded < 250 {
		t.Errorf("want some hundred expressions evaluated, got %d, %d over writers' rows", total, recorded)
	}
}

var scriptParser = parser.NewParser(parser.Options{
	EnableExperimentalFunctions: true, EnableBinopFillModifiers: true, EnableUnquotedUTF8Names: true,
})

var (
	loadLine    = regexp.MustCompile(`^load(_with_nhcb)?\s+(.+?)$`)
	instantLine = regexp.MustCompile(`^eval(?:_(\w+))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$`)
	rangeLine   = regexp.MustCompile(`^eval(?:_(\w+))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$`)
)

// script runs one file. The language is promqltest's.
type script struct {
	t               *testing.T
	engine          *promql.Engine
	segments        []query.Segment
	series          map[string]*scriptSegment
	foreign         map[string]bool // names under which histograms were loaded, or that nothing here has
	evaluated, left int

	recorded int    // also evaluated over what writers recorded
	store    *store // of those, nil: not made yet
	unfit    bool   // no writer could
}

func (s *script) clear() {
	s.segments, s.series, s.foreign = nil, map[string]*scriptSegment{}, map[string]bool{}
	s.store, s.unfit = nil, false
}

func (s *script) run(text string) {
	s.clear()
	lines := strings.Split(text, "\n")
	for i := range lines {
		if lines[i] = strings.TrimSpace(lines[i]); strings.HasPrefix(lines[i], "#") {
			lines[i] = ""
		}
	}
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		body := i + 1
		for body < len(lines) && lines[body] != "" {
			body++
		}
		switch {
		case line == "":
		case line == "clear":
			s.clear()
		case strings.HasPrefix(line, "load"):
			s.load(line, lines[i+1:body])
			i = body
		case strings.HasPrefix(line, "eval"):
			if at := fmt.Sprintf("line %d: %s", i+1, line); s.abroad(line) || strings.Contains(strings.Join(lines[i:body], " "), "{{") {
				s.left++
			} else if err := s.eval(line, lines[i+1:body], querytest.Segments(s.segments), 0); err == errNotRun {
				s.left++
			} else if s.evaluated++; err != nil {
				s.t.Errorf("%s: %v", at, err)
			} else if written, base := s.written(line); written != nil {
				if s.recorded++; s.eval(line, lines[i+1:body], written, base) != nil {
					s.t.Errorf("%s: recorded by writers: %v", at, s.eval(line, lines[i+1:body], written, base))
				}
			}
			i = body
		default:
			s.t.Fatalf("line %d: %q", i+1, line)
		}
	}
}

// abroad tells whether a line's expression may select a histogram.
func (s *script) abroad(line string) bool {
	if len(s.foreign) == 0 {
		return false
	}
	var text string
	if m := rangeLine.FindStringSubmatch(line); m != nil {
		text = m[5]
	} else if m := instantLine.FindStringSubmatch(line); m != nil {
		text = m[3]
	}
	expr, err := scriptParser.ParseExpr(text)
	if err != nil {
		return false
	}
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			for name := range s.foreign {
				matches := true
				for _, m := range v.LabelMatchers {
					matches = matches && (m.Name != model.MetricNameLabel || m.Matches(name))
				}
				found = found || matches
			}
		}
		return nil
	})
	return found
}

func (s *script) load(head string, body []string) {
	m := loadLine.FindStringSubmatch(head)
	gap, err := model.ParseDuration(m[2])
	if err != nil {
		s.t.Fatalf("%s: %v", head, err)
	}
	s.store = nil
	for _, line := range body {
		ls, values, err := scriptParser.ParseSeriesDesc(line)
		if err != nil {
			s.t.Fatalf("%s: %s: %v", head, line, err)
		}
		name := ls.Get(model.MetricNameLabel)
		if m[1] != "" { // a native histogram beside the classic one
			name := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
			s.foreign[name] = true
		}
		if strings.Contains(line, "{{") || name != "" && names.Metric(name, "", reader.Gauge) != name {
			s.foreign[name] = true
			continue
		}
		g := s.series[ls.String()]
		if g == nil {
			g = &scriptSegment{series: []*reader.Series{{Definition: &reader.Definition{Name: ls.Get(model.MetricNameLabel), Kind: reader.Gauge, Number: reader.F64}}}}
			ls.Range(func(l labels.Label) {
				if l.Name != model.MetricNameLabel {
					g.labels = append(g.labels, reader.Pair{Name: l.Name, Value: l.Value})
				}
			})
			s.series[ls.String()] = g
			s.segments = append(s.segments, g)
		}
		for i, v := range values {
			if !v.Omitted {
				g.times, g.values = append(g.times, int64(i)*time.Duration(gap).Milliseconds()), append(g.values, v.Value)
			}
		}
	}
}

var errNotRun = errors.New("not run")

// eval evaluates a line over sources whose time 0 is base, unix ms.
func (s *script) eval(head string, body []string, sources query.Sources, base int64) error {
	ms := func(d string) int64 {
		v, err := model.ParseDuration(d)
		if err != nil {
			s.t.Fatalf("%s: %v", head, err)
		}
		return time.Duration(v).Milliseconds()
	}
	storage := query.NewStorage(sources, 0, nil).With(query.Hints{})
	var q promql.Query
	var err error
	var mod string
	var start, step int64
	if m := rangeLine.FindStringSubmatch(head); m != nil {
		mod, start, step = m[1], base+ms(m[2]), ms(m[4])
		q, err = s.engine.NewRangeQuery(s.t.Context(), storage, nil, m[5], time.UnixMilli(start), time.UnixMilli(base+ms(m[3])), time.Duration(step)*time.Millisecond)
	} else if m := instantLine.FindStringSubmatch(head); m != nil {
		mod, start = m[1], base+ms(m[2])
		q, err = s.engine.NewInstantQuery(s.t.Context(), storage, nil, m[3], time.UnixMilli(start))
	} else {
		s.t.Fatalf("%s?", head)
	}
	fail := mod == "fail"
	wanted := map[string][]parser.SequenceValue{}
	var scalar, text string
	for _, line := range body {
		switch word, rest, _ := strings.Cut(line, " "); {
		case strings.HasPrefix(line, "expect range vector"), strings.HasPrefix(line, "expected_fail"):
			if !fail {
				return errNotRun
			}
		case strings.HasPrefix(line, "expect string"):
			text = strings.TrimSpace(strings.TrimPrefix(line, "expect string"))
		case word == "expect":
			fail = fail || strings.HasPrefix(rest, "fail")
		default:
			if _, err := strconv.ParseFloat(line, 64); err == nil {
				scalar = line
				continue
			}
			ls, values, err := scriptParser.ParseSeriesDesc(line)
			if err != nil {
				return errNotRun // a number written as an expression
			}
			wanted[ls.String()] = values
		}
	}
	if err == nil {
		res := q.Exec(context.WithoutCancel(s.t.Context()))
		if err = res.Err; err == nil && !fail {
			return compare(res.Value, wanted, scalar, text, start, step)
		}
	}
	if fail != (err != nil) {
		return fmt.Errorf("want failure %v, got error %v", fail, err)
	}
	return nil
}

func compare(got parser.Value, wanted map[string][]parser.SequenceValue, scalar, text string, start, step int64) error {
	same := func(what string, got, want float64) error {
		if !almost.Equal(got, want, 1e-6) {
			return fmt.Errorf("%s: got %v, want %v", what, got, want)
		}
		return nil
	}
	switch v := got.(type) {
	case promql.String:
		if unquoted, err := strconv.Unquote(text); err == nil {
			text = unquoted
		}
		if v.V != text {
			return fmt.Errorf("got %q, want %q", v.V, text)
		}
	case promql.Scalar:
		f, _ := strconv.ParseFloat(scalar, 64)
		return same("scalar", v.V, f)
	case promql.Vector:
		if len(v) != len(wanted) {
			return fmt.Errorf("got %v, want %v", v, wanted)
		}
		for _, p := range v {
			w, ok := wanted[p.Metric.String()]
			if !ok || p.H != nil {
				return fmt.Errorf("got %v, want %v", v, wanted)
			}
			if err := same(p.Metric.String(), p.F, w[0].Value); err != nil {
				return err
			}
		}
	case promql.Matrix:
		if len(v) != len(wanted) {
			return fmt.Errorf("got %v, want %v", v, wanted)
		}
		for _, s := range v {
			points := map[int64]float64{}
			for _, p := range s.Floats {
				points[p.T] = p.F
			}
			for i, w := range wanted[s.Metric.String()] {
				if w.Omitted {
					continue
				}
				t := start + int64(i)*step
				f, ok := points[t]
				if !ok {
					return fmt.Errorf("%s: no point at %d, want %v", s.Metric, t, w.Value)
				}
				if err := same(fmt.Sprintf("%s at %d", s.Metric, t), f, w.Value); err != nil {
					return err
				}
				delete(points, t)
			}
			if len(points) > 0 {
				return fmt.Errorf("%s: points that were not expected: %v", s.Metric, points)
			}
		}
	}
	return nil
}

// scriptSegment is a series of a script: a process of its own with one gauge, all of whose labels are the
// source's. Scripts load at steps from 1 ms to hours, and hold us to Prometheus's own lookback: so the process
// has one tier, and no gap is one.
type scriptSegment struct {
	labels []reader.Pair
	series []*reader.Series
	times  []int64
	values []float64
}

func (g *scriptSegment) Labels() []reader.Pair                                  { return g.labels }
func (g *scriptSegment) Attributes() []reader.Pair                              { return nil }
func (g *scriptSegment) Series() []*reader.Series                               { return g.series }
func (g *scriptSegment) Overrides() map[*reader.Series][]reader.Pair            { return nil }
func (g *scriptSegment) Start() int64                                           { return 0 }
func (g *scriptSegment) End() (int64, bool)                                     { return 0, false }
func (g *scriptSegment) AsOf() int64                                            { return math.MaxInt64 }
func (g *scriptSegment) Between(int, int, int64, int64, func(*reader.Row) bool) { panic("columns") }

func (g *scriptSegment) Tables() []reader.Table {
	return []reader.Table{{Name: "scalars", Tiers: []reader.Tier{{Step: 1e6 * time.Hour / 1e3, Rows: 1 << 16}}}}
}

func (g *scriptSegment) Columns(_, _ int, begin, end int64, dst *query.Batch) error {
	for i, t := range g.times {
		if t*1e6 < begin || t*1e6 > end {
			continue
		}
		dst.At(t, uint64(i)+1, 0)
		for c := range dst.Columns {
			dst.AddFloat(c, g.values[i])
		}
	}
	return nil
}
