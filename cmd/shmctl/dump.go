package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/shmts/shmts/layout"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

var dumpSections = []string{"superblock", "sections", "tables", "source", "control", "series", "lanes", "rows", "exemplars"}

func dumpVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "dump",
			Usage:     "print a segment's bytes, field by field",
			ArgsUsage: "SEGMENT",
			Description: "Prints offset, size, field and value in the order of FORMAT.md, from a private copy of each structure. Free\n" +
				"descriptors and slots without a row or an exemplar are left out. A file that is no good is printed as far as it goes; what is\n" +
				"wrong with it goes to standard error.",
			Flags: []cli.Flag{
				storeFlag(), jsonFlag(),
				&cli.StringSliceFlag{Name: "section", Usage: "only this `SECTION`: " + strings.Join(dumpSections, ", ") + "; may be repeated"},
				&cli.BoolFlag{Name: "cells", Usage: "the cells of lanes and rows too"},
			},
			Action: dumpAction,
		},
		json: field{}, lines: true,
		examples: []string{
			"shmctl dump 7f3a --section superblock --section control",
			"shmctl dump --cells ./core.shmts | grep requests_total # every cell of a series",
		},
		complete: func(c *completion) []candidate {
			if c.flag == "section" {
				return words(dumpSections...)
			}
			return c.segments()
		},
	}
}

func dumpAction(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want one SEGMENT, got %d arguments", c.NArg())
	}
	for _, s := range c.StringSlice("section") {
		if !slices.Contains(dumpSections, s) {
			return usagef(c, "section: want one of %s, got %q", strings.Join(dumpSections, ", "), s)
		}
	}
	path, err := findPath(c, c.Args().First())
	if err != nil {
		return err
	}
	file, size, err := openFile(path)
	if err != nil {
		return err
	}
	defer file.Close()
	d := &dumper{file: file, size: size, cells: c.Bool("cells"), only: c.StringSlice("section")}
	d.emit = func(f field) error {
		if c.Bool("json") {
			return printJSONLine(c, f)
		}
		_, err := fmt.Fprintln(c.App.Writer, f.text())
		return err
	}
	if err := d.dump(); err != nil {
		return named(err, path)
	}
	return nil
}

func (f *field) text() string {
	value := fmt.Sprint(f.Value)
	if s, ok := f.Value.(string); ok && !strings.HasPrefix(s, "0x") {
		value = fmt.Sprintf("%q", s)
	}
	if f.Note != "" {
		value += "  (" + f.Note + ")"
	}
	return oneLine(fmt.Sprintf("%#010x %8d  %-40s %s", f.Offset, f.Size, f.Field, value))
}

// openFile opens a file as data: without waiting for a FIFO's other end, and only a regular one.
func openFile(path string) (*os.File, int64, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("shmts: %w", err)
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: want a regular file, got %v", path, st.Mode().Type())
	}
	if err != nil {
		file.Close()
		return nil, 0, fmt.Errorf("shmts: %w", err)
	}
	return file, st.Size(), nil
}

// named gives a layout error the path it is about.
func named(err error, path string) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			named(e, path)
		}
		return err
	}
	var corrupt *layout.CorruptError
	if errors.As(err, &corrupt) {
		corrupt.Segment = path
	}
	var other *layout.VersionError
	if errors.As(err, &other) {
		other.Segment = path
	}
	return err
}

// A dumper walks a file with pread: nothing that its writer does can hurt.
type dumper struct {
	file  io.ReaderAt
	size  int64
	cells bool
	only  []string
	emit  func(field) error
	err   error // the first of emit's

	h     *layout.Header
	heads []layout.SeriesInfo // live and retired descriptors that are sound
}

// words copies n bytes at off, both multiples of 8; what lies past the end is not there.
func (d *dumper) words(off, n uint64) ([]uint64, error) {
	if off > uint64(d.size) || n > uint64(d.size)-off {
		return nil, fmt.Errorf("shmts: want %d bytes at %#x, got a file of %d", n, off, d.size)
	}
	w := make([]uint64, n/8)
	if len(w) == 0 {
		return w, nil
	}
	if _, err := d.file.ReadAt(layout.Bytes(w), int64(off)); err != nil {
		return nil, fmt.Errorf("shmts: %d bytes at %#x: %w", n, off, err)
	}
	return w, nil
}

