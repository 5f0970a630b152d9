package vectors

import (
	"github.com/shmts/shmts/layout"
)

const minStep = layout.MinStep

func brokenTables() []Vector {
	const most = layout.MaxCells
	t32 := func(id, comment, rule string, at int, v uint32) change {
		return change{id, "4.3", comment, Refuse, "table 0: want " + rule, func(_ *segment, b []byte) { le.PutUint32(table(b)[at:], v) }}
	}
	t64 := func(id, comment, rule string, at int, v uint64) change {
		return change{id, "4.3", comment, Refuse, "table 0: want " + rule, func(_ *segment, b []byte) { le.PutUint64(table(b)[at:], v) }}
	}
	// moved adds to an offset instead, which stays plausible.
	moved := func(id, comment, rule string, at int, by uint64) change {
		return change{id, "4.3", comment, Refuse, "table 0: want " + rule, func(_ *segment, b []byte) {
			le.PutUint64(table(b)[at:], le.Uint64(table(b)[at:])+by)
		}}
	}
	const tier0, tier1 = 0x40, 0x60
	tier := func(id, comment, rule string, at int, v uint64) change {
		where := "table 0, tier 0: want "
		if at >= tier1 {
			where = "table 0, tier 1: want "
		}
		return change{id, "4.3.1", comment, Refuse, where + rule, func(_ *segment, b []byte) {
			if at&0x1f == 0 || at&0x1f == 0x10 {
				le.PutUint64(table(b)[at:], v)
			} else {
				le.PutUint32(table(b)[at:], uint32(v))
			}
		}}
	}
	tierMoved := func(id, comment string, by uint64) change {
		return change{id, "4.3.1", comment, Refuse, "table 0, tier 1: want ring inside section rows", func(_ *segment, b []byte) {
			le.PutUint64(table(b)[tier1+0x10:], le.Uint64(table(b)[tier1+0x10:])+by)
		}}
	}
	return changes([]change{
		t32("table-tiers-0", "no tiers, and not sampled", "1 to 4 tiers", 0x10, 0),
		t32("table-tiers-5", "five tiers", "1 to 4 tiers", 0x10, 5),
		t32("table-lanes-0", "no lane", "1 to 64 lanes", 0x14, 0),
		t32("table-lanes-65", "too many lanes", "1 to 64 lanes", 0x14, 65),
		t32("table-row-cells-0", "rows of no cells", "1 to 1048576 row_cells", 0x18, 0),
		t32("table-row-cells-large", "too many row_cells", "1 to 1048576 row_cells", 0x18, most+1),
		t32("table-lane-cells-0", "lanes of no cells", "1 to 1048576 lane_cells", 0x1c, 0),
		t32("table-lane-cells-large", "too many lane_cells", "1 to 1048576 lane_cells", 0x1c, most+1),
		t32("table-shared-cells-large", "too many shared_cells", "at most 1048576 shared_cells", 0x20, most+1),
		t32("table-lane-stride-odd", "lane_stride no multiple of 64", "lane_stride", 0x24, 168),
		t32("table-lane-stride-page", "lane_stride a multiple of 4,096", "lane_stride", 0x24, 4096),
		t32("table-lane-stride-small", "lane_stride less than the cells", "lane_stride", 0x24, 64),
		t32("table-lane-stride-large", "the overflow lane ends behind the section", "lanes inside section lanes", 0x24, 4096+64),
		moved("table-lanes-misaligned", "lanes_offset no multiple of 64", "lanes inside section lanes", 0x28, 8),
		moved("table-lanes-before", "lanes_offset before the section", "lanes inside section lanes", 0x28, 1<<64-64),
		t64("table-lanes-far", "lanes_offset past everything", "lanes inside section lanes", 0x28, 1<<64-64),
		moved("table-shared-misaligned", "shared_offset no multiple of 64", "shared lane inside section lanes", 0x30, 8),
		moved("table-shared-past", "the shared lane ends behind the section", "shared lane inside section lanes", 0x30, 64),
		t64("table-shared-far", "shared_offset past everything", "shared lane inside section lanes", 0x30, 1<<64-64),
		tier("tier-step-short", "a step of less than 100 ms", "step", tier0, 99_999_999),
		tier("tier-step-long", "a step of more than 1 h", "step", tier1, 3_600_000_000_001),
		tier("tier-step-multiple", "a step that is no multiple of the one before", "step a multiple", tier1, 2_500_000_000),
		tier("tier-step-same", "a step like the one before", "step a multiple", tier1, 1_000_000_000),
		tier("tier-rows-1", "a ring of one row", "2 to 65536 rows", tier1+8, 1),
		tier("tier-rows-large", "a ring of too many rows", "2 to 65536 rows", tier0+8, 65537),
		tier("tier-rows-past", "a ring that ends behind the section", "ring inside section rows", tier1+8, 3),
		tier("tier-row-stride-odd", "row_stride no multiple of 64", "row_stride", tier0+12, 200),
		tier("tier-row-stride-small", "row_stride less than a row", "row_stride", tier0+12, 128),
		tierMoved("tier-misaligned", "a ring at no multiple of 64", 8),
		tierMoved("tier-past", "a ring that begins too late", 64),
		tierMoved("tier-far", "a ring past everything", 1<<64-4096),
	})
}

