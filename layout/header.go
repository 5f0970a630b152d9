package layout

import (
	"bytes"
	"fmt"
	"time"
)

// A Header is everything about a segment that never changes: superblock,
// sections, tables and source. FORMAT.md 4.
type Header struct {
	Superblock
	Sections   []Section
	Tables     []Table
	Labels     []Pair // job, instance and others that every series carries
	Attributes []Pair // resource attributes, no labels

	Control, Series, Heap, Lanes, Rows Section // the same as in Sections, by name
	Exemplars                          Section // zero, and Count with it, where the segment has no ring of them
}

// Schema is what a writer wants room for. Its size in bytes follows from it
// alone: see NewHeader.
type Schema struct {
	Tables     []TableSchema
	Series     int // descriptors, for all tables
	HeapBytes  int // strings of all series
	Labels     []Pair
	Attributes []Pair
	Sampled    bool // the writer never ticks
	Exemplars  int  // slots of their ring: a power of two from MinExemplars to MaxExemplars, or 0: none
}

// TableSchema is the shape of one table.
type TableSchema struct {
	Name        string
	Series      int // planned; information
	Lanes       int // private lanes, 1 to MaxLanes
	RowCells    int
	LaneCells   int
	SharedCells int
	Tiers       []TierSchema
}

// TierSchema is a ring of rows.
type TierSchema struct {
	Step time.Duration
	Rows int
}

