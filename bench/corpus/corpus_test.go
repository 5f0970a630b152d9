package corpus_test

import (
	"math"
	"reflect"
	"testing"

	"github.com/shmts/shmts/bench/corpus"
)

// Every set is the same twice, and has what it says it has.
func TestSets(t *testing.T) {
	sets, err := corpus.Sets("")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sets {
		a := s.Source(s.Count - 1)
		if b := s.Source(s.Count - 1); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: drawn twice, it is another one", s.Name)
		}
		if n := len(a.Times); n%s.Block != 0 {
			t.Errorf("%s: want whole blocks of %d rows, got %d", s.Name, s.Block, n)
		}
		for k := 1; k < len(a.Times); k++ {
			if a.Times[k] <= a.Times[k-1] {
				t.Fatalf("%s: row %d is not later than the one before", s.Name, k)
			}
		}
		names := map[string]bool{}
		for i := range a.Series {
			c := &a.Series[i]
			key := c.Name
			for _, p := range c.Labels {
				key += "," + p.Name + "=" + p.Value
			}
			if names[key] {
				t.Errorf("%s: %s is there twice", s.Name, key)
			}
			names[key] = true
			want := len(a.Times)
			if c.Buckets > 0 {
				want *= c.Buckets + 3
			}
			if len(c.Values) != want || c.Present != nil && len(c.Present) != len(a.Times) {
				t.Errorf("%s: %s: want %d values, got %d (%d)", s.Name, key, want, len(c.Values), len(c.Present))
			}
			fell := false
			for k := 1; k < len(c.Values) && c.Counter; k++ {
				if c.Float {
					fell = fell || math.Float64frombits(c.Values[k]) < math.Float64frombits(c.Values[k-1])
				} else {
					fell = fell || c.Values[k] < c.Values[k-1]
				}
			}
			if fell {
				t.Errorf("%s: %s is a counter, and falls", s.Name, key)
			}
		}
	}
}
