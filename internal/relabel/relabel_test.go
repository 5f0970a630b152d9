package relabel

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v2"
)

func parse(t testing.TB, text string) *Rules {
	t.Helper()
	r, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r
}

func TestApply(t *testing.T) {
	in := labels.FromStrings("__name__", "x_total", "job", "API", "instance", "a:1", "queue", "7", "owner", "API")
	for _, c := range []struct {
		name, rules string
		outcome     int
		want        string // of what is kept
	}{
		{"none", `[]`, Kept, in.String()},
		{"keep", `[{action: keep, source_labels: [__name__], regex: x_.*}]`, Kept, in.String()},
		{"kept out", `[{action: keep, source_labels: [__name__], regex: y_.*}]`, 0, ""},
		{"drop, which is anchored", `[{action: drop, source_labels: [queue], regex: "77?"}]`, 0, ""},
		{"the second drops", `[{action: drop, source_labels: [queue], regex: "77"}, {action: drop, source_labels: [job, queue], regex: API;7}]`, 1, ""},
		{"replace", `[{source_labels: [instance], regex: "(.*):(.*)", target_label: host, replacement: "$1"}]`, Kept, `{__name__="x_total", host="a", instance="a:1", job="API", owner="API", queue="7"}`},
		{"rename", `[{source_labels: [__name__], regex: "(.*)_total", target_label: __name__, replacement: "${1}_sum"}]`, Kept, `{__name__="x_sum", instance="a:1", job="API", owner="API", queue="7"}`},
		{"take away", `[{target_label: queue, replacement: ""}]`, Kept, `{__name__="x_total", instance="a:1", job="API", owner="API"}`},
		{"hashmod", `[{action: hashmod, source_labels: [instance], modulus: 4, target_label: shard}]`, Kept, `{__name__="x_total", instance="a:1", job="API", owner="API", queue="7", shard="0"}`},
		{"labelmap", `[{action: labelmap, regex: "(que)ue", replacement: "${1}st"}]`, Kept, `{__name__="x_total", instance="a:1", job="API", owner="API", quest="7", queue="7"}`},
		{"labeldrop", `[{action: labeldrop, regex: "queue|owner"}]`, Kept, `{__name__="x_total", instance="a:1", job="API"}`},
		{"labelkeep", `[{action: labelkeep, regex: "__name__|job"}]`, Kept, `{__name__="x_total", job="API"}`},
		{"lowercase", `[{action: lowercase, source_labels: [job], target_label: job}]`, Kept, `{__name__="x_total", instance="a:1", job="api", owner="API", queue="7"}`},
		{"uppercase", `[{action: Uppercase, source_labels: [instance], target_label: instance}]`, Kept, `{__name__="x_total", instance="A:1", job="API", owner="API", queue="7"}`},
		{"keepequal", `[{action: keepequal, source_labels: [job], target_label: owner}]`, Kept, in.String()},
		{"dropequal", `[{action: dropequal, source_labels: [job], target_label: owner}]`, 0, ""},
		{"no name left", `[{action: labelkeep, regex: job}]`, Nameless, ""},
		{"an empty name of a label", `[{action: labelmap, regex: queue, replacement: "$1"}]`, Invalid, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, outcome := parse(t, c.rules).Apply(in)
			if outcome != c.outcome || outcome == Kept && got.String() != c.want || outcome != Kept && !got.IsEmpty() {
				t.Errorf("want %d %s, got %d %s", c.outcome, c.want, outcome, got)
			}
		})
	}
	var none *Rules
	if got, outcome := none.Apply(in); outcome != Kept || !labels.Equal(got, in) || none.Reads("job") || none.Writes("job") || none.Rewrites() || none.Text() != "" {
		t.Errorf("no rules: got %d %s", outcome, got)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		`action: drop`:                                                              "want a list of rules",
		`[{action: drop, source_label: [job]}]`:                                     `rule 1: want one of source_labels, separator, regex, modulus, target_label, replacement, action, got "source_label"`,
		`[{action: labeldrop, regex: x}, ]`:                                         "",
		`[{action: labeldrop, regex: x}, null]`:                                     "rule 2: want an action or labels, got nothing",
		`[{action: labeldrop, regex: x}, {action: forget}]`:                         `rule 2: unknown relabel action "forget"`,
		`[{source_labels: [job]}]`:                                                  "rule 1: relabel configuration for replace action requires 'target_label' value",
		`[{action: drop, source_labels: [job], regex: "("}]`:                        "rule 1: error parsing regexp",
		`[{action: hashmod, source_labels: [job], target_label: x}]`:                "rule 1: relabel configuration for hashmod requires non-zero modulus",
		`[{action: labeldrop, source_labels: [job], regex: x}]`:                     "rule 1: labeldrop action requires only 'regex'",
		`[{action: dropequal, source_labels: [a], regex: x, target_label: b}]`:      "rule 1: dropequal action requires only",
		`[{action: hashmod, source_labels: [job], target_label: x, modulus: many}]`: "rule 1: yaml: unmarshal errors",
		"- action: drop\n  action: keep":                                            "already set",
		"[" + strings.Repeat("{action: labeldrop, regex: x},", maxRules+1) + "]":    "want at most 1000 rules, got 1001",
	} {
		_, err := Parse([]byte(text))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "shmts: ")):
			t.Errorf("%.80s: want an error with %q, got %v", text, want, err)
		}
	}
}

