//go:build peers

package history_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/shmts/shmts/internal/peers"
	"github.com/shmts/shmts/internal/server"
)

// prometheus starts one with the features that the recording's queries ask for, and answers its URL.
func prometheus(t *testing.T) string {
	t.Helper()
	// A subquery's default step is the evaluation interval.
	address, cmd, err := peers.StartPrometheus(t.Logf, t.TempDir(), "global: {evaluation_interval: 15s}\n", "--enable-feature=promql-experimental-functions")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return address
}

// send has a Prometheus receive every sample of the recording, by remote-write 1.0.
func (r *recording) send(base string) (samples int) {
	r.t.Helper()
	w := peers.NewRemoteWrite(base)
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(r.floats)) {
		f := r.floats[key]
		errs = append(errs, w.Floats(f.labels, f.times, f.values))
	}
	for _, key := range slices.Sorted(maps.Keys(r.hists)) {
		h := r.hists[key]
		errs = append(errs, w.Histograms(h.labels, h.times, h.values))
	}
	if err := errors.Join(append(errs, w.Flush())...); err != nil {
		r.t.Fatal(err)
	}
	return w.Samples
}

// question is a line of testdata/differential.txt with one choice of each.
type question struct {
	text  string
	marks []string
	line  int
}

var choice = regexp.MustCompile(`\{\{(.*?)\}\}`)

// expand makes a line's queries.
func expand(text string) []string {
	at := choice.FindStringSubmatchIndex(text)
	if at == nil {
		return []string{text}
	}
	var out []string
	for _, one := range strings.Split(text[at[2]:at[3]], ";") {
		out = append(out, expand(text[:at[0]]+one+text[at[1]:])...)
	}
	return out
}

func questions(t *testing.T) []question {
	text, err := os.ReadFile(questionsFile)
	if err != nil {
		t.Fatal(err)
	}
	var out []question
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		marks, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "] ")
		if !ok {
			t.Fatalf("%s: line %d: want [marks] and a query, got %q", questionsFile, i+1, line)
		}
		for _, q := range expand(rest) {
			out = append(out, question{q, strings.FieldsFunc(marks, func(r rune) bool { return r == ',' }), i + 1})
		}
	}
	return out
}

const questionsFile = "testdata/differential.txt"

// Where and when each is asked: s since the recording began, and the step of ranges.
var (
	instants = []float64{61, 600, 727.5, 905, 1203, 1805, recordedSeconds + 1}
	ranges   = [][3]float64{{0, recordedSeconds, 15}, {690, 760, 1}, {880, 1320, 7}, {1700, 2000, 10}}
)

// answer is what a server says, without what has no order.
type answer struct {
	status int
	kind   string // of an error
	typ    string
	points map[string]string // by series and time
	order  []string          // of an instant vector's series
	notes  []string
}

func put(t *testing.T, base, path string, form url.Values) answer {
	t.Helper()
	r, err := http.PostForm(base+path, form)
	if err != nil {
		t.Fatalf("%v: %v", form, err)
	}
	defer r.Body.Close()
	a := answer{status: r.StatusCode, points: map[string]string{}}
	var body struct {
		ErrorType string
		Data      struct {
			ResultType string
			Result     json.RawMessage
		}
		Warnings, Infos []string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		t.Fatalf("%v: %v", form, err)
	}
	a.kind, a.typ = body.ErrorType, body.Data.ResultType
	for _, n := range append(body.Warnings, body.Infos...) {
		if !strings.Contains(n, "shmts: ") {
			a.notes = append(a.notes, n)
		}
	}
	slices.Sort(a.notes)
	if a.typ == "scalar" || a.typ == "string" {
		a.points[""] = string(body.Data.Result)
		return a
	}
	var series []struct {
		Metric             map[string]string
		Value, Histogram   json.RawMessage
		Values, Histograms []json.RawMessage
	}
	if len(body.Data.Result) > 0 {
		if err := json.Unmarshal(body.Data.Result, &series); err != nil {
			t.Fatalf("%v: %v", form, err)
		}
	}
	for _, s := range series {
		name, _ := json.Marshal(s.Metric)
		a.order = append(a.order, string(name))
		for _, p := range append(append(s.Values, s.Histograms...), s.Value, s.Histogram) {
			if p == nil {
				continue
			}
			var pair [2]json.RawMessage
			if err := json.Unmarshal(p, &pair); err != nil {
				t.Fatalf("%v: %v", form, err)
			}
			key := string(name) + " @ " + string(pair[0])
			if a.points[key] != "" {
				a.points[key] += " and "
			}
			a.points[key] += string(pair[1])
		}
	}
	return a
}

// ordered are the calls that say in which order an instant vector is.
var ordered = regexp.MustCompile(`^(sort|sort_desc|sort_by_label|sort_by_label_desc|topk|bottomk)\b`)

var number64 = regexp.MustCompile(`"([^"]*)"`)

