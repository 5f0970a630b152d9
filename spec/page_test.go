package spec_test

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/layout"
)

// A structure is one table of FORMAT.md that describes bytes.
type structure struct {
	goName, cName string
	heading       string
	fields        []field
}

type field struct {
	offset, size int // size -1: as many as there are
	name, typ    string
}

var comment = regexp.MustCompile(`^<!-- struct (\w+) (\w+) -->$`)

// parseStructures reads every table that a struct comment announces.
func parseStructures(page string) (all []structure, err error) {
	return parseTables(page, comment)
}

// parseTables reads every table that a comment announces: it says the name in Go, and in C if there is one.
func parseTables(page string, comment *regexp.Regexp) (all []structure, err error) {
	heading := ""
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		if strings.HasPrefix(lines[i], "#") {
			heading = lines[i]
		}
		m := comment.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		s := structure{goName: m[1], cName: m[len(m)-1], heading: heading}
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "|"); i++ {
		}
		header := cells(lines[i])
		if len(header) < 4 || header[0] != "Offset" || header[1] != "Size" || header[2] != "Field" || header[3] != "Type" {
			return nil, fmt.Errorf("FORMAT.md:%d: %s: want columns Offset, Size, Field, Type first, got %q", i+1, s.goName, header)
		}
		for i += 2; i < len(lines) && strings.HasPrefix(lines[i], "|"); i++ {
			c := cells(lines[i])
			if len(c) != len(header) {
				return nil, fmt.Errorf("FORMAT.md:%d: %s: want %d columns, got %d", i+1, s.goName, len(header), len(c))
			}
			f := field{name: c[2], typ: c[3], size: -1}
			offset, err := strconv.ParseInt(c[0], 0, 32)
			if err != nil {
				return nil, fmt.Errorf("FORMAT.md:%d: %s: offset: %w", i+1, s.goName, err)
			}
			f.offset = int(offset)
			if c[1] != "" {
				if f.size, err = strconv.Atoi(c[1]); err != nil {
					return nil, fmt.Errorf("FORMAT.md:%d: %s: size: %w", i+1, s.goName, err)
				}
			}
			s.fields = append(s.fields, f)
		}
		all = append(all, s)
	}
	return all, nil
}

func cells(line string) []string {
	line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "|"), "|")
	c := strings.Split(line, "|")
	for i := range c {
		c[i] = strings.TrimSpace(c[i])
	}
	return c
}

// A goStructure is one in Go, with the constant of its size.
type goStructure struct {
	typ  reflect.Type
	size int
}

// structures of package layout by the name in the page's comments.
var structures = map[string]goStructure{
	"Superblock":   {reflect.TypeFor[layout.Superblock](), layout.SuperblockSize},
	"Section":      {reflect.TypeFor[layout.Section](), layout.SectionSize},
	"Table":        {reflect.TypeFor[layout.Table](), layout.TableSize},
	"Tier":         {reflect.TypeFor[layout.Tier](), layout.TierSize},
	"Control":      {reflect.TypeFor[layout.Control](), layout.ControlSize},
	"TableControl": {reflect.TypeFor[layout.TableControl](), layout.TableControlSize},
	"Series":       {reflect.TypeFor[layout.Series](), layout.SeriesSize},
	"Row":          {reflect.TypeFor[layout.RowHeader](), layout.RowHeaderSize},
	"Exemplar":     {reflect.TypeFor[layout.Exemplar](), layout.ExemplarSize},
}

var numbered = regexp.MustCompile(`^(tier|table|head)([0-9])$`)

// goField finds the field that a row of the page means: where it begins, how large it is, its type.
func goField(t reflect.Type, f field) (offset, size int, typ reflect.Type, ok bool) {
	name, element := f.name, -1
	if m := numbered.FindStringSubmatch(name); m != nil {
		name = m[1]
		element, _ = strconv.Atoi(m[2])
	}
	name = strings.ReplaceAll(name, "_", "")
	for i := range t.NumField() {
		g := t.Field(i)
		if !strings.EqualFold(g.Name, name) && !(name == "reserved" && strings.HasPrefix(g.Name, "Reserved") && int(g.Offset) == f.offset) {
			continue
		}
		offset, typ = int(g.Offset), g.Type
		if element >= 0 {
			if typ.Kind() != reflect.Array || element >= typ.Len() {
				return 0, 0, nil, false
			}
			typ = typ.Elem()
			offset += element * int(typ.Size())
		}
		return offset, int(typ.Size()), typ, true
	}
	return 0, 0, nil, false
}

