package layout

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// described is a live series of each kind in a segment of testSchema, with its strings.
func described(t *testing.T) (h *Header, w []uint64, all []SeriesInfo) {
	h, w = newborn(t, testSchema())
	all = []SeriesInfo{
		{Series: Series{Kind: Counter, Number: U64}, Name: "c", Unit: "By", Help: "Help.", Labels: []Pair{{"a", "1"}, {"b", "2"}}},
		{Series: Series{Kind: Counter, Number: F64, RowCell: 1, LaneCell: 1}, Name: "cf"},
		{Series: Series{Kind: Gauge, Number: I64, RowCell: 2}, Name: "g"},
		{Series: Series{Kind: Stat, Number: F64, RowCell: 3, LaneCell: 2, SharedCell: 1, Flags: FlagNonNegative}, Name: "s"},
		{Series: Series{Kind: Histogram, Number: F64, Table: 1, Scale: 3, BucketMin: -10, Buckets: 20}, Name: "h"},
	}
	heap := 0
	for i := range all {
		s := &all[i]
		s.Index, s.Strings, s.BornRow = i, uint32(heap), 1
		s.State = NewState(uint32(i), SeriesFree)
		b, err := s.AppendStrings(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != s.StringsLength() {
			t.Fatalf("want %d bytes of strings, got %d", s.StringsLength(), len(b))
		}
		StoreSeries(w, h, s, b)
		heap += len(b)
	}
	return h, w, all
}

func TestSeriesRoundTrip(t *testing.T) {
	h, w, all := described(t)
	heap := Bytes(w)[h.Heap.Offset:][:h.Heap.Length]
	for i, want := range all {
		s := *View[Series](w, h.Series.Offset+uint64(i)*SeriesSize)
		if err := s.Check(h, i); err != nil {
			t.Fatal(err)
		}
		got, err := s.CutStrings(heap[s.Strings:][:s.StringsLength()], i)
		if err != nil {
			t.Fatal(err)
		}
		if want.Labels == nil {
			want.Labels = []Pair{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("want %+v, got %+v", want, got)
		}
		if got.Life() != SeriesLive || got.Generation() != uint32(i) {
			t.Errorf("series %d: life %d, generation %d", i, got.Life(), got.Generation())
		}
	}
	c := View[Control](w, h.Control.Offset)
	if c.Table[0].Changes != 4 || c.Table[1].Changes != 1 {
		t.Errorf("want 4 changes and 1, got %d and %d", c.Table[0].Changes, c.Table[1].Changes)
	}
	RetireSeries(w, h, 3, 77)
	s := View[Series](w, h.Series.Offset+3*SeriesSize)
	if s.Life() != SeriesRetired || s.Generation() != 3 || s.RetiredRow != 77 || s.Kind != Stat || s.Flags != FlagNonNegative || c.Table[0].Changes != 5 {
		t.Errorf("after retiring: %+v, %d changes", s, c.Table[0].Changes)
	}
	if err := s.Check(h, 3); err != nil {
		t.Error(err)
	}
}

// Each case breaks one rule of FORMAT.md 6.1.
func TestSeriesCheck(t *testing.T) {
	h, _, all := described(t)
	const counter, gauge, stat, histogram = 0, 2, 3, 4
	for _, c := range []struct {
		series int
		want   string
		do     func(s *Series)
	}{
		{counter, "a kind and number of FORMAT.md 6.2, got kind 0, number 1", func(s *Series) { s.Kind = 0 }},
		{counter, "kind 6, number 1", func(s *Series) { s.Kind = 6 }},
		{counter, "kind 1, number 2", func(s *Series) { s.Number = I64 }},
		{gauge, "kind 3, number 1", func(s *Series) { s.Number = U64 }},
		{stat, "kind 4, number 2", func(s *Series) { s.Number = I64 }},
		{histogram, "kind 5, number 2", func(s *Series) { s.Number = I64 }},
		{counter, "table below 2, got 2", func(s *Series) { s.Table = 2 }},
		{counter, "name_length 1 to 255, got 0", func(s *Series) { s.NameLength = 0 }},
		{counter, "name_length 1 to 255, got 256", func(s *Series) { s.NameLength = 256 }},
		{counter, "unit_length at most 63, got 64", func(s *Series) { s.UnitLength = 64 }},
		{counter, "help_length at most 1023, got 1024", func(s *Series) { s.HelpLength = 1024 }},
		{counter, "labels_length 2 to 65535, got 1", func(s *Series) { s.LabelsLength = 1 }},
		{counter, "labels_length 2 to 65535, got 65536", func(s *Series) { s.LabelsLength = 65536 }},
		{counter, "strings inside the heap of 0x100 bytes", func(s *Series) { s.Strings = 250 }},
		{counter, "strings inside the heap", func(s *Series) { s.Strings = 1<<32 - 1 }},
		{histogram, "a bucket range of FORMAT.md 9", func(s *Series) { s.Scale = 7 }},
		{histogram, "a bucket range of FORMAT.md 9", func(s *Series) { s.Scale = -1 }},
		{histogram, "a bucket range of FORMAT.md 9", func(s *Series) { s.Buckets = 0 }},
		{histogram, "a bucket range of FORMAT.md 9", func(s *Series) { s.Buckets = MaxBuckets + 1 }},
		{histogram, "a bucket range of FORMAT.md 9", func(s *Series) { s.Scale, s.BucketMin = 0, -1023 }},
		{counter, "scale, buckets and bucket_min 0 for kind counter, got 1, 0 and 0", func(s *Series) { s.Scale = 1 }},
		{gauge, "scale, buckets and bucket_min 0 for kind gauge, got 0, 2 and 0", func(s *Series) { s.Buckets = 2 }},
		{stat, "scale, buckets and bucket_min 0 for kind stat, got 0, 0 and -3", func(s *Series) { s.BucketMin = -3 }},
		{counter, "row_cell + 1 at most 8, got 8", func(s *Series) { s.RowCell = 8 }},
		{stat, "row_cell + 5 at most 8, got 4", func(s *Series) { s.RowCell = 4 }},
		{counter, "row_cell + 1 at most 8", func(s *Series) { s.RowCell = 1<<32 - 1 }},
		{stat, "lane_cell + 8 at most 10, got 3", func(s *Series) { s.LaneCell = 3 }},
		{gauge, "shared_cell + 1 at most 2, got 2", func(s *Series) { s.SharedCell = 2 }},
		{histogram, "row_cell + 24 at most 23, got 0", func(s *Series) { s.Buckets++ }},
	} {
		s := all[c.series].Series
		c.do(&s)
		err := s.Check(h, c.series)
		var ce *CorruptError
		if !errors.As(err, &ce) || ce.Section != "series" || ce.Index != c.series || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q of series %d, got %v", c.want, c.series, err)
		}
	}
	// Cells that a kind has not are ignored.
	s := all[gauge].Series
	s.LaneCell = 1<<32 - 1
	if err := s.Check(h, gauge); err != nil {
		t.Error(err)
	}
}

func TestCutStringsRefuses(t *testing.T) {
	_, _, all := described(t)
	good, err := all[0].AppendStrings(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		do   func(s *Series, b []byte)
	}{
		{"UTF-8", func(_ *Series, b []byte) { b[0] = 0xff }},
		{"UTF-8", func(_ *Series, b []byte) { b[1] = 0x80 }},
		{"UTF-8", func(_ *Series, b []byte) { b[4] = 0xc0 }},
		{"a pair list of labels", func(s *Series, b []byte) { b[s.StringsLength()-int(s.LabelsLength)] = 3 }},
		{"labels_length 8, got 14", func(s *Series, b []byte) { b[s.StringsLength()-int(s.LabelsLength)]-- }},
	} {
		b := append([]byte(nil), good...)
		s := all[0].Series
		c.do(&s, b)
		if _, err := s.CutStrings(b, 0); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "series 0") {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
}

func TestAppendStringsRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		s    SeriesInfo
	}{
		{"name of a series: want 1 to 255 bytes, got 0", SeriesInfo{}},
		{"name of a series: want 1 to 255 bytes, got 256", SeriesInfo{Name: strings.Repeat("n", 256)}},
		{"unit of a series: want 0 to 63 bytes, got 64", SeriesInfo{Name: "n", Unit: strings.Repeat("u", 64)}},
		{"help of a series: want 0 to 1023 bytes, got 1024", SeriesInfo{Name: "n", Help: strings.Repeat("h", 1024)}},
		{"name of a series: want UTF-8", SeriesInfo{Name: "\xff"}},
		{"want it once", SeriesInfo{Name: "n", Labels: []Pair{{"a", "1"}, {"a", "2"}}}},
	} {
		b, err := c.s.AppendStrings([]byte("as it was"))
		if err == nil || !strings.Contains(err.Error(), c.want) || string(b) != "as it was" {
			t.Errorf("want %q, got %v and %q", c.want, err, b)
		}
	}
}

