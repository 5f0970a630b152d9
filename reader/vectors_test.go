package reader_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shmts/shmts/reader"
)

const vectors = "../spec/vectors"

type vector struct{ ID, File, Text, Section, Comment, Verdict, Rule string }

func readVectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(b, &list); err != nil || len(list) == 0 {
		t.Fatalf("index.json: want a list of vectors, got %d (%v)", len(list), err)
	}
	return list
}

// Every image that is to be refused is, with the rule named; every other one can be read, all of it.
// Check finds what a reader refuses or skips, and nothing where an image is valid.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.ID, func(t *testing.T) {
			path := filepath.Join(vectors, v.File)
			g, err := reader.OpenSegment(path)
			if (err != nil) != (v.Verdict == "refuse") {
				t.Fatalf("want verdict %s (%s), got %v", v.Verdict, v.Comment, err)
			}
			found := reader.Check(path)
			if err != nil {
				if !mentions([]error{err}, v.Rule) {
					t.Errorf("want an error about %q, got %v", v.Rule, err)
				}
				if len(found) != 1 || found[0].Error() != err.Error() {
					t.Errorf("check: want what OpenSegment says (%v), got %v", err, found)
				}
				return
			}
			defer g.Close()
			readAll(g)
			switch {
			case v.Verdict == "valid" && len(found) != 0 && !alsoFound[v.ID]:
				t.Errorf("check of a valid image: want no findings, got %v", found)
			case v.Verdict == "skip" && !strings.HasPrefix(v.ID, "section-") && !mentions(found, v.Rule):
				t.Errorf("check: want a finding about %q (%s), got %v", v.Rule, v.Comment, found)
			}
			if c := g.Counters(); strings.HasPrefix(v.ID, "series-") && v.Verdict == "skip" && c.SkippedSeries == 0 {
				t.Errorf("want a skipped series counted, got %+v", c)
			}
		})
	}
}

// alsoFound are valid for a reader, and yet what no writer that follows FORMAT.md leaves.
var alsoFound = map[string]bool{
	"odd-seq-whole-row": true, // seq is odd: only a reader in place skips it
	"row-no-far":        true, // a number that the head does not explain
}

// inOtherWords are rules that the message names otherwise.
var inOtherWords = map[string]string{"256 bytes": "at least 256", "bucket_min": "lowest bucket", "pair list": "labels_length"}

func mentions(found []error, rule string) bool {
	for _, err := range found {
		if strings.Contains(err.Error(), rule) || inOtherWords[rule] != "" && strings.Contains(err.Error(), inOtherWords[rule]) {
			return true
		}
	}
	return false
}

// readAll takes everything that a segment has to say.
func readAll(g *reader.Segment) (rows, values int) {
	series := g.Series()
	for table, t := range g.Tables() {
		for tier := range t.Tiers {
			for r := range g.Rows(table, tier, 0) {
				rows++
				for _, s := range series {
					if _, ok := r.Value(s); ok {
						values++
					}
				}
			}
			for range g.Between(table, tier, 0, 1<<62) {
			}
		}
		if r, err := g.Live(table); err == nil {
			for _, s := range series {
				r.Value(s)
			}
		}
	}
	for _, s := range series {
		if d, err := g.Delta(s, 10e9); err == nil {
			d.PerSecond()
			d.Quantile(0.5)
		}
	}
	for x := range g.Exemplars(0) {
		if x.Series == nil || x.TraceID == [16]byte{} || x.Number == 0 {
			panic(fmt.Sprintf("an exemplar that breaks the rules: %+v", x))
		}
	}
	g.End()
	return rows, values
}