func (d *dumper) wants(section string) bool {
	return d.err == nil && (len(d.only) == 0 || slices.Contains(d.only, section))
}

func (d *dumper) put(section string, fields ...field) {
	for _, f := range fields {
		if d.wants(section) {
			d.err = d.emit(f)
		}
	}
}

// dump prints in FORMAT.md's order. What it answers is the first thing that is wrong.
func (d *dumper) dump() error {
	w, err := d.words(0, layout.SuperblockSize)
	if err != nil {
		return err
	}
	d.put("superblock", structFields("superblock", 0, layout.View[layout.Superblock](w, 0))...)
	size, err := layout.HeaderSize(w)
	if err != nil {
		return err
	}
	if w, err = d.words(0, uint64(size)); err != nil {
		return err
	}
	if d.h, err = layout.ParseHeader(w, d.size); err != nil {
		return err
	}
	for i := range d.h.Sections {
		d.put("sections", structFields(fmt.Sprintf("section%d", i), layout.SuperblockSize+uint64(i)*layout.SectionSize, &d.h.Sections[i])...)
	}
	for _, s := range d.h.Sections {
		switch s.Type {
		case layout.SectionTables:
			for i := range d.h.Tables {
				fields := structFields(fmt.Sprintf("table%d", i), s.Offset+uint64(i)*uint64(s.ElementSize), &d.h.Tables[i])
				d.put("tables", slices.DeleteFunc(fields, func(f field) bool { return d.unused(f.Field) })...)
			}
		case layout.SectionSource:
			at := d.pairs("source", "source.label", s.Offset, d.h.Labels)
			d.pairs("source", "source.attribute", at, d.h.Attributes)
		}
	}
	if w, err = d.words(d.h.Control.Offset, layout.ControlSize); err != nil {
		return err
	}
	control := layout.View[layout.Control](w, 0)
	fields := structFields("control", d.h.Control.Offset, control)
	d.put("control", slices.DeleteFunc(fields, func(f field) bool { return d.unused(f.Field) })...)
	wrong := d.series(control) // the rest is good without them
	if err := d.lanes(control); err != nil {
		return errors.Join(wrong, err)
	}
	if err := d.rows(); err != nil {
		return errors.Join(wrong, err)
	}
	if err := d.exemplars(); err != nil {
		return errors.Join(wrong, err)
	}
	return errors.Join(wrong, d.err)
}

// unused tells what no table or tier stands behind: table1.tier3.step, control.table7.head0.
func (d *dumper) unused(name string) bool {
	var table, tier int
	if _, err := fmt.Sscanf(name, "control.table%d.", &table); err == nil {
		if table >= len(d.h.Tables) {
			return true
		}
		_, err := fmt.Sscanf(name, "control.table%d.head%d", &table, &tier)
		return err == nil && tier >= int(d.h.Tables[table].Tiers)
	}
	_, err := fmt.Sscanf(name, "table%d.tier%d.", &table, &tier)
	return err == nil && tier >= int(d.h.Tables[table].Tiers)
}

// pairs prints a pair list that lies at off, and answers where it ends. FORMAT.md 6.4.
func (d *dumper) pairs(section, prefix string, off uint64, pairs []layout.Pair) uint64 {
	d.put(section, field{Offset: off, Size: 2, Field: prefix + "s", Value: len(pairs)})
	off += 2
	for _, p := range pairs {
		n := 4 + uint64(len(p.Name)) + uint64(len(p.Value))
		d.put(section, field{Offset: off, Size: n, Field: prefix + "." + p.Name, Value: p.Value})
		off += n
	}
	return off
}

func (d *dumper) series(control *layout.Control) error {
	s := d.h.Series
	used := min(control.SeriesUsed, s.Count)
	var wrong error
	for i := range int(used) {
		at := s.Offset + uint64(i)*uint64(s.ElementSize)
		w, err := d.words(at, layout.SeriesSize)
		if err != nil {
			return err
		}
		desc := layout.View[layout.Series](w, 0)
		if desc.Life() == layout.SeriesFree {
			continue
		}
		prefix := fmt.Sprintf("series%d", i)
		d.put("series", structFields(prefix, at, desc)...)
		if desc.Life() == layout.SeriesFilling {
			continue
		}
		info, err := d.strings(desc, i)
		if err != nil {
			wrong = errors.Join(wrong, err)
			continue
		}
		off := d.h.Heap.Offset + uint64(desc.Strings)
		for _, t := range []struct{ name, text string }{{"name", info.Name}, {"unit", info.Unit}, {"help", info.Help}} {
			d.put("series", field{Offset: off, Size: uint64(len(t.text)), Field: prefix + "." + t.name, Value: t.text})
			off += uint64(len(t.text))
		}
		d.pairs("series", prefix+".label", off, info.Labels)
		d.heads = append(d.heads, info)
	}
	return wrong
}