// checkStructures answers where the page and package layout differ, one line each.
func checkStructures(all []structure) (wrong []string) { return checkTables(all, structures) }

// checkTables answers where the page and structures of Go differ.
func checkTables(all []structure, structures map[string]goStructure) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	seen := map[string]bool{}
	for _, s := range all {
		g, ok := structures[s.goName]
		if !ok {
			say("%s: no such structure in Go", s.goName)
			continue
		}
		if seen[s.goName] {
			say("%s: described twice", s.goName)
		}
		seen[s.goName] = true
		if int(g.typ.Size()) != g.size {
			say("%s: %d bytes in Go, and its constant says %d", s.goName, g.typ.Size(), g.size)
		}
		at, covered := 0, 0
		for _, f := range s.fields {
			where := s.goName + "." + f.name
			if f.offset != at {
				say("%s: at %#x in the page, where the field before ends at %#x", where, f.offset, at)
			}
			if f.size < 0 { // what follows the structure
				if f.offset != g.size {
					say("%s: at %#x in the page, behind a structure of %#x bytes", where, f.offset, g.size)
				}
				continue
			}
			at = f.offset + f.size
			if f.typ != "" && typeSize(f.typ) != f.size {
				say("%s: %d bytes in the page, of type %s", where, f.size, f.typ)
			}
			offset, size, typ, ok := goField(g.typ, f)
			switch {
			case !ok:
				say("%s: not in %s", where, g.typ)
				continue
			case offset != f.offset:
				say("%s: at %#x in the page, at %#x in Go", where, f.offset, offset)
			case size != f.size:
				say("%s: %d bytes in the page, %d in Go", where, f.size, size)
			case f.typ != "" && !sameSign(f.typ, typ) && f.name != "magic":
				say("%s: %s in the page, %s in Go", where, f.typ, typ)
			}
			covered += size
		}
		if at != g.size || covered != g.size {
			say("%s: the page describes %d bytes, %d of them in Go, of %d", s.goName, at, covered, g.size)
		}
		if m := regexp.MustCompile(`\(([0-9,]+) bytes`).FindStringSubmatch(s.heading); m != nil && m[1] != strconv.Itoa(g.size) {
			say("%s: %s bytes in the heading, %d in Go", s.goName, m[1], g.size)
		}
	}
	for name := range structures {
		if !seen[name] {
			say("%s: not described in the page", name)
		}
	}
	return wrong
}

func typeSize(typ string) int {
	switch typ {
	case "tier":
		return layout.TierSize
	case "table control":
		return layout.TableControlSize
	}
	n := 1
	if base, count, ok := strings.Cut(strings.TrimSuffix(typ, "]"), "["); ok {
		typ = base
		n, _ = strconv.Atoi(count)
	}
	bits, err := strconv.Atoi(typ[1:])
	if err != nil {
		return -1
	}
	return n * bits / 8
}

func sameSign(typ string, g reflect.Type) bool {
	switch g.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return typ[0] == 'i'
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return typ[0] == 'u'
	case reflect.Float64:
		return typ[0] == 'f'
	case reflect.Array:
		return strings.HasPrefix(typ, "u8[") && g.Elem().Kind() == reflect.Uint8
	default:
		return typ == "tier" || typ == "table control"
	}
}