func brokenSeries() []Vector {
	type d = *layout.Series
	in := func(index int, id, comment, rule string, do func(s d)) change {
		return change{id, "6.1", comment, Skip, rule, func(g *segment, _ []byte) { do(g.descriptor(index)) }}
	}
	const counter, gauge, stat, histogram = 0, 1, 2, 3
	list := []change{
		in(counter, "series-state", "a state that nobody knows", "state", func(s d) { s.State = layout.NewState(0, 4) }),
		in(counter, "series-kind-0", "kind 0", "kind", func(s d) { s.Kind = 0 }),
		in(counter, "series-kind-6", "a kind that nobody knows", "kind", func(s d) { s.Kind = 6 }),
		in(counter, "series-number-0", "number 0", "number", func(s d) { s.Number = 0 }),
		in(counter, "series-counter-i64", "a counter of number i64", "number", func(s d) { s.Number = layout.I64 }),
		in(gauge, "series-gauge-u64", "a gauge of number u64", "number", func(s d) { s.Number = layout.U64 }),
		in(stat, "series-stat-u64", "a stat of number u64", "number", func(s d) { s.Number = layout.U64 }),
		in(histogram, "series-histogram-i64", "a histogram of number i64", "number", func(s d) { s.Number = layout.I64 }),
		in(histogram, "series-scale-7", "scale over 6", "scale", func(s d) { s.Scale = 7 }),
		in(histogram, "series-scale-negative", "scale below 0", "scale", func(s d) { s.Scale = -1 }),
		in(counter, "series-scale-counter", "a counter with a scale", "scale", func(s d) { s.Scale = 1 }),
		in(counter, "series-table", "a table that is not there", "table", func(s d) { s.Table = 1 }),
		in(counter, "series-name-empty", "no name", "name_length", func(s d) { s.NameLength = 0 }),
		in(counter, "series-name-long", "a name of 256 bytes", "name_length", func(s d) { s.NameLength = 256 }),
		in(counter, "series-unit-long", "a unit of 64 bytes", "unit_length", func(s d) { s.UnitLength = 64 }),
		in(counter, "series-help-long", "a help of 1,024 bytes", "help_length", func(s d) { s.HelpLength = 1024 }),
		in(counter, "series-labels-short", "labels of 1 byte", "labels_length", func(s d) { s.LabelsLength = 1 }),
		in(counter, "series-labels-long", "labels of 65,536 bytes", "labels_length", func(s d) { s.LabelsLength = 65536 }),
		in(counter, "series-strings-past", "strings that end behind the heap", "strings", func(s d) { s.Strings = 60 }),
		in(counter, "series-strings-far", "strings past everything", "strings", func(s d) { s.Strings = 1<<32 - 1 }),
		in(counter, "series-row-cell", "a counter's row cell past the table", "row_cell", func(s d) { s.RowCell = 14 }),
		in(histogram, "series-row-cell-end", "a histogram whose last row cell is past the table", "row_cell", func(s d) { s.RowCell++ }),
		in(stat, "series-row-cell-far", "a row cell past everything", "row_cell", func(s d) { s.RowCell = 1<<32 - 1 }),
		in(stat, "series-lane-cell", "a stat whose last lane cell is past the lane", "lane_cell", func(s d) { s.LaneCell = 9 }),
		in(gauge, "series-shared-cell", "a gauge past the shared lane", "shared_cell", func(s d) { s.SharedCell = 2 }),
		in(histogram, "series-buckets-0", "a histogram of no buckets", "buckets", func(s d) { s.Buckets = 0 }),
		in(histogram, "series-buckets-2049", "a histogram of too many buckets", "buckets", func(s d) { s.Buckets = 2049 }),
		in(gauge, "series-buckets-gauge", "a gauge with buckets", "buckets", func(s d) { s.Buckets = 1 }),
		in(histogram, "series-bucket-min", "buckets of subnormal values", "bucket_min", func(s d) { s.BucketMin = -1023 }),
		in(stat, "series-bucket-min-stat", "a stat with a bucket_min", "bucket_min", func(s d) { s.BucketMin = -1 }),
	}
	text := func(id, comment, list string) change {
		return change{id, "6.4", comment, Skip, "pair list", func(g *segment, b []byte) { relabel(g, b, counter, list) }}
	}
	list = append(list,
		change{"series-name-utf8", "6.1", "a name that is not UTF-8", Skip, "UTF-8", func(g *segment, b []byte) {
			b[g.h.Heap.Offset+uint64(g.descriptor(counter).Strings)] = 0x80
		}},
		text("labels-tail", "labels_length longer than the list", "\x00\x00x"),
		text("labels-cut", "a value that ends past the labels", "\x01\x00\x01\x00\x02\x00av"),
		text("labels-count", "65 pairs", "\x41\x00"),
		text("labels-order", "names out of order", "\x02\x00\x01\x00\x01\x00bv\x01\x00\x01\x00av"),
		text("labels-twice", "a name twice, the first time with an empty value", "\x02\x00\x01\x00\x00\x00a\x01\x00\x01\x00av"),
		text("labels-name-empty", "an empty name", "\x01\x00\x00\x00\x01\x00v"),
		text("labels-utf8", "an overlong encoding is not UTF-8", "\x01\x00\x01\x00\x02\x00a\xc0\xaf"),
	)
	return changes(list)
}

