package fuzz

import (
	"bytes"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/shmts/shmts/layout"
)

// FuzzPairs takes arbitrary bytes for a pair list, FORMAT.md 6.4. What is accepted keeps every rule, and is the same when it is
// written and read again.
func FuzzPairs(f *testing.F) {
	for _, pairs := range [][]layout.Pair{nil, {{Name: "a", Value: "b"}}, {{Name: "job", Value: "x"}, {Name: "instance", Value: "é"}}} {
		b, err := layout.AppendPairs(nil, pairs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 1, 2, 3))
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 1, 0, 0, 0, 'b', 1, 0, 0, 0, 'a'})
	f.Add([]byte{1, 0, 1, 0, 1, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, rest, err := layout.CutPairs(b)
		if err != nil {
			if pairs != nil {
				t.Fatalf("want pairs or an error, got %v and %v", pairs, err)
			}
			return
		}
		if len(pairs) > layout.MaxPairs || len(rest) > len(b)-2 {
			t.Fatalf("want at most %d pairs and less bytes than before, got %d and %d of %d", layout.MaxPairs, len(pairs), len(rest), len(b))
		}
		for i, p := range pairs {
			if p.Name == "" || p.Value == "" || len(p.Name) > layout.MaxLabelName || len(p.Value) > layout.MaxLabelValue ||
				!utf8.ValidString(p.Name) || !utf8.ValidString(p.Value) || i > 0 && pairs[i-1].Name >= p.Name {
				t.Fatalf("pair %d breaks the rules: %q", i, pairs)
			}
		}
		again, err := layout.AppendPairs(nil, pairs)
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		back, tail, err := layout.CutPairs(again)
		if err != nil || len(tail) != 0 || !slices.Equal(back, pairs) {
			t.Fatalf("want %q again, got %q (%v)", pairs, back, err)
		}
	})
}

// FuzzStrings takes an arbitrary descriptor with arbitrary strings, FORMAT.md 6.1. A series that passes has cells inside its table
// and strings that keep the rules, and together they are the bytes that were there.
func FuzzStrings(f *testing.F) {
	for _, b := range seeds(f) {
		w := words(b)
		h, err := layout.ParseHeader(w, int64(len(b)))
		if err != nil {
			continue
		}
		for i := range uint64(min(h.Series.Count, 8)) {
			at := h.Series.Offset + i*uint64(h.Series.ElementSize)
			f.Add(b[at:at+layout.SeriesSize], b[h.Heap.Offset:h.Heap.Offset+h.Heap.Length])
		}
	}
	f.Fuzz(func(t *testing.T, desc, heap []byte) {
		if len(desc) < layout.SeriesSize || len(heap) == 0 || len(heap) > 1<<20 {
			return
		}
		ts := layout.TableSchema{Name: "t", Lanes: 1, RowCells: 40, LaneCells: 40, SharedCells: 8, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 2}}}
		h, err := layout.NewHeader(layout.Schema{Tables: []layout.TableSchema{ts}, Series: 1, HeapBytes: len(heap),
			Labels: []layout.Pair{{Name: "job", Value: "j"}, {Name: "instance", Value: "i"}}})
		if err != nil {
			t.Fatal(err)
		}
		s := *layout.View[layout.Series](words(desc), 0)
		if s.Check(h, 0) != nil {
			return
		}
		if c := s.Kind.Cells(int(s.Buckets)); int(s.RowCell)+c.Row > ts.RowCells ||
			c.Lane > 0 && int(s.LaneCell)+c.Lane > ts.LaneCells || c.Shared > 0 && int(s.SharedCell)+c.Shared > ts.SharedCells {
			t.Fatalf("cells past the table: %+v", s)
		}
		b := heap[s.Strings:][:s.StringsLength()]
		info, err := s.CutStrings(b, 0)
		if err != nil {
			if info.Name != "" || info.Labels != nil {
				t.Fatalf("want a series or an error, got %+v and %v", info, err)
			}
			return
		}
		if !bytes.HasPrefix(b, []byte(info.Name+info.Unit+info.Help)) || info.Name == "" || !utf8.Valid(b[:len(info.Name)+len(info.Unit)+len(info.Help)]) {
			t.Fatalf("name %q, unit %q, help %q are not what was there", info.Name, info.Unit, info.Help)
		}
		if out, err := info.AppendStrings(nil); err != nil || !bytes.HasPrefix(out, b[:int(s.NameLength)+int(s.UnitLength)+int(s.HelpLength)]) {
			t.Fatalf("what was read can't be written: %v", err)
		}
	})
}
