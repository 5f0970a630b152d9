package query

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/reader"
)

var update = flag.Bool("update", false, "write the table of functions in docs/promql.md anew")

// said is what the table says of a class: the column, the tier, and what coarser rows are.
var said = map[class][]string{
	ofGrowth:  {"the value", "coarsest, step ≤ range / 5", "exact values; `smoothed` where a window holds less than two"},
	ofExtreme: {"a stat's or gauge's minima and maxima; of others the value", "coarsest, step ≤ range / 5; of others finest", "exact; of counters, updowns, and the rings' coarser rows of gauges, samples, with an info"},
	ofRows:    {"the value; of folded rows sum and count", "finest", "as many rows as they were made of, each once"},
	ofAny:     {"the value", "finest", "the last value of each coarse row"},
	eachValue: {"the value", "finest", "one value a coarse row, with an info"},
}

const (
	sampleSaid = "the value | coarsest, step ≤ query step / 2 | the last value before the instant"
	noneSaid   = "no series | | "
)

// table is what docs/promql.md has to say of every function that there is.
func table() string {
	var b strings.Builder
	b.WriteString("| Function | Reads | From which tier | Coarser rows are |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(parser.Functions)) {
		f := parser.Functions[name]
		row := noneSaid
		switch {
		case slices.Contains(f.ArgTypes, parser.ValueTypeMatrix):
			row = strings.Join(said[rangeFunctions[name]], " | ")
		case slices.Contains(f.ArgTypes, parser.ValueTypeVector):
			row = sampleSaid
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, row)
	}
	return b.String()
}

// The table is of all functions of the language, and of what they really read: one that a new Prometheus
// has fails here until somebody says what it reads.
func TestFunctionTable(t *testing.T) {
	for name, f := range parser.Functions {
		if c, ok := rangeFunctions[name]; ok != slices.Contains(f.ArgTypes, parser.ValueTypeMatrix) || ok && said[c] == nil {
			t.Errorf("%s takes %v: want it in rangeFunctions if that is a range vector, and else not", name, f.ArgTypes)
		}
	}
	for name := range rangeFunctions {
		if parser.Functions[name] == nil {
			t.Errorf("%s is no function", name)
		}
	}

	tiers := []reader.Tier{{Step: time.Second}, {Step: 10 * time.Second}, {Step: 5 * time.Minute}}
	spans := []Span{{}, {Folded: true}, {Folded: true}}
	series := func(k reader.Kind) *reader.Series { return &reader.Series{Definition: &reader.Definition{Kind: k}} }
	for name := range parser.Functions {
		c := rangeFunctions[name]
		h := &storage.SelectHints{Func: name, Range: 3_600_000, Step: 15_000}
		if c == 0 {
			h.Range = 0
		}
		p := newPlan(h, 0, math.MaxInt64, 300_000, 0)
		for kind, wanted := range map[reader.Kind]int{
			reader.Counter: map[class]int{ofGrowth: 2}[c], reader.UpDown: 0,
			reader.Gauge: map[class]int{ofExtreme: 2}[c], reader.Stat: map[class]int{ofExtreme: 2}[c],
		} {
			s := series(kind)
			tier, _ := p.tier(Column{s, p.column(kind, Value)}, additive(s, Value), tiers, spans)
			if c == 0 { // step / 2 is less than 10 s
				wanted = 0
			}
			if tier != wanted {
				t.Errorf("%s of a %v: want tier %d, got %d", name, kind, wanted, tier)
			}
		}
		if h.Step = 20_000; c == 0 {
			p = newPlan(h, 0, math.MaxInt64, 300_000, 0)
			if tier, _ := p.tier(Column{series(reader.Gauge), Value}, false, tiers, spans); tier != 1 {
				t.Errorf("%s at steps of 20 s: want the tier of 10 s, got %d", name, tier)
			}
		}
	}

	const file, begin, end = "../../docs/promql.md", "<!-- functions -->\n", "<!-- end of functions -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: want a table between %q and %q", file, begin, end)
	}
	if want := table(); *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("%s: the table is not what the code does: go test ./internal/query -run FunctionTable -update", file)
	}
}