func (d *dumper) strings(desc *layout.Series, index int) (layout.SeriesInfo, error) {
	if err := desc.Check(d.h, index); err != nil {
		return layout.SeriesInfo{}, err
	}
	b := make([]byte, desc.StringsLength())
	if _, err := d.file.ReadAt(b, int64(d.h.Heap.Offset)+int64(desc.Strings)); err != nil {
		return layout.SeriesInfo{}, fmt.Errorf("shmts: series %d: strings: %w", index, err)
	}
	return desc.CutStrings(b, index)
}

// A cell's owner: what a note says of it, and how its word is to be read.
type cell struct {
	note   string
	number layout.Number
}

// owners answers what the cells of a table are, in its rows or in its lanes.
func (d *dumper) owners(table int, in func(*layout.SeriesInfo) (first uint32, parts []string)) map[int]cell {
	m := map[int]cell{}
	for i := range d.heads {
		s := &d.heads[i]
		if int(s.Table) != table {
			continue
		}
		first, parts := in(s)
		for j, part := range parts {
			number := s.Number
			if part == "count" || strings.HasPrefix(part, "tag") || s.Kind == layout.Histogram && part != "sum" {
				number = layout.U64
			}
			name := seriesText(s.Name, s.Labels)
			if part != "value" {
				name += " " + part
			}
			m[int(first)+j] = cell{name, number}
		}
	}
	return m
}

// rowParts and laneParts are FORMAT.md 6.2's table of kinds.
func rowParts(s *layout.SeriesInfo) (uint32, []string) {
	switch s.Kind {
	case layout.Stat:
		return s.RowCell, []string{"count", "sum", "last", "min", "max"}
	case layout.Histogram:
		return s.RowCell, histogramParts(s)
	}
	return s.RowCell, []string{"value"}
}

func laneParts(s *layout.SeriesInfo) (uint32, []string) {
	switch s.Kind {
	case layout.Gauge:
		return 0, nil
	case layout.Stat:
		return s.LaneCell, []string{"count", "sum", "tag0", "min0", "max0", "tag1", "min1", "max1"}
	case layout.Histogram:
		return s.LaneCell, histogramParts(s)
	}
	return s.LaneCell, []string{"value"}
}

func sharedParts(s *layout.SeriesInfo) (uint32, []string) {
	switch s.Kind {
	case layout.Gauge:
		return s.SharedCell, []string{"value"}
	case layout.Stat:
		return s.SharedCell, []string{"last"}
	}
	return 0, nil
}

func histogramParts(s *layout.SeriesInfo) []string {
	parts := []string{"sum", "zero"}
	for i := range int(s.Buckets) {
		parts = append(parts, fmt.Sprintf("bucket[%d]", int(s.BucketMin)+i))
	}
	return append(parts, "above")
}

// cellFields prints words as cells, those that somebody owns.
func (d *dumper) cellFields(section, prefix string, off uint64, words []uint64, owners map[int]cell) {
	for i, w := range words {
		o, ok := owners[i]
		if !ok {
			continue
		}
		d.put(section, field{Offset: off + 8*uint64(i), Size: 8, Field: fmt.Sprintf("%s.cell%d", prefix, i), Value: cellValue(w, o.number), Note: o.note})
	}
}

// cellValue reads a word as what it is. JSON has no word for NaN and infinity.
func cellValue(w uint64, n layout.Number) any {
	switch n {
	case layout.U64:
		return w
	case layout.I64:
		if w == layout.UnsetI64 {
			return "unset"
		}
		return int64(w)
	}
	f := math.Float64frombits(w)
	switch {
	case w == layout.UnsetF64:
		return "unset"
	case math.IsNaN(f) || math.IsInf(f, 0):
		return fmt.Sprintf("%#x", w)
	}
	return f
}

