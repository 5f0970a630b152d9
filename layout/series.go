package layout

import (
	"fmt"
	"sync/atomic"
	"unicode/utf8"
)

// SeriesInfo is a series with its strings: a descriptor that has been read and checked.
type SeriesInfo struct {
	Series
	Index  int // of the descriptor
	Name   string
	Unit   string // UCUM
	Help   string
	Labels []Pair // its own; the source's are in Header.Labels
}

// Life is the state of the descriptor: SeriesFree ... SeriesRetired.
func (s *Series) Life() int { return int(s.State & 0xff) }

// Generation counts how often the descriptor was used.
func (s *Series) Generation() uint32 { return s.State >> 8 }

// NewState makes a state word.
func NewState(generation uint32, life int) uint32 { return generation<<8 | uint32(life) }

// Range is the shape of a histogram's buckets.
func (s *Series) Range() BucketRange {
	return BucketRange{Scale: int(s.Scale), Min: int(s.BucketMin), Count: int(s.Buckets)}
}

// In tells whether a row holds the series: born, not yet retired, and its cells are there. FORMAT.md 6.1.
func (s *Series) In(baseRow uint64, cells int) bool {
	return baseRow >= s.BornRow && (s.RetiredRow == 0 || baseRow < s.RetiredRow) &&
		int(s.RowCell)+s.Kind.Cells(int(s.Buckets)).Row <= cells
}

// AppendStrings appends a series' strings as they lie in the heap: name,
// unit, help, labels. It fills in the lengths. An error names the maximum or the rule.
func (s *SeriesInfo) AppendStrings(b []byte) ([]byte, error) {
	for _, f := range []struct {
		what, text string
		least, max int
		length     *uint16
	}{
		{"name", s.Name, 1, MaxName, &s.NameLength},
		{"unit", s.Unit, 0, MaxUnit, &s.UnitLength},
		{"help", s.Help, 0, MaxHelp, &s.HelpLength},
	} {
		if n := len(f.text); n < f.least || n > f.max {
			return b, fmt.Errorf("shmts: %s of a series: want %d to %d bytes, got %d (%.40q)", f.what, f.least, f.max, n, f.text)
		}
		if !utf8.ValidString(f.text) {
			return b, fmt.Errorf("shmts: %s of a series: want UTF-8, got %q", f.what, f.text)
		}
		*f.length = uint16(len(f.text))
	}
	out := append(append(append(b, s.Name...), s.Unit...), s.Help...)
	n := len(out)
	out, err := AppendPairs(out, s.Labels)
	if err != nil {
		return b, err
	}
	s.LabelsLength = uint32(len(out) - n)
	return out, nil
}

// StringsLength is how many bytes of heap the series takes.
func (s *Series) StringsLength() int {
	return int(s.NameLength) + int(s.UnitLength) + int(s.HelpLength) + int(s.LabelsLength)
}

// Check holds a copied descriptor against FORMAT.md 6.1. Its error is a
// *CorruptError; the series is to be skipped.
func (s *Series) Check(h *Header, index int) error {
	if err := s.CheckShape(index); err != nil {
		return err
	}
	bad := func(want string, got any) error { return corrupt("series", index, want, got) }
	switch {
	case int(s.Table) >= len(h.Tables):
		return bad(fmt.Sprintf("table below %d", len(h.Tables)), s.Table)
	case uint64(s.Strings)+uint64(s.StringsLength()) > h.Heap.Length:
		return bad(fmt.Sprintf("strings inside the heap of %#x bytes", h.Heap.Length), fmt.Sprintf("%#x + %d", s.Strings, s.StringsLength()))
	}
	t, c := &h.Tables[s.Table], s.Kind.Cells(int(s.Buckets))
	for _, f := range []struct {
		what     string
		at, most uint32
		count    int
	}{
		{"row_cell", s.RowCell, t.RowCells, c.Row},
		{"lane_cell", s.LaneCell, t.LaneCells, c.Lane},
		{"shared_cell", s.SharedCell, t.SharedCells, c.Shared},
	} {
		if f.count > 0 && uint64(f.at)+uint64(f.count) > uint64(f.most) {
			return bad(fmt.Sprintf("%s + %d at most %d", f.what, f.count, f.most), f.at)
		}
	}
	return nil
}