// Add makes room in the table for n series of a kind.
func (t *TableSchema) Add(n int, k Kind, buckets int) {
	c := k.Cells(buckets)
	t.Series += n
	t.RowCells += n * c.Row
	t.LaneCells += n * c.Lane
	t.SharedCells += n * c.Shared
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// laneStride keeps lanes off a page-multiple stride, which makes equal cells of
// all lanes compete for one cache set (measured: 10.6 ns an add instead of 0.44).
func laneStride(cells int) uint64 {
	s := roundUp(uint64(cells)*8, lineSize)
	if s%pageSize == 0 {
		s += lineSize
	}
	return s
}

// NewHeader lays a segment out: sections, tables, total size. Ids, times and
// the writer's name are the caller's to fill in before Encode. An error
// names the first maximum that the schema is over.
func NewHeader(s Schema) (*Header, error) {
	h := &Header{}
	labels, err := AppendPairs(nil, s.Labels)
	if err != nil {
		return nil, err
	}
	attributes, err := AppendPairs(nil, s.Attributes)
	if err != nil {
		return nil, err
	}
	h.Labels, _, _ = CutPairs(labels)
	h.Attributes, _, _ = CutPairs(attributes)
	sections := uint64(SectionRows)
	if s.Exemplars != 0 {
		sections++
	}
	at := uint64(SuperblockSize + sections*SectionSize)
	add := func(t SectionType, count, element uint64) Section {
		at = roundUp(at, lineSize)
		sec := Section{Type: t, Count: uint32(count), Offset: at, Length: count * element, ElementSize: uint32(element)}
		at += sec.Length
		h.Sections = append(h.Sections, sec)
		return sec
	}
	over := func(what string, most, got int) error {
		return fmt.Errorf("shmts: schema: %s: want 1 to %d, got %d", what, most, got)
	}
	if n := len(s.Tables); n < 1 || n > MaxTables {
		return nil, over("tables", MaxTables, n)
	}
	add(SectionTables, uint64(len(s.Tables)), TableSize)
	add(SectionSource, uint64(len(labels)+len(attributes)), 1)
	header := roundUp(at, lineSize)
	if header > MaxHeaderSize {
		return nil, fmt.Errorf("shmts: schema: labels and attributes: want a header of at most %d bytes, got %d", MaxHeaderSize, header)
	}
	at = header
	h.Control = add(SectionControl, 1, ControlSize)
	if s.Series < 1 || s.Series > MaxSeries {
		return nil, over("series", MaxSeries, s.Series)
	}
	h.Series = add(SectionSeries, uint64(s.Series), SeriesSize)
	if s.HeapBytes < 1 || s.HeapBytes > MaxTotalSize {
		return nil, over("heap bytes", MaxTotalSize, s.HeapBytes)
	}
	h.Heap = add(SectionHeap, uint64(s.HeapBytes), 1)

	at = roundUp(at, lineSize)
	lanes := at
	for _, ts := range s.Tables {
		t := Table{Tiers: uint32(len(ts.Tiers)), Lanes: uint32(ts.Lanes), RowCells: uint32(ts.RowCells),
			LaneCells: uint32(ts.LaneCells), SharedCells: uint32(ts.SharedCells), SeriesCapacity: uint32(ts.Series)}
		if copy(t.Name[:], ts.Name) < len(ts.Name) {
			return nil, fmt.Errorf("shmts: schema: table name: want at most %d bytes, got %q", len(t.Name), ts.Name)
		}
		switch {
		case ts.Lanes < 1 || ts.Lanes > MaxLanes:
			return nil, over("lanes of table "+ts.Name, MaxLanes, ts.Lanes)
		case ts.RowCells < 1 || ts.RowCells > MaxCells:
			return nil, over("row cells of table "+ts.Name, MaxCells, ts.RowCells)
		case ts.LaneCells < 1 || ts.LaneCells > MaxCells:
			return nil, over("lane cells of table "+ts.Name, MaxCells, ts.LaneCells)
		case ts.SharedCells < 0 || ts.SharedCells > MaxCells:
			return nil, over("shared cells of table "+ts.Name, MaxCells, ts.SharedCells)
		case len(ts.Tiers) > MaxTiers || len(ts.Tiers) == 0 && !s.Sampled:
			return nil, over("tiers of table "+ts.Name, MaxTiers, len(ts.Tiers))
		}
		t.LaneStride = uint32(laneStride(ts.LaneCells))
		t.LanesOffset = at
		at += uint64(t.Lanes+1) * uint64(t.LaneStride)
		t.SharedOffset = at
		at += roundUp(uint64(ts.SharedCells)*8, lineSize)
		h.Tables = append(h.Tables, t)
	}
	end := at
	at = lanes
	h.Lanes = add(SectionLanes, (end-lanes)/8, 8)

	at = roundUp(end, lineSize)
	rows := at
	for i, ts := range s.Tables {
		for j, tier := range ts.Tiers {
			step := uint64(tier.Step)
			switch {
			case tier.Step < MinStep || tier.Step > MaxStep:
				return nil, fmt.Errorf("shmts: schema: step of table %s, tier %d: want %v to %v, got %v",
					ts.Name, j, time.Duration(MinStep), time.Duration(MaxStep), tier.Step)
			case j > 0 && (tier.Step <= ts.Tiers[j-1].Step || tier.Step%ts.Tiers[j-1].Step != 0):
				return nil, fmt.Errorf("shmts: schema: step of table %s, tier %d: want a multiple of the tier before (%v), got %v",
					ts.Name, j, ts.Tiers[j-1].Step, tier.Step)
			case tier.Rows < MinRows || tier.Rows > MaxRows:
				return nil, fmt.Errorf("shmts: schema: rows of table %s, tier %d: want %d to %d, got %d",
					ts.Name, j, MinRows, MaxRows, tier.Rows)
			}
			stride := roundUp(RowHeaderSize+8*uint64(ts.RowCells), lineSize)
			h.Tables[i].Tier[j] = Tier{Step: step, Rows: uint32(tier.Rows), RowStride: uint32(stride), Offset: at}
			at += stride * uint64(tier.Rows)
		}
	}
	end = at
	at = rows
	h.Rows = add(SectionRows, (end-rows)/8, 8)
	if n := s.Exemplars; n != 0 {
		if !exemplarCount(uint64(max(n, 0))) {
			return nil, fmt.Errorf("shmts: schema: exemplars: want 0, or a power of two from %d to %d, got %d", MinExemplars, MaxExemplars, n)
		}
		h.Exemplars = add(SectionExemplars, uint64(n), ExemplarSize)
	}
	total := roundUp(at, pageSize)
	if total > MaxTotalSize {
		return nil, fmt.Errorf("shmts: schema: want a segment of at most %d bytes, got %d", MaxTotalSize, total)
	}
	h.Superblock = Superblock{
		Magic: Magic, Major: Major, Minor: Minor, HeaderSize: uint32(header), TotalSize: total,
		SectionCount: uint32(sections), SectionOffset: SuperblockSize,
	}
	if s.Sampled {
		h.Flags |= FlagSampled
	}
	return h, nil
}

// Encode writes the header, checksum last, to the front of a segment that has no
// name yet. w holds at least HeaderSize bytes.
func (h *Header) Encode(w []uint64) {
	b := Bytes(w[:h.HeaderSize/8])
	clear(b)
	sections := uint64(h.SectionOffset)
	for i := range h.Sections {
		*View[Section](w, sections+uint64(i)*SectionSize) = h.Sections[i]
		switch sec := h.Sections[i]; sec.Type {
		case SectionTables:
			for j := range h.Tables {
				*View[Table](w, sec.Offset+uint64(j)*TableSize) = h.Tables[j]
			}
		case SectionSource:
			source, _ := AppendPairs(nil, h.Labels) // checked by NewHeader
			source, _ = AppendPairs(source, h.Attributes)
			copy(b[sec.Offset:], source)
		}
	}
	h.Checksum = 0
	*View[Superblock](w, 0) = h.Superblock
	h.Checksum = Sum(headerSeed, w[:h.HeaderSize/8])
	View[Superblock](w, 0).Checksum = h.Checksum
}

// InitControl writes the control block of a segment that has no name yet.
func (h *Header) InitControl(w []uint64) {
	c := View[Control](w, h.Control.Offset)
	*c = Control{State: StateLive, ClockOffset: h.BirthUnix - h.BirthMono}
	for i := range c.Table {
		c.Table[i].OpenRow = 1
	}
}

// HeaderSize looks at the first 256 bytes of a file, a private copy, and
// answers how long its header is. It refuses what is no segment of this major version.
func HeaderSize(w []uint64) (int, error) {
	sb := View[Superblock](w, 0)
	switch {
	case sb == nil:
		return 0, corrupt("superblock", -1, "256 bytes", len(w)*8)
	case sb.Magic != Magic:
		return 0, corrupt("superblock", -1, fmt.Sprintf("magic %#x", uint64(Magic)), sb.Magic)
	case sb.Major != Major:
		return 0, &VersionError{Want: fmt.Sprintf("major %d", Major), Got: fmt.Sprintf("%d.%d", sb.Major, sb.Minor)}
	case sb.Incompat != 0:
		return 0, &VersionError{Want: "no incompat features", Got: fmt.Sprintf("%#x", sb.Incompat)}
	case sb.HeaderSize%lineSize != 0 || sb.HeaderSize < SuperblockSize || sb.HeaderSize > MaxHeaderSize:
		return 0, corrupt("superblock", -1, fmt.Sprintf("header_size a multiple of 64 from 256 to %d", MaxHeaderSize), sb.HeaderSize)
	}
	return int(sb.HeaderSize), nil
}

// ParseHeader reads the header from a private copy, w, of its HeaderSize bytes,
// and checks every rule of FORMAT.md 4. fileSize is what fstat says.
// An error is a *CorruptError or a *VersionError, and means no header.
func ParseHeader(w []uint64, fileSize int64) (*Header, error) {
	size, err := HeaderSize(w)
	if err != nil {
		return nil, err
	}
	if size/8 > len(w) {
		return nil, corrupt("superblock", -1, fmt.Sprintf("header_size of at most %d", len(w)*8), size)
	}
	w = w[:size/8]
	h := &Header{Superblock: *View[Superblock](w, 0)}
	sum := NewSummer(headerSeed)
	for i := 0; i+4 <= len(w); i += 4 { // header_size is a multiple of 64
		w0, w1, w2, w3 := w[i], w[i+1], w[i+2], w[i+3]
		if i == 0x80/8 {
			w1 = 0 // the checksum itself, at 0x88
		}
		sum.Add(w0, w1, w2, w3)
	}
	if got := sum.Finish(nil); got != h.Checksum {
		return nil, corrupt("superblock", -1, fmt.Sprintf("checksum %#x", h.Checksum), got)
	}
	switch {
	case h.TotalSize%pageSize != 0 || h.TotalSize > MaxTotalSize || h.TotalSize < uint64(size):
		return nil, corrupt("superblock", -1, fmt.Sprintf("total_size a multiple of 4096, %d to %d", size, MaxTotalSize), h.TotalSize)
	case h.TotalSize != uint64(fileSize):
		return nil, corrupt("superblock", -1, fmt.Sprintf("total_size %d, the file's size", fileSize), fmt.Sprint(h.TotalSize))
	case h.SectionCount < 1 || h.SectionCount > MaxSections:
		return nil, corrupt("superblock", -1, fmt.Sprintf("section_count 1 to %d", MaxSections), h.SectionCount)
	case h.SectionOffset != SuperblockSize:
		return nil, corrupt("superblock", -1, "section_offset 256", h.SectionOffset)
	case SuperblockSize+int(h.SectionCount)*SectionSize > size:
		return nil, corrupt("section table", -1, fmt.Sprintf("%d sections inside the header of %d bytes", h.SectionCount, size), "past it")
	}
	if err := h.parseSections(w); err != nil {
		return nil, err
	}
	return h, nil
}

// ControlOffset finds the control block by a private copy of the first words of a file: for who wants no more
// of a segment than its heartbeat. It answers 0 if the section table in w has none, or the file is no segment.
func ControlOffset(w []uint64) uint64 {
	if _, err := HeaderSize(w); err != nil {
		return 0
	}
	for i := range min(int(View[Superblock](w, 0).SectionCount), MaxSections) {
		if sec := View[Section](w, SuperblockSize+uint64(i)*SectionSize); sec != nil && sec.Type == SectionControl {
			return sec.Offset
		}
	}
	return 0
}

// known tells the element size of a section type and whether the section lies inside the header.
func (t SectionType) known() (element uint32, inHeader, ok bool) {
	switch t {
	case SectionControl:
		return ControlSize, false, true
	case SectionTables:
		return TableSize, true, true
	case SectionSource:
		return 1, true, true
	case SectionSeries:
		return SeriesSize, false, true
	case SectionHeap:
		return 1, false, true
	case SectionLanes, SectionRows:
		return 8, false, true
	case SectionExemplars:
		return ExemplarSize, false, true
	}
	return 0, false, false
}

func (h *Header) parseSections(w []uint64) error {
	found := map[SectionType]Section{}
	for i := range int(h.SectionCount) {
		sec := View[Section](w, SuperblockSize+uint64(i)*SectionSize)
		h.Sections = append(h.Sections, *sec)
		element, inHeader, ok := sec.Type.known()
		if !ok {
			continue
		}
		limit, first := h.TotalSize, uint64(h.HeaderSize)
		if inHeader {
			limit, first = uint64(h.HeaderSize), SuperblockSize+uint64(h.SectionCount)*SectionSize
		}
		switch {
		case sec.Offset%lineSize != 0 || sec.Offset < first || sec.Offset > limit:
			return corrupt("section table", i, fmt.Sprintf("offset a multiple of 64, %#x to %#x", first, limit), sec.Offset)
		case sec.Length > limit-sec.Offset:
			return corrupt("section table", i, fmt.Sprintf("length at most %#x", limit-sec.Offset), sec.Length)
		case element < lineSize && sec.ElementSize != element:
			return corrupt("section table", i, fmt.Sprintf("element_size %d", element), sec.ElementSize)
		case sec.ElementSize < element || element >= lineSize && sec.ElementSize%lineSize != 0:
			return corrupt("section table", i, fmt.Sprintf("element_size %d or a larger multiple of 64", element), sec.ElementSize)
		case sec.Length != uint64(sec.Count)*uint64(sec.ElementSize):
			return corrupt("section table", i, fmt.Sprintf("length count x element_size = %#x", uint64(sec.Count)*uint64(sec.ElementSize)), sec.Length)
		}
		if _, twice := found[sec.Type]; twice {
			return corrupt("section table", i, fmt.Sprintf("section type %d once", sec.Type), "twice")
		}
		for _, other := range found {
			if max(sec.Offset, other.Offset) < min(sec.Offset+sec.Length, other.Offset+other.Length) {
				return corrupt("section table", i, fmt.Sprintf("no overlap with section type %d", other.Type), sec.Offset)
			}
		}
		found[sec.Type] = *sec
	}
	for t := SectionControl; t <= SectionRows; t++ {
		if _, ok := found[t]; !ok {
			return corrupt("section table", -1, fmt.Sprintf("a section of type %d", t), "none")
		}
	}
	h.Control, h.Series, h.Heap = found[SectionControl], found[SectionSeries], found[SectionHeap]
	h.Lanes, h.Rows, h.Exemplars = found[SectionLanes], found[SectionRows], found[SectionExemplars]
	if _, ok := found[SectionExemplars]; ok && !exemplarCount(uint64(h.Exemplars.Count)) {
		return corrupt("section table", -1, fmt.Sprintf("a power of two of exemplars, %d to %d", MinExemplars, MaxExemplars), h.Exemplars.Count)
	}
	if h.Control.Count != 1 {
		return corrupt("section table", -1, "one control block", h.Control.Count)
	}
	if h.Series.Count > MaxSeries {
		return corrupt("section table", -1, fmt.Sprintf("at most %d series", MaxSeries), h.Series.Count)
	}
	tables := found[SectionTables]
	if tables.Count < 1 || tables.Count > MaxTables {
		return corrupt("section table", -1, fmt.Sprintf("1 to %d tables", MaxTables), tables.Count)
	}
	for i := range int(tables.Count) {
		t := *View[Table](w, tables.Offset+uint64(i)*uint64(tables.ElementSize))
		if err := h.checkTable(i, &t); err != nil {
			return err
		}
		h.Tables = append(h.Tables, t)
	}
	source := found[SectionSource]
	b := bytes.Clone(Bytes(w)[source.Offset : source.Offset+source.Length])
	var err error
	if h.Labels, b, err = CutPairs(b); err == nil {
		h.Attributes, _, err = CutPairs(b)
	}
	if err != nil {
		return corrupt("source", -1, "two pair lists", err)
	}
	for _, name := range []string{"job", "instance"} {
		if Value(h.Labels, name) == "" {
			return corrupt("source", -1, "a label "+name, "none")
		}
	}
	return nil
}

// exemplarCount tells whether a ring of exemplars may have n slots.
func exemplarCount(n uint64) bool { return n >= MinExemplars && n <= MaxExemplars && n&(n-1) == 0 }

// Value of the pair of that name; "" if there is none, which means the same as an empty one.
func Value(pairs []Pair, name string) string {
	for _, p := range pairs {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// inside tells whether [off, off+n) lies inside the section; off is 64-aligned.
func (s *Section) inside(off, n uint64) bool {
	return off%lineSize == 0 && off >= s.Offset && off-s.Offset <= s.Length && n <= s.Length-(off-s.Offset)
}

func (h *Header) checkTable(i int, t *Table) error {
	bad := func(want string, got any) error { return corrupt("table", i, want, got) }
	switch {
	case t.Tiers > MaxTiers || t.Tiers == 0 && h.Flags&FlagSampled == 0:
		return bad(fmt.Sprintf("1 to %d tiers (0 when sampled)", MaxTiers), t.Tiers)
	case t.Lanes < 1 || t.Lanes > MaxLanes:
		return bad(fmt.Sprintf("1 to %d lanes", MaxLanes), t.Lanes)
	case t.RowCells < 1 || t.RowCells > MaxCells:
		return bad(fmt.Sprintf("1 to %d row_cells", MaxCells), t.RowCells)
	case t.LaneCells < 1 || t.LaneCells > MaxCells:
		return bad(fmt.Sprintf("1 to %d lane_cells", MaxCells), t.LaneCells)
	case t.SharedCells > MaxCells:
		return bad(fmt.Sprintf("at most %d shared_cells", MaxCells), t.SharedCells)
	case t.LaneStride%lineSize != 0 || t.LaneStride%pageSize == 0 || uint64(t.LaneStride) < 8*uint64(t.LaneCells):
		return bad(fmt.Sprintf("lane_stride a multiple of 64, not of 4096, at least %d", 8*t.LaneCells), t.LaneStride)
	case !h.Lanes.inside(t.LanesOffset, uint64(t.Lanes+1)*uint64(t.LaneStride)):
		return bad("lanes inside section lanes", t.LanesOffset)
	case !h.Lanes.inside(t.SharedOffset, 8*uint64(t.SharedCells)):
		return bad("shared lane inside section lanes", t.SharedOffset)
	}
	for j := range t.Tier[:t.Tiers] {
		tier := &t.Tier[j]
		bad := func(want string, got any) error { return corrupt(fmt.Sprintf("table %d, tier", i), j, want, got) }
		switch {
		case tier.Step < MinStep || tier.Step > MaxStep:
			return bad(fmt.Sprintf("step %d to %d ns", uint64(MinStep), uint64(MaxStep)), fmt.Sprint(tier.Step))
		case j > 0 && (tier.Step <= t.Tier[j-1].Step || tier.Step%t.Tier[j-1].Step != 0):
			return bad(fmt.Sprintf("step a multiple of the tier before (%d)", t.Tier[j-1].Step), fmt.Sprint(tier.Step))
		case tier.Rows < MinRows || tier.Rows > MaxRows:
			return bad(fmt.Sprintf("%d to %d rows", MinRows, MaxRows), tier.Rows)
		case tier.RowStride%lineSize != 0 || uint64(tier.RowStride) < RowHeaderSize+8*uint64(t.RowCells):
			return bad(fmt.Sprintf("row_stride a multiple of 64, at least %d", RowHeaderSize+8*t.RowCells), tier.RowStride)
		case !h.Rows.inside(tier.Offset, uint64(tier.Rows)*uint64(tier.RowStride)):
			return bad("ring inside section rows", tier.Offset)
		}
	}
	return nil
}

// Text is a NUL-padded field as a string.
func Text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
}