func TestSeriesIn(t *testing.T) {
	s := Series{Kind: Stat, Number: F64, RowCell: 3, BornRow: 5}
	for _, c := range []struct {
		row     uint64
		cells   int
		retired uint64
		want    bool
	}{
		{4, 8, 0, false}, {5, 8, 0, true}, {5, 7, 0, false}, {1 << 60, 8, 0, true},
		{8, 8, 9, true}, {9, 8, 9, false}, {4, 8, 9, false}, {5, 8, 5, false},
	} {
		s.RetiredRow = c.retired
		if got := s.In(c.row, c.cells); got != c.want {
			t.Errorf("row %d of %d cells, retired at %d: want %v, got %v", c.row, c.cells, c.retired, c.want, got)
		}
	}
}

func TestNames(t *testing.T) {
	got := fmt.Sprint(Kind(0), Counter, UpDown, Gauge, Stat, Histogram, Kind(6), Number(0), U64, I64, F64, Number(4))
	if want := "free counter updown gauge stat histogram unknown none u64 i64 f64 unknown"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	if U64.Unset() != 0 || F64.Unset() != UnsetF64 || I64.Unset() != UnsetI64 {
		t.Error("unset patterns")
	}
	if (Kind(9).Cells(5) != Cells{}) || Kind(9).Valid(U64) {
		t.Error("an unknown kind has no cells and no numbers")
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&CorruptError{Section: "row", Index: 3, Want: "a", Got: "b"}, "shmts: corrupt segment: row 3: want a, got b"},
		{&CorruptError{Segment: "7f", Section: "source", Index: -1, Want: "a", Got: "b"}, "shmts: corrupt segment 7f: source: want a, got b"},
		{&VersionError{Segment: "7f", Want: "major 1", Got: "2.0"}, "shmts: segment 7f is of another version: want major 1, got 2.0"},
	} {
		if c.err.Error() != c.want {
			t.Errorf("want %q, got %q", c.want, c.err)
		}
	}
}