// CheckShape holds against FORMAT.md 6.1 what a descriptor says of its series itself, wherever it lies. Its error is
// Check's.
func (s *Series) CheckShape(index int) error {
	bad := func(want string, got any) error { return corrupt("series", index, want, got) }
	switch {
	case !s.Kind.Valid(s.Number):
		return bad("a kind and number of FORMAT.md 6.2", fmt.Sprintf("kind %d, number %d", s.Kind, s.Number))
	case s.NameLength < 1 || s.NameLength > MaxName:
		return bad(fmt.Sprintf("name_length 1 to %d", MaxName), s.NameLength)
	case s.UnitLength > MaxUnit:
		return bad(fmt.Sprintf("unit_length at most %d", MaxUnit), s.UnitLength)
	case s.HelpLength > MaxHelp:
		return bad(fmt.Sprintf("help_length at most %d", MaxHelp), s.HelpLength)
	case s.LabelsLength < 2 || s.LabelsLength > MaxLabelsLength:
		return bad(fmt.Sprintf("labels_length 2 to %d", MaxLabelsLength), s.LabelsLength)
	}
	if s.Kind == Histogram {
		if err := s.Range().Check(); err != nil {
			return bad("a bucket range of FORMAT.md 9", err)
		}
	} else if s.Scale != 0 || s.Buckets != 0 || s.BucketMin != 0 {
		return bad("scale, buckets and bucket_min 0 for kind "+s.Kind.String(),
			fmt.Sprintf("%d, %d and %d", s.Scale, s.Buckets, s.BucketMin))
	}
	return nil
}

// CutStrings takes the strings of a checked descriptor out of b, a private copy of
// its StringsLength bytes.
func (s *Series) CutStrings(b []byte, index int) (SeriesInfo, error) {
	info := SeriesInfo{Series: *s, Index: index}
	cut := func(n uint16) string {
		t := string(b[:n])
		b = b[n:]
		return t
	}
	info.Name, info.Unit, info.Help = cut(s.NameLength), cut(s.UnitLength), cut(s.HelpLength)
	for _, t := range []string{info.Name, info.Unit, info.Help} {
		if !utf8.ValidString(t) {
			return SeriesInfo{}, corrupt("series", index, "UTF-8", fmt.Sprintf("%q", t))
		}
	}
	labels, rest, err := CutPairs(b)
	if err != nil {
		return SeriesInfo{}, corrupt("series", index, "a pair list of labels", err)
	}
	if len(rest) != 0 {
		return SeriesInfo{}, corrupt("series", index, fmt.Sprintf("labels_length %d", int(s.LabelsLength)-len(rest)), s.LabelsLength)
	}
	info.Labels = labels
	return info, nil
}

// StoreSeries is the writer's half of 10.2: it puts descriptor and strings in
// place, and makes the series live last of all. seg is the whole segment;
// s.State carries the generation.
func StoreSeries(seg []uint64, h *Header, s *SeriesInfo, strings []byte) {
	d := seg[h.Series.Offset/8+uint64(s.Index)*uint64(h.Series.ElementSize)/8:][:SeriesWords]
	generation := s.Generation()
	var image [SeriesWords]uint64
	desc := s.Series
	desc.State = NewState(generation, SeriesFilling)
	*View[Series](image[:], 0) = desc
	atomic.StoreUint64(&d[SeriesStateWord], image[SeriesStateWord])
	copy(Bytes(seg)[h.Heap.Offset+uint64(s.Strings):], strings)
	for i := 1; i < SeriesWords; i++ {
		atomic.StoreUint64(&d[i], image[i])
	}
	s.State = NewState(generation, SeriesLive)
	atomic.StoreUint64(&d[SeriesStateWord], image[SeriesStateWord]&^0xffffffff|uint64(s.State))
	noteChange(seg, h, int(s.Table))
}

// noteChange tells readers that come back that a descriptor of the table is
// another: last of all, so that who sees it sees the descriptor too. FORMAT.md 10.2.
func noteChange(seg []uint64, h *Header, table int) {
	atomic.AddUint64(&seg[h.Control.Offset/8+CtlTables+uint64(table)*TctlWords+TctlChanges], 1)
}

// RetireSeries is the writer's half of retiring, 10.2: rows before retiredRow hold the series.
func RetireSeries(seg []uint64, h *Header, index int, retiredRow uint64) {
	d := seg[h.Series.Offset/8+uint64(index)*uint64(h.Series.ElementSize)/8:][:SeriesWords]
	atomic.StoreUint64(&d[SeriesRetiredWord], retiredRow)
	w := d[SeriesStateWord] // this process alone stores here
	atomic.StoreUint64(&d[SeriesStateWord], w&^0xff|SeriesRetired)
	noteChange(seg, h, int(uint16(d[1]))) // the table, at 0x08
}