// differ says what two answers differ in, "" if in nothing. Where order is one of addition, numbers may differ in their last places.
func differOf(q question, ours, theirs answer, loose bool) string {
	if ours.status != theirs.status || ours.kind != theirs.kind {
		return fmt.Sprintf("status %d %s, theirs %d %s", ours.status, ours.kind, theirs.status, theirs.kind)
	}
	if ours.typ != theirs.typ {
		return fmt.Sprintf("a %s, theirs a %s", ours.typ, theirs.typ)
	}
	n, first := 0, ""
	say := func(key, a, b string) {
		if n++; first == "" || key < first {
			first = key
		}
	}
	for key, a := range ours.points {
		if b, ok := theirs.points[key]; !ok || a != b && !(loose && near(a, b)) {
			say(key, a, b)
		}
	}
	for key, b := range theirs.points {
		if _, ok := ours.points[key]; !ok {
			say(key, "", b)
		}
	}
	if n > 0 {
		return fmt.Sprintf("%d of %d points, first %s: %.300q, theirs %.300q", n, len(theirs.points), first, ours.points[first], theirs.points[first])
	}
	if ordered.MatchString(q.text) && ours.typ == "vector" && !slices.Equal(ours.order, theirs.order) {
		return fmt.Sprintf("order %q, theirs %q", ours.order, theirs.order)
	}
	if !slices.Equal(ours.notes, theirs.notes) {
		return fmt.Sprintf("notes %q, theirs %q", ours.notes, theirs.notes)
	}
	return ""
}

// near compares numbers in text to 1e-13 of the larger.
func near(a, b string) bool {
	x, y := number64.FindAllStringSubmatch(a, -1), number64.FindAllStringSubmatch(b, -1)
	if len(x) != len(y) || number64.ReplaceAllString(a, "") != number64.ReplaceAllString(b, "") {
		return false
	}
	for i := range x {
		if x[i][1] == y[i][1] {
			continue
		}
		f, err := strconv.ParseFloat(x[i][1], 64)
		g, err2 := strconv.ParseFloat(y[i][1], 64)
		if err != nil || err2 != nil || !(math.Abs(f-g) <= 1e-13*max(math.Abs(f), math.Abs(g))) {
			return false
		}
	}
	return true
}

// adds tells whether a query adds up several series: in which order, depends on the storage. (The engine compensates for what
// that loses, but for the last places.)
func adds(expr parser.Expr) (yes bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			switch a.Op {
			case parser.SUM, parser.AVG, parser.STDDEV, parser.STDVAR:
				yes = true
			}
		}
		return nil
	})
	return yes
}

var anyParser = parser.NewParser(parser.Options{EnableExperimentalFunctions: true, EnableBinopFillModifiers: true})

// A real Prometheus has the samples of the recording, shmts the segments and their archive. Both answer every query of
// testdata/differential.txt, at each of some instants and over each of some spans, with the same values: once with
// max_source_resolution=1s, by which the tier that Prometheus's samples are of answers, and once by shmts's own choice of tiers. What differs
// is marked there with a name of docs/promql.md's table; with tiers, if only shmts's own choice does.
func TestDifferential(t *testing.T) {
	r := record(t)
	theirs := prometheus(t)
	began := time.Now()
	t.Logf("%d samples of %d series, %d of native histograms, sent in %v", r.send(theirs), len(r.floats)+len(r.hists), len(r.hists), time.Since(began))
	r.now.Store((r.begin + recordedSeconds + 2) * 1e9)
	h := httptest.NewServer(server.New(server.Options{Engine: r.engine, Now: func() time.Time { return time.Unix(0, r.now.Load()) }}))
	defer h.Close()
	at := func(second float64) string { return strconv.FormatFloat(float64(r.begin)+second, 'f', -1, 64) }

	all := questions(t)
	documented := differences(t)
	shown := map[string]int{}
	asked, equal, loose := 0, 0, 0
	for _, q := range all {
		expr, err := anyParser.ParseExpr(q.text)
		tolerant := err == nil && adds(expr)
		var strict, own string // the first difference
		one := func(path string, form url.Values) {
			form.Set("query", q.text)
			want := put(t, theirs, path, form)
			byOwn := put(t, h.URL, path, form)
			form.Set("max_source_resolution", "1s")
			byFinest := put(t, h.URL, path, form)
			asked += 2
			where := fmt.Sprintf("at %s", form.Get("time"))
			if form.Has("start") {
				where = fmt.Sprintf("from %s by %s", form.Get("start"), form.Get("step"))
			}
			for _, c := range []struct {
				got  answer
				diff *string
			}{{byFinest, &strict}, {byOwn, &own}} {
				d := differOf(q, c.got, want, tolerant)
				if d == "" {
					equal++
					if differOf(q, c.got, want, false) != "" {
						loose++
					}
				} else if *c.diff == "" {
					*c.diff = where + ": " + d
				}
			}
		}
		for _, second := range instants {
			one("/api/v1/query", url.Values{"time": {at(second)}})
		}
		spans := ranges
		if slices.Contains(q.marks, "tiers") {
			spans = append(slices.Clone(ranges), [3]float64{0, recordedSeconds, 60})
		}
		for _, span := range spans {
			one("/api/v1/query_range", url.Values{"start": {at(span[0])}, "end": {at(span[1])}, "step": {fmt.Sprint(span[2])}})
		}
		found := cmp.Or(strict, own)
		if found == "" && len(q.marks) > 0 {
			t.Errorf("line %d: %s: is marked with %v, and does not differ", q.line, q.text, q.marks)
		}
		if found != "" && len(q.marks) == 0 {
			t.Errorf("line %d: %s: %s", q.line, q.text, cmp.Or(strict, "by tiers: "+own))
		}
		if found != "" && (strict == "") != slices.Contains(q.marks, "tiers") && len(q.marks) > 0 {
			t.Errorf("line %d: %s: is marked with %v, and with rows of the finest tier differs: %q; else: %q", q.line, q.text, q.marks, strict, own)
		}
		for _, m := range q.marks {
			shown[m]++
			if !documented[m] {
				t.Errorf("line %d: %s: %q is no difference of docs/promql.md", q.line, q.text, m)
			}
		}
	}
	for name := range documented {
		if shown[name] == 0 {
			t.Errorf("docs/promql.md: no query shows the difference %q", name)
		}
	}
	if len(all) < 500 {
		t.Errorf("want at least 500 queries, got %d", len(all))
	}
	t.Logf("%d queries, asked %d times: %d answers are equal, %d of them but for the order of addition; differences: %v", len(all), asked, equal, loose, shown)
}