func page(t *testing.T) string {
	b, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStructures(t *testing.T) {
	all, err := parseStructures(page(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range checkStructures(all) {
		t.Error(wrong)
	}
}

// The checker itself: each break of the page has to be seen.
func TestStructuresCheckerSees(t *testing.T) {
	good := page(t)
	for _, c := range []struct{ what, old, new, want string }{
		{"an offset", "| 0x0c | 4 | header_size", "| 0x0e | 4 | header_size", "Superblock.header_size: at 0xe"},
		{"a size", "| 0x18 | 8 | total_size | u64", "| 0x18 | 4 | total_size | u32", "Superblock.total_size: 4 bytes in the page, 8 in Go"},
		{"a type", "| 0x18 | 8 | total_size | u64", "| 0x18 | 8 | total_size | u32", "Superblock.total_size: 8 bytes in the page, of type u32"},
		{"a sign", "| 0x26 | 2 | bucket_min | i16", "| 0x26 | 2 | bucket_min | u16", "Series.bucket_min: u16 in the page, int16 in Go"},
		{"a name", "| 0x28 | 8 | base_row |", "| 0x28 | 8 | base |", "Row.base: not in layout.RowHeader"},
		{"two names", "| 0x10 | 8 | t_begin |", "| 0x10 | 8 | t |", "Row.t: at 0x10 in the page, at 0x18 in Go"},
		{"a row left out", "| 0x10 | 8 | ticks | u64 | ticks that published | |\n", "", "Control.series_used: at 0x18 in the page, where the field before ends at 0x10"},
		{"the last row left out", "| 0x240 | 64 | table7 | table control | | |\n", "", "Control: the page describes 576 bytes"},
		{"a float", "| 0x18 | 8 | value | f64 |", "| 0x18 | 8 | value | u64 |", "Exemplar.value: u64 in the page, float64 in Go"},
		{"a heading", "### 8.1 Row header (64 bytes", "### 8.1 Row header (48 bytes", "Row: 48 bytes in the heading, 64 in Go"},
		{"a tier too many", "| 0xa0 | 32 | tier3 |", "| 0xa0 | 32 | tier4 |", "Table.tier4: not in layout.Table"},
		{"a structure", "<!-- struct Tier shmts_tier -->", "", "Tier: not described"},
		{"an unknown structure", "<!-- struct Tier shmts_tier -->", "<!-- struct Tyre shmts_tier -->", "Tyre: no such structure"},
	} {
		if strings.Count(good, c.old) != 1 {
			t.Errorf("%s: want %q in the page once, got it %d times", c.what, c.old, strings.Count(good, c.old))
			continue
		}
		all, err := parseStructures(strings.Replace(good, c.old, c.new, 1))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if wrong := strings.Join(checkStructures(all), "\n"); !strings.Contains(wrong, c.want) {
			t.Errorf("%s: want the checker to say %q, got %q", c.what, c.want, wrong)
		}
	}
	if _, err := parseStructures(strings.Replace(good, "| Offset | Size |", "| Offset | Bytes |", 1)); err == nil {
		t.Error("a column: want an error, got none")
	}
}

// section is the page's text from a heading to the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t), "\n"+heading)
	if !ok {
		t.Fatalf("FORMAT.md has no heading %q", heading)
	}
	if i := strings.Index(rest, "\n#"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

// rows are the cells of the tables in a text whose header row begins with first.
func rows(t *testing.T, text, first string) (all [][]string) {
	t.Helper()
	in := false
	for line := range strings.Lines(text) {
		switch {
		case !strings.HasPrefix(line, "|"):
			in = false
		case cells(line)[0] == first:
			in = true
		case in && !strings.HasPrefix(line, "|-"):
			all = append(all, cells(line))
		}
	}
	if len(all) == 0 {
		t.Fatalf("want a table that begins with column %q, got none", first)
	}
	return all
}

func number(t *testing.T, s string) int {
	t.Helper()
	s, _, _ = strings.Cut(strings.ReplaceAll(s, ",", ""), " ")
	if base, power, ok := strings.Cut(s, "^"); ok {
		b, err1 := strconv.Atoi(base)
		p, err2 := strconv.Atoi(power)
		if err1 != nil || err2 != nil || b != 2 {
			t.Fatalf("want a power of 2, got %q", s)
		}
		return 1 << p
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMaxima(t *testing.T) {
	want := map[string]int{
		"total size": layout.MaxTotalSize, "header": layout.MaxHeaderSize, "sections": layout.MaxSections, "tables": layout.MaxTables,
		"tiers of a table": layout.MaxTiers, "rows of a tier": layout.MaxRows, "cells of a row, or lane": layout.MaxCells,
		"private lanes": layout.MaxLanes, "series of a segment": layout.MaxSeries, "labels of a series": layout.MaxPairs,
		"label name": layout.MaxLabelName, "label value": layout.MaxLabelValue, "series name": layout.MaxName, "unit": layout.MaxUnit,
		"help": layout.MaxHelp, "buckets of a histogram": layout.MaxBuckets, "segments of an incarnation": layout.MaxGroup,
		"slots of exemplars": layout.MaxExemplars,
	}
	for _, row := range rows(t, section(t, "## 11 Maxima"), "what") {
		for _, c := range [][]string{row[:2], row[3:]} {
			if c[0] == "" {
				continue
			}
			most, ok := want[c[0]]
			if !ok {
				t.Errorf("%s: in the page (or twice), not in this test", c[0])
			} else if got := number(t, c[1]); got != most {
				t.Errorf("%s: %d in the page, %d in Go", c[0], got, most)
			}
			delete(want, c[0])
		}
	}
	for what := range want {
		t.Errorf("%s: not in the page", what)
	}
}

func TestSectionTypes(t *testing.T) {
	names := map[string]layout.SectionType{"control": layout.SectionControl, "tables": layout.SectionTables, "source": layout.SectionSource,
		"series": layout.SectionSeries, "heap": layout.SectionHeap, "lanes": layout.SectionLanes, "rows": layout.SectionRows,
		"exemplars": layout.SectionExemplars, "events": layout.SectionEvents}
	h, err := layout.NewHeader(layout.Schema{Series: 3, HeapBytes: 5, Exemplars: layout.MinExemplars, Tables: []layout.TableSchema{{Lanes: 1, RowCells: 1, LaneCells: 1,
		Tiers: []layout.TierSchema{{Step: layout.MinStep, Rows: 2}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows(t, section(t, "### 4.2 Section table"), "type") {
		typ, name := layout.SectionType(number(t, row[0])), row[1]
		if names[name] != typ {
			t.Errorf("%s: type %d in the page, %d in Go", name, typ, names[name])
		}
		delete(names, name)
		if row[2] == "" {
			continue
		}
		laid := false
		for _, s := range h.Sections {
			if s.Type != typ {
				continue
			}
			laid = true
			if int(s.ElementSize) != number(t, row[2]) {
				t.Errorf("%s: element_size %s in the page, %d in Go", name, row[2], s.ElementSize)
			}
			if in := s.Offset < uint64(h.HeaderSize); in != (row[4] == "header") {
				t.Errorf("%s: %s in the page; inside the header: %v in Go", name, row[4], in)
			}
		}
		if !laid {
			t.Errorf("%s: in the page, not laid out in Go", name)
		}
	}
	for name := range names {
		t.Errorf("%s: not in the page", name)
	}
}

func TestKinds(t *testing.T) {
	numbers := map[string]layout.Number{"u64": layout.U64, "i64": layout.I64, "f64": layout.F64}
	count := func(list string, buckets int) int {
		if list == "" {
			return 0
		}
		n := 0
		for _, cell := range strings.Split(list, ", ") {
			if cell == "bucket[buckets]" {
				n += buckets
			} else {
				n++
			}
		}
		return n
	}
	seen := 0
	for _, row := range rows(t, section(t, "### 6.2 Kinds"), "kind") {
		k := layout.Kind(number(t, row[0]))
		if k.String() != row[1] {
			t.Errorf("kind %d: %s in the page, %v in Go", k, row[1], k)
		}
		var want []layout.Number
		for _, n := range strings.Split(row[2], ", ") {
			want = append(want, numbers[n])
		}
		for n := layout.Number(0); n < 8; n++ {
			in := false
			for _, w := range want {
				in = in || w == n
			}
			if in != k.Valid(n) {
				t.Errorf("%v of number %v: %v in the page, %v in Go", k, n, in, k.Valid(n))
			}
		}
		const buckets = 11
		if got, want := k.Cells(buckets), (layout.Cells{Lane: count(row[3], buckets), Shared: count(row[4], buckets), Row: count(row[5], buckets)}); got != want {
			t.Errorf("%v: cells %+v in the page, %+v in Go", k, want, got)
		}
		seen++
	}
	if last := layout.Histogram; seen != int(last) {
		t.Errorf("want %d kinds, got %d", last, seen)
	}
	lane := strings.Split(rows(t, section(t, "### 6.2 Kinds"), "kind")[3][3], ", ")
	for i, want := range map[int]string{layout.StatCount: "count", layout.StatSum: "sum", layout.StatWindow + layout.WindowTag: "tag0",
		layout.StatWindow + layout.WindowMin: "min0", layout.StatWindow + layout.WindowMax: "max0", layout.StatWindow + layout.StatWindowCells: "tag1"} {
		if lane[i] != want {
			t.Errorf("a stat's lane cell %d: %s in the page, %s in Go", i, lane[i], want)
		}
	}
	for i, want := range []string{"count", "sum", "last", "min", "max"} {
		if got := []int{layout.StatCount, layout.StatSum, layout.StatLast, layout.StatMin, layout.StatMax}[i]; got != i {
			t.Errorf("a stat's row cell %s: %d in Go, want %d", want, got, i)
		}
	}
}

// Numbers that the page says in its sentences.
func TestConstants(t *testing.T) {
	for _, c := range []struct {
		section, format string
		args            []any
	}{
		{"### 6.2 Kinds", "f64 `%#x`", []any{layout.UnsetF64}},
		{"### 7.1 Windows", "`%#x + (r mod 2^51)`", []any{layout.EmptyWindow(0)}},
		{"### 4.1 Superblock", "seed %#x", []any{0x53}},
		{"### 4.1 Superblock", "%d to %s; at most total_size", []any{layout.SuperblockSize, "65,536"}},
		{"## 9 Histogram", "Scale 0 to %d", []any{layout.MaxScale}},
		{"#### 4.3.1 Tier", "%d to 65,536", []any{layout.MinRows}},
		{"### 4.2 Section table", "a power of two, %d to 4,096", []any{layout.MinExemplars}},
		{"### 8.4 Exemplar", "seed %#x", []any{0x10000}},
		{"#### 4.3.1 Tier", "10^8 (100 ms) to 3.6 x 10^12 (1 h)", nil},
	} {
		if want := fmt.Sprintf(c.format, c.args...); !strings.Contains(section(t, c.section), want) {
			t.Errorf("%s: want %q, got no such words", c.section, want)
		}
	}
	if layout.MinStep != 100_000_000 || layout.MaxStep != 3_600_000_000_000 {
		t.Errorf("steps: %d to %d in Go", layout.MinStep, layout.MaxStep)
	}
	if layout.UnsetI64 != 1<<63 {
		t.Errorf("unset i64: %#x in Go", layout.UnsetI64)
	}
	if layout.EmptyWindow(1<<51+5) != layout.EmptyWindow(5) {
		t.Error("an empty window takes its row modulo 2^51")
	}
}

func TestWorkedSums(t *testing.T) {
	m := regexp.MustCompile("seed ([0-9]+) over (no words|the words ([0-9, ]+)) gives\\s+`0x([0-9a-f]{16})`").FindAllStringSubmatch(section(t, "### 8.3 Sum"), -1)
	if len(m) != 2 {
		t.Fatalf("want two worked sums, got %d", len(m))
	}
	for _, e := range m {
		seed, _ := strconv.ParseUint(e[1], 10, 64)
		var words []uint64
		if e[3] != "" {
			for _, w := range strings.Split(e[3], ", ") {
				n, err := strconv.ParseUint(w, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				words = append(words, n)
			}
		}
		if got := fmt.Sprintf("%016x", layout.Sum(seed, words)); got != e[4] {
			t.Errorf("seed %d over %d: %s in the page, %s in Go", seed, words, e[4], got)
		}
	}
}

func TestBounds(t *testing.T) {
	hex := regexp.MustCompile(`\b[0-9a-f]{13}\b`).FindAllString(section(t, "## 9 Histogram"), -1)
	if len(hex) != 1<<layout.MaxScale {
		t.Fatalf("want %d bounds, got %d", 1<<layout.MaxScale, len(hex))
	}
	for k, h := range hex {
		bound, err := strconv.ParseUint(h, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		v := math.Float64frombits(1023<<52 + bound + 1) // the least value of bucket k: m is v - 1
		if got := layout.BucketIndex(layout.MaxScale, v); got != k {
			t.Errorf("bound %d (%s): the value there is in bucket %d in Go", k, h, got)
		}
		if got := layout.BucketIndex(layout.MaxScale, math.Float64frombits(1023<<52+bound)); got != k-1 {
			t.Errorf("bound %d (%s): the value before is in bucket %d in Go", k, h, got)
		}
	}
}

// Every link of the page to itself leads somewhere, and every "section 1.2" or "(1.2)" that is a reference exists.
func TestReferences(t *testing.T) {
	p := page(t)
	anchors, sections := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (([0-9.]+) .*)$`).FindAllStringSubmatch(p, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors["#"+strings.ReplaceAll(anchor, " ", "-")] = true
		sections[m[2]] = true
	}
	for _, m := range regexp.MustCompile(`\]\((#[^)]*)\)`).FindAllStringSubmatch(p, -1) {
		if !anchors[m[1]] {
			t.Errorf("link %s leads nowhere", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?:section |\()([0-9]+(?:\.[0-9]+)+|[0-9]+)\)?`).FindAllStringSubmatch(p, -1) {
		if strings.Contains(m[1], ".") || strings.HasPrefix(m[0], "section") {
			if !sections[m[1]] {
				t.Errorf("reference %q: no section %s", m[0], m[1])
			}
		}
	}
}