// A decoder that is not strict, as of a file with other keys, is no reason to overlook a misspelled one here. And scalars keep
// their spelling: what looks like a number or a boolean is text in a regular expression.
func TestInAFile(t *testing.T) {
	var file struct {
		Rules *Rules `yaml:"metric_relabel_configs"`
	}
	if err := yaml.Unmarshal([]byte("other: 1\nmetric_relabel_configs: [{action: drop, regx: a}]\n"), &file); err == nil || !strings.Contains(err.Error(), `"regx"`) {
		t.Errorf("want an error about regx, got %v", err)
	}
	if err := yaml.Unmarshal([]byte("other: 1\nmetric_relabel_configs: [{action: drop, source_labels: [port], regex: 010}, {target_label: yes, replacement: no}]\n"), &file); err != nil {
		t.Fatal(err)
	}
	if _, outcome := file.Rules.Apply(labels.FromStrings("__name__", "x", "port", "010")); outcome != 0 {
		t.Errorf("want the first rule to drop port 010, got %d", outcome)
	}
	if got, _ := file.Rules.Apply(labels.FromStrings("__name__", "x", "port", "8")); got.Get("yes") != "no" {
		t.Errorf("want yes=no, got %s", got)
	}
}

func TestText(t *testing.T) {
	r := parse(t, `[{action: keep, source_labels: [a, b], separator: ",", regex: "x|(y)"}, {target_label: c, replacement: "$1"}, {action: labelmap, regex: "k8s_(.*)"}, {action: hashmod, modulus: 3, source_labels: [a], target_label: t}]`)
	again := parse(t, r.Text())
	if !r.Equal(again) || again.Len() != 4 || again.Action(2) != "labelmap" {
		t.Errorf("want the same rules again, got\n%s\nof\n%s", again.Text(), r.Text())
	}
	if r.Equal(parse(t, `[{action: labeldrop, regex: x}]`)) || !(*Rules)(nil).Equal(&Rules{}) {
		t.Error("Equal is wrong")
	}
	if j := Join(nil, r, again); j.Len() != 8 || j.Action(4) != "keep" {
		t.Errorf("joined: got %s", j.Text())
	}
}

// Reads and Writes promise what may be shared and what may be asked of a source: random rules over random labels.
func TestReadsAndWrites(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	label := func() string { return string('a' + rune(rnd.IntN(5))) }
	value := func() string { return strings.Repeat(string('x'+rune(rnd.IntN(3))), rnd.IntN(3)) }
	rule := func() string {
		source := fmt.Sprintf("source_labels: [%s, %s]", label(), label())
		switch rnd.IntN(10) {
		case 0:
			return fmt.Sprintf(`{action: keep, %s, regex: ".*[xy;].*"}`, source)
		case 1:
			return fmt.Sprintf(`{action: drop, %s, regex: "xx?;%s"}`, source, value())
		case 2:
			return fmt.Sprintf(`{%s, regex: "([xy]+);(.*)", target_label: %s, replacement: "$2"}`, source, label())
		case 3:
			return fmt.Sprintf(`{%s, regex: "(x)(.*);.*", target_label: "${1}", replacement: "%s"}`, source, value())
		case 4:
			return fmt.Sprintf(`{action: labelmap, regex: "(%s)", replacement: "%s"}`, label(), label())
		case 5:
			return fmt.Sprintf(`{action: labeldrop, regex: "%s"}`, label())
		case 6:
			return fmt.Sprintf(`{action: labelkeep, regex: "__name__|[%s%s%s]"}`, label(), label(), label())
		case 7:
			return fmt.Sprintf(`{action: hashmod, %s, modulus: 3, target_label: %s}`, source, label())
		case 8:
			return fmt.Sprintf(`{action: uppercase, source_labels: [%s], target_label: %s}`, label(), label())
		default:
			return fmt.Sprintf(`{action: dropequal, source_labels: [%s], target_label: %s}`, label(), label())
		}
	}
	kept, unread, unwritten := 0, 0, 0
	for range 20_000 {
		var list []string
		for range 1 + rnd.IntN(4) {
			list = append(list, rule())
		}
		r := parse(t, "["+strings.Join(list, ",")+"]")
		ls := labels.NewBuilder(labels.FromStrings(model.MetricNameLabel, "m"))
		for c := 'a'; c <= 'e'; c++ {
			ls.Set(string(c), value())
		}
		in := ls.Labels()
		out, outcome := r.Apply(in)
		if outcome == Kept {
			kept++
		}
		n := label()
		if before := in.Get(n); before != "" && !r.Reads(n) {
			unread++
			other := before + "z"
			out2, outcome2 := r.Apply(labels.NewBuilder(in).Set(n, other).Labels())
			want := out
			if out.Get(n) != "" {
				want = labels.NewBuilder(out).Set(n, other).Labels()
			}
			if outcome2 != outcome || outcome == Kept && !labels.Equal(out2, want) {
				t.Fatalf("%s\n%s is not read, and yet of %s comes %d %s, and of %s instead %d %s", r.Text(), n, in, outcome, out, other, outcome2, out2)
			}
		}
		if !r.Writes(n) && outcome == Kept {
			unwritten++
			if out.Get(n) != in.Get(n) {
				t.Fatalf("%s\n%s is not written, and yet of %s comes %s", r.Text(), n, in, out)
			}
		}
		if !r.Rewrites() && outcome == Kept && !labels.Equal(in, out) {
			t.Fatalf("%s\nrewrites nothing, and yet of %s comes %s", r.Text(), in, out)
		}
	}
	if kept < 1000 || unread < 1000 || unwritten < 1000 {
		t.Errorf("want each case at least 1,000 times, got %d kept, %d unread, %d unwritten", kept, unread, unwritten)
	}
}