func brokenRows() []Vector {
	// Row 2 of tier 0, slot 2, is the one that breaks.
	row := func(id, section, comment, rule string, do func(g *segment, slot []uint64)) change {
		return change{id, section, comment, Skip, rule, func(g *segment, _ []byte) { do(g, g.slot(0, 0, 2)) }}
	}
	// again publishes the row once more after a change, as a writer would that is wrong.
	again := func(g *segment, slot []uint64, id layout.RowIdentity, change func(h *layout.RowHeader)) {
		h := *layout.View[layout.RowHeader](slot, 0)
		cells := append([]uint64(nil), slot[layout.RowWords:][:h.Cells]...)
		change(&h)
		layout.PublishRow(slot, id, &h, cells)
	}
	nothing := func(*layout.RowHeader) {}
	flip := func(word, bit int) func(*segment, []uint64) {
		return func(_ *segment, slot []uint64) { slot[word] ^= 1 << bit }
	}
	return changes([]change{
		row("row-torn", "8.2", "the cells of another row behind the header of this one", "checksum", func(g *segment, slot []uint64) {
			copy(slot[layout.RowWords:], g.slot(0, 0, 3)[layout.RowWords:][:7])
		}),
		row("row-busy", "8.2", "seq odd and the checksum does not hold", "checksum", func(_ *segment, slot []uint64) {
			slot[0]++
			slot[layout.RowWords+3]++
		}),
		row("row-wrong-slot", "8.2", "a row in a slot that is not its own, with a good checksum", "row_no", func(g *segment, slot []uint64) {
			again(g, slot, g.h.RowIdentity(0, 0), func(h *layout.RowHeader) { h.RowNo = 3 })
		}),
		row("row-no-zero", "8.2", "row_no 0 in the middle of a ring: no row", "row_no", func(g *segment, slot []uint64) {
			again(g, slot, g.h.RowIdentity(0, 0), func(h *layout.RowHeader) { h.RowNo = 0 })
		}),
		row("row-cells-many", "8.2", "cells over row_cells, inside the stride, with a good checksum", "cells", func(g *segment, slot []uint64) {
			h := *layout.View[layout.RowHeader](slot, 0)
			cells := append([]uint64(nil), slot[layout.RowWords:][:15]...)
			layout.PublishRow(slot, g.h.RowIdentity(0, 0), &h, cells)
		}),
		row("row-cells-far", "8.2", "cells past everything", "cells", func(_ *segment, slot []uint64) { slot[6] |= 0xffffffff }),
		row("row-checksum", "8.3", "one bit of the checksum", "checksum", flip(7, 63)),
		row("row-flip-time", "8.3", "one bit of t", "checksum", flip(3, 0)),
		row("row-flip-flags", "8.3", "one bit of flags", "checksum", flip(6, 48)),
		row("row-flip-first-cell", "8.3", "one bit of the first cell", "checksum", flip(layout.RowWords, 0)),
		row("row-flip-last-cell", "8.3", "one bit of the last cell", "checksum", flip(layout.RowWords+13, 31)),
		row("row-of-another-tier", "8.3", "a row that was summed for tier 1", "checksum", func(g *segment, slot []uint64) {
			again(g, slot, g.h.RowIdentity(0, 1), nothing)
		}),
		row("row-of-another-table", "8.3", "a row that was summed for table 1", "checksum", func(g *segment, slot []uint64) {
			again(g, slot, g.h.RowIdentity(1, 0), nothing)
		}),
		row("row-of-another-segment", "8.3", "a row that was summed for another segment_id", "checksum", func(g *segment, slot []uint64) {
			other := g.h.Superblock
			other.SegmentID[15] ^= 1
			again(g, slot, other.RowIdentity(0, 0), nothing)
		}),
	})
}
