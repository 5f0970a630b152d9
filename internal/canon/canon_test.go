package canon

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// image is a segment with one series of each kind in one lane and the overflow lane, and one row, put there word by word.
func image(t *testing.T) []byte {
	t.Helper()
	f := math.Float64bits
	table := layout.TableSchema{Name: "t\"able", Lanes: 1, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 3}}}
	for _, k := range []layout.Kind{layout.Counter, layout.Gauge, layout.Stat, layout.Histogram} {
		table.Add(1, k, 2)
	}
	h, err := layout.NewHeader(layout.Schema{Series: 4, HeapBytes: 100, Tables: []layout.TableSchema{table},
		Labels: []layout.Pair{{Name: "job", Value: "é"}, {Name: "instance", Value: "i"}}})
	if err != nil {
		t.Fatal(err)
	}
	h.SegmentID[0], h.SegmentID[15] = 0xab, 1
	w := make([]uint64, h.TotalSize/8)
	h.Encode(w)
	h.InitControl(w)
	heap := 0
	for i, s := range []layout.SeriesInfo{
		{Series: layout.Series{Kind: layout.Counter, Number: layout.F64}, Name: "c"},
		{Series: layout.Series{Kind: layout.Gauge, Number: layout.I64, RowCell: 1}, Name: "g", Unit: "1"},
		{Series: layout.Series{Kind: layout.Stat, Number: layout.F64, RowCell: 2, LaneCell: 1, SharedCell: 1}, Name: "s"},
		{Series: layout.Series{Kind: layout.Histogram, Number: layout.U64, RowCell: 7, LaneCell: 9, Buckets: 2, BucketMin: -1}, Name: "h"},
	} {
		s.Index, s.BornRow, s.Strings = i, 1, uint32(heap)
		b, err := s.AppendStrings(nil)
		if err != nil {
			t.Fatal(err)
		}
		layout.StoreSeries(w, h, &s, b)
		heap += len(b)
	}
	layout.View[layout.Control](w, h.Control.Offset).SeriesUsed = 4
	d := &h.Tables[0]
	lanes := [][]uint64{
		{f(0.5), 1, f(2), 0, 0, 0, 1, f(2), f(2), 7, 0, 1, 0, 0},
		{f(0.25), 2, f(3), 0, 0, 0, 1, f(-1), f(1), 5, 1, 0, 0, 2},
	}
	for k, lane := range lanes {
		copy(w[(d.LanesOffset+uint64(k)*uint64(d.LaneStride))/8:], lane)
	}
	copy(w[d.SharedOffset/8:], []uint64{layout.UnsetI64, f(2)})
	row := layout.RowHeader{RowNo: 4, TBegin: -5, T: 6, TMono: 7, BaseRow: 4, Flags: layout.RowFinal}
	layout.PublishRow(w[d.Tier[0].RowOffset(4)/8:], h.RowIdentity(0, 0), &row,
		[]uint64{f(1e21), 1<<64 - 3, 9, f(math.Inf(-1)), 0x7ff8000000000001, layout.UnsetF64, f(1.0 / 3), 1<<64 - 1, 3, 0, 4, 5})
	w[d.Tier[0].RowOffset(5)/8+1] = 6 // not its number
	return layout.Bytes(w)
}

func TestDump(t *testing.T) {
	var got bytes.Buffer
	if err := Dump(&got, image(t)); err != nil {
		t.Fatal(err)
	}
	want := `shmts 1.0
size header=832 total=4096
writer ""
segment ab000000000000000000000000000001
group 00000000000000000000000000000000 index=0
boot 00000000000000000000000000000000
birth unix=0 mono=0 error=0
process pid=0 uid=0 pid_ns=0
flags flags=0 compat=0
label "instance"="i"
label "job"="\xc3\xa9"
table 0 "t\x22able"
room 0 lanes=1 row_cells=12 lane_cells=14 shared_cells=2 series=4
tier 0 0 step=1000000000 rows=3
control state=1 epoch=0 heartbeat=0 ticks=0 clock_offset=0
lost dropped_series=0 overflow_threads=0 rejected_records=0 fork_losses=0
used series=4 heap=0
open 0 row=1 heads=0
cells 0 row=0 lane=0 shared=0 changes=4
series 0 live generation=0 counter f64 "c"{} unit="" help="" flags=0 table=0 born_unix=0 born_row=1 retired_row=0
series 1 live generation=0 gauge i64 "g"{} unit="1" help="" flags=0 table=0 born_unix=0 born_row=1 retired_row=0
series 2 live generation=0 stat f64 "s"{} unit="" help="" flags=0 table=0 born_unix=0 born_row=1 retired_row=0
series 3 live generation=0 histogram u64 "h"{} unit="" help="" flags=0 table=0 born_unix=0 born_row=1 retired_row=0 scale=0 bucket_min=-1 buckets=2
row 0 0 4 base=4 begin=-5 t=6 mono=7 epoch=0 flags=1 cells=12
value 0 1e+21
value 1 -3
value 2 count=9 sum=-inf last=nan:7ff8000000000001 min=unset max=0.33333333333333331
value 3 sum=18446744073709551615 zero=3 above=5 buckets=0:4
skip row 0 0 slot 2 number
live 0 0.75
live 1 unset
live 2 count=3 sum=5 last=2 min=-1 max=2
live 3 sum=12 zero=1 above=2 buckets=-1:1
`
	g, w := strings.Split(got.String(), "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("from line %d on:\nwant %q\ngot  %q", i+1, w[min(i, len(w)):], g[min(i, len(g)):])
		}
	}
}

func TestDumpOfUnalignedMemory(t *testing.T) {
	b := image(t)
	var want, got bytes.Buffer
	if err := Dump(&want, b); err != nil {
		t.Fatal(err)
	}
	shifted := append(make([]byte, 3, len(b)+3), b...)[3:]
	if err := Dump(&got, shifted); err != nil || got.String() != want.String() {
		t.Errorf("want the same text, got %v and %d bytes", err, got.Len())
	}
}

func TestDumpRefuses(t *testing.T) {
	good := image(t)
	bad := bytes.Clone(good)
	bad[0x50]++
	for _, b := range [][]byte{nil, good[:255], good[:300], good[:len(good)-1], bad} {
		var got bytes.Buffer
		err := Dump(&got, b)
		var corrupt *layout.CorruptError
		if !errors.As(err, &corrupt) || got.Len() != 0 {
			t.Errorf("%d bytes: want a CorruptError and no text, got %v and %d bytes", len(b), err, got.Len())
		}
	}
}
