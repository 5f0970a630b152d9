package reader_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/reader"
)

// The reader's rows and values are those of the vectors' texts, which the page's other readers agree on: spec/vectors/README.md.
func TestVectorTexts(t *testing.T) {
	rows := 0
	for _, v := range readVectors(t) {
		if v.Text == "" {
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(vectors, v.Text))
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for _, line := range strings.Split(string(b), "\n") {
				if strings.HasPrefix(line, "row ") || strings.HasPrefix(line, "value ") {
					if line, _, _ = strings.Cut(line, " flags="); line != "" {
						want = append(want, line)
					}
				}
			}
			g, err := reader.OpenSegment(filepath.Join(vectors, v.File))
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			for table := range g.Tables() {
				for tier := range g.Tables()[table].Tiers {
					for r := range g.Rows(table, tier, 0) {
						if r.Estimated && !g.Shadow() {
							continue // the texts have no last words
						}
						rows++
						got = append(got, fmt.Sprintf("row %d %d %d base=%d begin=%d t=%d mono=%d epoch=%d",
							table, tier, r.No, r.BaseRow, r.Begin, r.Time, r.Mono, r.Epoch))
						for _, s := range g.Series() {
							if v, ok := r.Value(s); ok {
								index, _ := s.Descriptor()
								got = append(got, fmt.Sprintf("value %d %s", index, text(s, &v)))
							}
						}
					}
				}
			}
			if v.ID == "row-no-far" || strings.HasPrefix(v.ID, "row-far") {
				return // a row that no head tells of
			}
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Fatalf("line %d of rows: want %q, got %q", i+1, at(want, i), at(got, i))
				}
			}
		})
	}
	if rows == 0 {
		t.Error("want rows compared, got none")
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

func text(s *reader.Series, v *reader.Value) string {
	float := func(f float64) string {
		switch {
		case math.IsNaN(f):
			return fmt.Sprintf("nan:%016x", math.Float64bits(f))
		case math.IsInf(f, 0):
			return strings.ToLower(strings.TrimPrefix(fmt.Sprint(f), "+"))
		}
		return cFloat(f)
	}
	unset := func(f float64) string {
		if f != f {
			return "unset"
		}
		return float(f)
	}
	switch s.Kind {
	case reader.Stat:
		return fmt.Sprintf("count=%d sum=%s last=%s min=%s max=%s", v.Count, float(v.Sum), unset(v.Last), unset(v.Min), unset(v.Max))
	case reader.Histogram:
		var buckets []string
		for i, n := range v.Buckets {
			if n > 0 {
				buckets = append(buckets, fmt.Sprintf("%d:%d", s.Buckets.Min+i, n))
			}
		}
		sum := float(v.Sum)
		if s.Number == reader.U64 {
			sum = strconv.FormatUint(uint64(v.Sum), 10)
		}
		return fmt.Sprintf("sum=%s zero=%d above=%d buckets=%s", sum, v.Zero, v.Above, strings.Join(buckets, ","))
	}
	switch {
	case v.Unset:
		return "unset"
	case s.Number == reader.F64:
		return float(v.Float)
	case s.Number == reader.U64:
		return strconv.FormatUint(uint64(v.Int), 10)
	}
	return strconv.FormatInt(v.Int, 10)
}

// cFloat is C's %.17g.
func cFloat(f float64) string {
	if f == 0 {
		return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 0, 64), ".")
	}
	b := strconv.FormatFloat(f, 'e', 16, 64)
	mantissa, exponent, _ := strings.Cut(b, "e")
	e, _ := strconv.Atoi(exponent)
	trim := func(s string) string {
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	if e < -4 || e >= 17 {
		return fmt.Sprintf("%se%s%02d", trim(mantissa), map[bool]string{true: "-", false: "+"}[e < 0], max(e, -e))
	}
	return trim(strconv.FormatFloat(f, 'f', 16-e, 64))
}