func (d *dumper) lanes(control *layout.Control) error {
	if !d.wants("lanes") {
		return d.err
	}
	for i := range d.h.Tables {
		t := &d.h.Tables[i]
		owners := d.owners(i, laneParts)
		lane := func(name string, off, cells uint64, used uint32, owners map[int]cell) error {
			prefix := fmt.Sprintf("table%d.%s", i, name)
			d.put("lanes", field{Offset: off, Size: 8 * cells, Field: prefix, Value: min(uint64(used), cells), Note: "cells used"})
			if !d.cells {
				return nil
			}
			w, err := d.words(off, 8*cells)
			if err == nil {
				d.cellFields("lanes", prefix, off, w, owners)
			}
			return err
		}
		for k := range uint64(t.Lanes) + 1 {
			name := fmt.Sprintf("lane%d", k)
			if k == uint64(t.Lanes) {
				name = "overflow"
			}
			if err := lane(name, t.LanesOffset+k*uint64(t.LaneStride), uint64(t.LaneCells), control.Table[i].LaneCellsUsed, owners); err != nil {
				return err
			}
		}
		if err := lane("shared", t.SharedOffset, uint64(t.SharedCells), control.Table[i].SharedCellsUsed, d.owners(i, sharedParts)); err != nil {
			return err
		}
	}
	return d.err
}

func (d *dumper) rows() error {
	if !d.wants("rows") {
		return d.err
	}
	for i := range d.h.Tables {
		t := &d.h.Tables[i]
		owners := d.owners(i, rowParts)
		for j := range t.Tier[:t.Tiers] {
			tier := &t.Tier[j]
			id := d.h.RowIdentity(i, j)
			for slot := range uint64(tier.Rows) {
				at := tier.Offset + slot*uint64(tier.RowStride)
				w, err := d.words(at, layout.RowHeaderSize+8*uint64(t.RowCells))
				if err != nil {
					return err
				}
				head := *layout.View[layout.RowHeader](w, 0)
				if head.Seq == 0 && head.RowNo == 0 {
					continue
				}
				verdict := layout.RowOther // a row number that does not belong into this slot
				if tier.Slot(head.RowNo) == slot {
					_, _, verdict = layout.DecodeRow(w, id, head.RowNo)
				}
				prefix := fmt.Sprintf("table%d.tier%d.slot%d", i, j, slot)
				fields := structFields(prefix, at, &head)
				fields[len(fields)-1].Note = verdict.String()
				d.put("rows", fields...)
				if d.cells {
					n := min(uint64(head.Cells), uint64(t.RowCells))
					d.cellFields("rows", prefix, at+layout.RowHeaderSize, w[layout.RowWords:layout.RowWords+n], owners)
				}
				if d.err != nil {
					return d.err
				}
			}
		}
	}
	return d.err
}

func (d *dumper) exemplars() error {
	if !d.wants("exemplars") {
		return d.err
	}
	names := map[uint32]string{}
	for i := range d.heads {
		names[uint32(d.heads[i].Index)] = seriesText(d.heads[i].Name, d.heads[i].Labels)
	}
	for slot := range uint64(d.h.Exemplars.Count) {
		at := d.h.Exemplars.Offset + slot*uint64(d.h.Exemplars.ElementSize)
		w, err := d.words(at, layout.ExemplarSize)
		if err != nil {
			return err
		}
		x := *layout.View[layout.Exemplar](w, 0)
		if x.Seq == 0 {
			continue
		}
		verdict := layout.ExemplarBad // a number that does not belong into this slot
		if n := x.Number(); n > 0 && d.h.ExemplarSlot(n) == slot {
			_, verdict = layout.DecodeExemplar(w, d.h.ExemplarIdentity(), n)
		}
		fields := structFields(fmt.Sprintf("exemplars.slot%d", slot), at, &x)
		for i := range fields {
			switch name := fields[i].Field; {
			case strings.HasSuffix(name, ".seq") && verdict != layout.ExemplarAwaited:
				fields[i].Note = fmt.Sprintf("number %d, %v", x.Number(), verdict)
			case strings.HasSuffix(name, ".seq"):
				fields[i].Note = fmt.Sprintf("number %d, its writer is inside, or died inside", x.Number())
			case strings.HasSuffix(name, ".series"):
				fields[i].Note = names[x.Series]
			}
		}
		if d.put("exemplars", fields...); d.err != nil {
			return d.err
		}
	}
	return d.err
}