// differences are the names in docs/promql.md's table of those that queries show.
func differences(t *testing.T) map[string]bool {
	text, err := os.ReadFile("../../docs/promql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- differences -->\n")
	table, _, ok2 := strings.Cut(rest, "<!-- end of differences -->")
	if !ok || !ok2 {
		t.Fatal("docs/promql.md has no table of differences")
	}
	out := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` ").FindAllStringSubmatch(table, -1) {
		out[m[1]] = true
	}
	return out
}

// Every function, operator, aggregation and modifier of the language is among the queries.
func TestDifferentialAsksEverything(t *testing.T) {
	missing := map[string]bool{}
	for name := range parser.Functions {
		missing[name] = true
	}
	for _, op := range []parser.ItemType{parser.SUM, parser.AVG, parser.COUNT, parser.MIN, parser.MAX, parser.GROUP, parser.STDDEV, parser.STDVAR, parser.TOPK, parser.BOTTOMK,
		parser.COUNT_VALUES, parser.QUANTILE, parser.LIMITK, parser.LIMIT_RATIO, parser.ADD, parser.SUB, parser.MUL, parser.DIV, parser.MOD, parser.POW, parser.ATAN2,
		parser.EQLC, parser.NEQ, parser.GTR, parser.LSS, parser.GTE, parser.LTE, parser.LAND, parser.LOR, parser.LUNLESS} {
		missing[op.String()] = true
	}
	for _, modifier := range []string{"offset", "-offset", "@", "@start", "@end", "[:]", "[:] @", "[:] offset", "bool", "on", "ignoring", "group_left", "group_right", "by", "without", "anchored", "smoothed"} {
		missing[modifier] = true
	}
	for _, q := range questions(t) {
		expr, err := anyParser.ParseExpr(q.text)
		if err != nil {
			continue
		}
		at := func(what string, is bool) {
			if is {
				delete(missing, what)
			}
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			switch n := n.(type) {
			case *parser.Call:
				delete(missing, n.Func.Name)
			case *parser.AggregateExpr:
				delete(missing, n.Op.String())
				at("without", n.Without)
				at("by", !n.Without && len(n.Grouping) > 0)
			case *parser.BinaryExpr:
				delete(missing, n.Op.String())
				at("bool", n.ReturnBool)
				if m := n.VectorMatching; m != nil {
					at("on", m.On)
					at("ignoring", !m.On && len(m.MatchingLabels) > 0)
					at("group_left", m.Card == parser.CardManyToOne)
					at("group_right", m.Card == parser.CardOneToMany)
				}
			case *parser.SubqueryExpr:
				delete(missing, "[:]")
				at("[:] @", n.Timestamp != nil)
				at("[:] offset", n.OriginalOffset != 0)
			case *parser.VectorSelector:
				at("offset", n.OriginalOffset > 0)
				at("-offset", n.OriginalOffset < 0)
				at("@", n.Timestamp != nil)
				at("@start", n.StartOrEnd == parser.START)
				at("@end", n.StartOrEnd == parser.END)
				at("anchored", n.Anchored)
				at("smoothed", n.Smoothed)
			}
			return nil
		})
	}
	if len(missing) > 0 {
		t.Errorf("not asked: %v", slices.Sorted(maps.Keys(missing)))
	}
}
