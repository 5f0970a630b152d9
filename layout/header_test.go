package layout

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var le = binary.LittleEndian

// testSchema has two tables, of two tiers and one.
func testSchema() Schema {
	fast := TableSchema{Name: "fast", Lanes: 2, Tiers: []TierSchema{{time.Second, 4}, {10 * time.Second, 3}}}
	fast.Add(2, Counter, 0)
	fast.Add(1, Gauge, 0)
	fast.Add(1, Stat, 0)
	slow := TableSchema{Name: "slow", Lanes: 1, Tiers: []TierSchema{{10 * time.Second, 2}}}
	slow.Add(1, Histogram, 20)
	return Schema{Tables: []TableSchema{fast, slow}, Series: 8, HeapBytes: 256,
		Labels:     []Pair{{"job", "j"}, {"instance", "i"}, {"zone", ""}},
		Attributes: []Pair{{"service.version", "1"}}}
}

// newborn is a segment of the schema with its header and control block, as before it gets its name.
func newborn(t testing.TB, s Schema) (*Header, []uint64) {
	t.Helper()
	h, err := NewHeader(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.SegmentID {
		h.SegmentID[i] = byte(i * 7)
	}
	h.BirthUnix, h.BirthMono = 1_700_000_000_000_000_000, 1_000_000_000
	copy(h.Writer[:], "layout test")
	w := make([]uint64, h.TotalSize/8)
	h.Encode(w)
	h.InitControl(w)
	return h, w
}

// rehash makes the checksum of a changed header right.
func rehash(w []uint64) {
	size := int(le.Uint32(Bytes(w)[0x0c:])) / 8
	if size > 17 && size <= len(w) {
		w[17] = 0
		w[17] = slowSum(headerSeed, w[:size])
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, s := range []Schema{testSchema(), func() Schema {
		s := testSchema()
		s.Sampled = true
		s.Tables[0].Tiers = nil
		return s
	}(), func() Schema {
		s := testSchema()
		s.Exemplars = 16
		return s
	}()} {
		h, w := newborn(t, s)
		got, err := ParseHeader(w, int64(len(w)*8))
		if err != nil {
			t.Fatal(err)
		}
		h.Labels = []Pair{{"instance", "i"}, {"job", "j"}} // sorted, without the empty one
		if !reflect.DeepEqual(got, h) {
			t.Errorf("want %+v, got %+v", h, got)
		}
		if got.TotalSize%4096 != 0 || got.HeaderSize%64 != 0 {
			t.Errorf("total size %d, header size %d", got.TotalSize, got.HeaderSize)
		}
		if size, err := HeaderSize(w[:SuperblockSize/8]); err != nil || size != int(h.HeaderSize) {
			t.Errorf("want a header size of %d, got %d and %v", h.HeaderSize, size, err)
		}
		if _, err := ParseHeader(w[:h.HeaderSize/8], int64(h.TotalSize)); err != nil {
			t.Errorf("want the header's own bytes to be enough, got %v", err)
		}
	}
}

func TestInitControl(t *testing.T) {
	h, w := newborn(t, testSchema())
	c := View[Control](w, h.Control.Offset)
	if c.State != StateLive || c.ClockOffset != h.BirthUnix-h.BirthMono || c.Table[0].OpenRow != 1 || c.Table[7].OpenRow != 1 {
		t.Errorf("control block at birth: %+v", c)
	}
}

// section finds a section's entry.
func section(w []uint64, t SectionType) *Section {
	for i := range uint64(64) {
		if s := View[Section](w, SuperblockSize+i*SectionSize); s.Type == t {
			return s
		}
	}
	return nil
}

// Each case breaks one rule of FORMAT.md 4, with the checksum made right again, and wants to hear of that one.
func TestParseHeaderRefuses(t *testing.T) {
	type breaks struct {
		name string
		want string
		do   func(h *Header, w []uint64)
	}
	super := func(do func(s *Superblock)) func(*Header, []uint64) {
		return func(_ *Header, w []uint64) { do(View[Superblock](w, 0)) }
	}
	in := func(typ SectionType, do func(s *Section)) func(*Header, []uint64) {
		return func(_ *Header, w []uint64) { do(section(w, typ)) }
	}
	table := func(do func(t *Table)) func(*Header, []uint64) {
		return func(_ *Header, w []uint64) { do(View[Table](w, section(w, SectionTables).Offset+TableSize)) }
	}
	tier := func(do func(t *Tier)) func(*Header, []uint64) {
		return func(_ *Header, w []uint64) { do(&View[Table](w, section(w, SectionTables).Offset).Tier[1]) }
	}
	cases := []breaks{
		{"magic", "superblock: want magic 0x1a0a0d53544d4853, got", super(func(s *Superblock) { s.Magic++ })},
		{"major", "want major 1, got 2.0", super(func(s *Superblock) { s.Major = 2 })},
		{"incompat", "want no incompat features, got 0x8", super(func(s *Superblock) { s.Incompat = 8 })},
		{"header_size odd", "want header_size a multiple of 64 from 256 to 65536, got 1000", super(func(s *Superblock) { s.HeaderSize = 1000 })},
		{"header_size small", "header_size", super(func(s *Superblock) { s.HeaderSize = 192 })},
		{"header_size large", "header_size", super(func(s *Superblock) { s.HeaderSize = 65600 })},
		{"header_size past the copy", "want header_size of at most", func(_ *Header, w []uint64) { View[Superblock](w, 0).HeaderSize = uint32(len(w)*8 + 64) }},
		{"total_size odd", "want total_size a multiple of 4096", super(func(s *Superblock) { s.TotalSize += 64 })},
		{"total_size large", "want total_size a multiple of 4096", super(func(s *Superblock) { s.TotalSize = MaxTotalSize + 4096 })},
		{"total_size small", "want total_size a multiple of 4096", super(func(s *Superblock) { s.TotalSize = 0 })},
		{"total_size other", "the file's size", super(func(s *Superblock) { s.TotalSize += 4096 })},
		{"section_count 0", "want section_count 1 to 64, got 0", super(func(s *Superblock) { s.SectionCount = 0 })},
		{"section_count 65", "want section_count 1 to 64, got 65", super(func(s *Superblock) { s.SectionCount = 65 })},
		{"section_offset", "want section_offset 256, got 288", super(func(s *Superblock) { s.SectionOffset = 288 })},
		{"section table past", "section table: want 64 sections inside the header", super(func(s *Superblock) { s.SectionCount = 64 })},
		{"section misaligned", "section table 3: want offset a multiple of 64", in(SectionSeries, func(s *Section) { s.Offset += 8 })},
		{"section in the header", "section table 2: want offset a multiple of 64", in(SectionControl, func(s *Section) { s.Offset = 512 })},
		{"section past", "section table 6: want offset a multiple of 64", in(SectionRows, func(s *Section) { s.Offset = 1 << 62 })},
		{"section behind the header", "section table 0: want offset a multiple of 64", in(SectionTables, func(s *Section) { s.Offset = 4096 })},
		{"section in the table", "section table 1: want offset a multiple of 64", in(SectionSource, func(s *Section) { s.Offset = 448 })},
		{"section length", "section table 4: want length at most", in(SectionHeap, func(s *Section) { s.Length = 1<<64 - 64 })},
		{"section element small", "section table 3: want element_size 64 or a larger multiple of 64, got 32", in(SectionSeries, func(s *Section) { s.ElementSize = 32 })},
		{"section element odd", "section table 2: want element_size 640 or a larger multiple of 64, got 648", in(SectionControl, func(s *Section) { s.ElementSize = 648 })},
		{"section element words", "section table 5: want element_size 8, got 16", in(SectionLanes, func(s *Section) { s.ElementSize = 16 })},
		{"section product", "section table 4: want length count x element_size = 0xff, got 0x100", in(SectionHeap, func(s *Section) { s.Count-- })},
		{"section twice", "section table 6: want section type 5 once, got twice", in(SectionRows, func(s *Section) {
			*s = Section{Type: SectionHeap, Offset: s.Offset, Length: 64, Count: 64, ElementSize: 1}
		})},
		{"section overlap", "section table 4: want no overlap with section type 4", func(_ *Header, w []uint64) {
			section(w, SectionHeap).Offset = section(w, SectionSeries).Offset + 64
		}},
		{"section missing", "section table: want a section of type 7, got none", in(SectionRows, func(s *Section) { s.Type = 99 })},
		{"control twice", "want one control block, got 2", in(SectionControl, func(s *Section) { s.Count, s.Length, s.Offset = 2, 2*ControlSize, 1<<30-4096 })},
		{"series many", "want at most 1048576 series, got 1048577", in(SectionSeries, func(s *Section) {
			s.Count, s.Length, s.Offset = MaxSeries+1, (MaxSeries+1)*SeriesSize, 1<<29
		})},
		{"tables 0", "want 1 to 8 tables, got 0", in(SectionTables, func(s *Section) { s.Count, s.Length = 0, 0 })},
		{"tables 9", "want 1 to 8 tables, got 9", func(h *Header, w []uint64) { // the source goes where the header ends
			s := section(w, SectionTables)
			s.Count, s.Length = 9, 9*TableSize
			sb := View[Superblock](w, 0)
			sb.HeaderSize = 4096
			copy(Bytes(w)[4032:], "\x00\x00\x00\x00")
			*section(w, SectionSource) = Section{Type: SectionSource, Count: 4, Offset: 4032, Length: 4, ElementSize: 1}
			for _, t := range []SectionType{SectionControl, SectionSeries, SectionHeap, SectionLanes, SectionRows} {
				section(w, t).Offset += 4096
			}
		}},
		{"tiers 0", "table 1: want 1 to 4 tiers (0 when sampled), got 0", table(func(t *Table) { t.Tiers = 0 })},
		{"tiers 5", "table 1: want 1 to 4 tiers (0 when sampled), got 5", table(func(t *Table) { t.Tiers = 5 })},
		{"lanes 0", "table 1: want 1 to 64 lanes, got 0", table(func(t *Table) { t.Lanes = 0 })},
		{"lanes 65", "table 1: want 1 to 64 lanes, got 65", table(func(t *Table) { t.Lanes = 65 })},
		{"row_cells 0", "table 1: want 1 to 1048576 row_cells, got 0", table(func(t *Table) { t.RowCells = 0 })},
		{"row_cells many", "row_cells", table(func(t *Table) { t.RowCells = MaxCells + 1 })},
		{"lane_cells 0", "table 1: want 1 to 1048576 lane_cells, got 0", table(func(t *Table) { t.LaneCells = 0 })},
		{"lane_cells many", "lane_cells", table(func(t *Table) { t.LaneCells = MaxCells + 1 })},
		{"shared_cells many", "table 1: want at most 1048576 shared_cells", table(func(t *Table) { t.SharedCells = MaxCells + 1 })},
		{"lane_stride odd", "lane_stride a multiple of 64, not of 4096", table(func(t *Table) { t.LaneStride += 8 })},
		{"lane_stride page", "lane_stride a multiple of 64, not of 4096", table(func(t *Table) { t.LaneStride = 4096 })},
		{"lane_stride small", "lane_stride a multiple of 64, not of 4096, at least 184, got 128", table(func(t *Table) { t.LaneStride = 128 })},
		{"lanes misaligned", "want lanes inside section lanes", table(func(t *Table) { t.LanesOffset += 8 })},
		{"lanes past", "want lanes inside section lanes", table(func(t *Table) { t.LanesOffset += 64 })},
		{"lanes before", "want lanes inside section lanes", table(func(t *Table) { t.LanesOffset = 64 })},
		{"lanes wrap", "want lanes inside section lanes", table(func(t *Table) { t.LanesOffset = 1<<64 - 64 })},
		{"shared misaligned", "want shared lane inside section lanes", table(func(t *Table) { t.SharedOffset += 8 })},
		{"shared past", "want shared lane inside section lanes", table(func(t *Table) { t.SharedOffset += 64 })},
		{"step short", "table 0, tier 1: want step 100000000 to 3600000000000 ns, got 1", tier(func(t *Tier) { t.Step = 1 })},
		{"step long", "want step 100000000 to 3600000000000 ns", tier(func(t *Tier) { t.Step = MaxStep + 1 })},
		{"step same", "want step a multiple of the tier before (1000000000), got 1000000000", tier(func(t *Tier) { t.Step = 1e9 })},
		{"step odd", "want step a multiple of the tier before", tier(func(t *Tier) { t.Step = 1.5e9 })},
		{"rows 1", "want 2 to 65536 rows, got 1", tier(func(t *Tier) { t.Rows = 1 })},
		{"rows many", "want 2 to 65536 rows, got 65537", tier(func(t *Tier) { t.Rows = MaxRows + 1 })},
		{"row_stride odd", "want row_stride a multiple of 64, at least 128", tier(func(t *Tier) { t.RowStride += 8 })},
		{"row_stride small", "want row_stride a multiple of 64, at least 128, got 64", tier(func(t *Tier) { t.RowStride = 64 })},
		{"ring misaligned", "want ring inside section rows", tier(func(t *Tier) { t.Offset += 8 })},
		{"ring past", "want ring inside section rows", tier(func(t *Tier) { t.Offset = 1 << 62 })},
		{"ring long", "want ring inside section rows", tier(func(t *Tier) { t.Rows = 65536 })},
		{"source broken", "source: want two pair lists", in(SectionSource, func(s *Section) { s.Count, s.Length = 3, 3 })},
		{"attributes broken", "source: want two pair lists", in(SectionSource, func(s *Section) { s.Count -= 1; s.Length -= 1 })},
		{"no instance", "source: want a label instance, got none", func(h *Header, w []uint64) {
			b := Bytes(w)[section(w, SectionSource).Offset:]
			b[2+4] = 'a' // instance becomes anstance
		}},
		{"no job", "source: want a label job, got none", func(h *Header, w []uint64) {
			b := Bytes(w)[section(w, SectionSource).Offset:]
			b[2+4+len("instance")+1+4] = 'k' // job becomes kob
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, w := newborn(t, testSchema())
			w = append(w, make([]uint64, 4096)...)
			fileSize := int64(h.TotalSize)
			if c.want[:4] == "want" && (strings.Contains(c.name, "control twice") || strings.Contains(c.name, "series many") || c.name == "tables 9") {
				fileSize = MaxTotalSize // a larger file, of which only the header is looked at
				View[Superblock](w, 0).TotalSize = MaxTotalSize
			}
			w = w[:max(int(h.HeaderSize)/8, 1024)]
			c.do(h, w)
			rehash(w)
			got, err := ParseHeader(w, fileSize)
			if err == nil || got != nil {
				t.Fatalf("want %q and no header, got %v and %v", c.want, err, got)
			}
			var ce *CorruptError
			var ve *VersionError
			if !errors.As(err, &ce) && !errors.As(err, &ve) {
				t.Errorf("want a CorruptError or a VersionError, got %T", err)
			}
			if !strings.HasPrefix(err.Error(), "shmts: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
	t.Run("checksum", func(t *testing.T) {
		h, good := newborn(t, testSchema())
		for bit := range int(h.HeaderSize) * 8 {
			w := append([]uint64(nil), good[:h.HeaderSize/8]...)
			w[bit/64] ^= 1 << (bit % 64)
			if _, err := ParseHeader(w, int64(h.TotalSize)); err == nil {
				t.Fatalf("bit %d of the header flipped: want it refused, got a header", bit)
			}
		}
	})
	t.Run("short", func(t *testing.T) {
		_, w := newborn(t, testSchema())
		for n := range SuperblockSize / 8 {
			if _, err := ParseHeader(w[:n], int64(n*8)); err == nil || !strings.Contains(err.Error(), "256 bytes") {
				t.Fatalf("%d words: want 256 bytes, got %v", n, err)
			}
		}
	})
}

// What FORMAT.md lets be: each is one change that a reader goes on after.
func TestParseHeaderAccepts(t *testing.T) {
	for name, do := range map[string]func(h *Header, w []uint64){
		"minor":        func(_ *Header, w []uint64) { View[Superblock](w, 0).Minor = 99 },
		"compat":       func(_ *Header, w []uint64) { View[Superblock](w, 0).Compat = 1 },
		"flags":        func(_ *Header, w []uint64) { View[Superblock](w, 0).Flags = 0xfe },
		"group_index":  func(_ *Header, w []uint64) { View[Superblock](w, 0).GroupIndex = 77 },
		"reserved":     func(_ *Header, w []uint64) { View[Superblock](w, 0).Reserved[63] = 1 },
		"unused tiers": func(_ *Header, w []uint64) { View[Table](w, section(w, SectionTables).Offset).Tier[2].Step = 1 },
		"unknown section": func(_ *Header, w []uint64) {
			*View[Section](w, 256+7*32) = Section{Type: 1000, Offset: 1<<64 - 1}
			View[Superblock](w, 0).SectionCount = 8
		},
	} {
		h, w := newborn(t, testSchema())
		do(h, w)
		rehash(w)
		if _, err := ParseHeader(w, int64(h.TotalSize)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two sections touch, and an empty one may lie anywhere.
func TestParseHeaderOverlap(t *testing.T) {
	s := testSchema()
	s.Sampled = true
	for i := range s.Tables {
		s.Tables[i].Tiers = nil
	}
	h, w := newborn(t, s)
	section(w, SectionRows).Offset = h.Heap.Offset + 64 // empty
	rehash(w)
	if _, err := ParseHeader(w, int64(h.TotalSize)); err != nil {
		t.Errorf("an empty section inside another: %v", err)
	}
}

func TestNewHeaderRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		do   func(s *Schema)
	}{
		{"tables: want 1 to 8, got 0", func(s *Schema) { s.Tables = nil }},
		{"tables: want 1 to 8, got 9", func(s *Schema) { s.Tables = make([]TableSchema, 9) }},
		{"series: want 1 to 1048576, got 0", func(s *Schema) { s.Series = 0 }},
		{"series: want 1 to 1048576, got 1048577", func(s *Schema) { s.Series = MaxSeries + 1 }},
		{"heap bytes: want 1 to", func(s *Schema) { s.HeapBytes = 0 }},
		{"heap bytes: want 1 to", func(s *Schema) { s.HeapBytes = MaxTotalSize + 1 }},
		{"table name: want at most 16 bytes", func(s *Schema) { s.Tables[0].Name = "seventeen bytes.." }},
		{"lanes of table fast: want 1 to 64, got 0", func(s *Schema) { s.Tables[0].Lanes = 0 }},
		{"lanes of table fast: want 1 to 64, got 65", func(s *Schema) { s.Tables[0].Lanes = 65 }},
		{"row cells of table fast", func(s *Schema) { s.Tables[0].RowCells = 0 }},
		{"lane cells of table fast", func(s *Schema) { s.Tables[0].LaneCells = MaxCells + 1 }},
		{"shared cells of table fast", func(s *Schema) { s.Tables[0].SharedCells = -1 }},
		{"tiers of table slow: want 1 to 4, got 0", func(s *Schema) { s.Tables[1].Tiers = nil }},
		{"tiers of table slow: want 1 to 4, got 5", func(s *Schema) { s.Tables[1].Tiers = make([]TierSchema, 5) }},
		{"step of table slow, tier 0", func(s *Schema) { s.Tables[1].Tiers[0].Step = time.Millisecond }},
		{"step of table slow, tier 0", func(s *Schema) { s.Tables[1].Tiers[0].Step = 2 * time.Hour }},
		{"want a multiple of the tier before (1s), got 1.5s", func(s *Schema) { s.Tables[0].Tiers[1].Step = 1500 * time.Millisecond }},
		{"rows of table fast, tier 0: want 2 to 65536, got 1", func(s *Schema) { s.Tables[0].Tiers[0].Rows = 1 }},
		{"want a segment of at most", func(s *Schema) { s.Tables[0].RowCells = MaxCells; s.Tables[0].Tiers[0].Rows = 1000 }},
		{"value of label", func(s *Schema) { s.Labels[0].Value = strings.Repeat("x", 1024) }},
		{"label name", func(s *Schema) { s.Attributes[0].Name = "" }},
		{"want a header of at most 65536 bytes", func(s *Schema) {
			for i := range 61 {
				s.Labels = append(s.Labels, Pair{"label" + string(rune('0'+i)), strings.Repeat("x", 1000)})
			}
			for _, n := range []string{"a", "b", "c", "d"} {
				s.Attributes = append(s.Attributes, Pair{n, strings.Repeat("x", 1000)})
			}
		}},
	} {
		s := testSchema()
		c.do(&s)
		if h, err := NewHeader(s); err == nil || h != nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "shmts: ") {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
}

// Lanes keep off strides that make equal cells of all lanes compete for one cache set.
func TestLaneStride(t *testing.T) {
	for cells := 1; cells < 5000; cells++ {
		s := laneStride(cells)
		if s%64 != 0 || s%4096 == 0 || s < uint64(cells)*8 || s > uint64(cells)*8+128 {
			t.Fatalf("%d cells: stride %d", cells, s)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range [][2]string{{"", ""}, {"abc\x00def", "abc"}, {"abc", "abc"}, {"a\xffb\x00", "a\uFFFDb"}} {
		if got := Text([]byte(c[0])); got != c[1] {
			t.Errorf("%q: want %q, got %q", c[0], c[1], got)
		}
	}
}

func TestViewBounds(t *testing.T) {
	w := make([]uint64, 8)
	if View[RowHeader](w, 0) == nil || View[Tier](w, 32) == nil {
		t.Error("want a view of what lies inside")
	}
	for _, off := range []uint64{8, 1, 4, 64, 1 << 63, 1<<64 - 8} {
		if View[RowHeader](w, off) != nil {
			t.Errorf("offset %#x: want no view", off)
		}
	}
	if Words(nil) != nil || Words(make([]byte, 7)) != nil || Bytes(nil) != nil {
		t.Error("want nothing of nothing")
	}
	b := Bytes(w)
	if len(Words(b[:63])) != 7 {
		t.Errorf("want the tail left out, got %d words", len(Words(b[:63])))
	}
	defer func() {
		if recover() == nil {
			t.Error("want a panic for misaligned memory")
		}
	}()
	Words(b[4:])
}
