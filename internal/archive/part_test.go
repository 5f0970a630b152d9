package archive

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// A source's part of a block is all that was appended of it there, open extent or sealed, and nothing once it is evicted.
func TestPart(t *testing.T) {
	w, r := newWorld(t), rand.New(rand.NewPCG(1, 2))
	a, err := Open(Options{Dir: t.TempDir(), ExtentSize: 64 << 10, Tiers: []TierOptions{{time.Second, 4096 + 4*64<<10}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var first *BlockInfo
	parts, generations := 0, map[uint64]bool{}
	for i := range 120 {
		schema, folded := w.schemas[i%3], i%2 == 1
		b := w.block(r, schema, folded, []int{i % 4 * 2, i%4*2 + 8, i%4*2 + 16}, 20+i%7)
		end := a.End(0)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		for info, err := range a.Blocks(0, end) {
			if err != nil {
				t.Fatal(err)
			}
			if first == nil { // never read
				first = info
				continue
			}
			generations[info.Generation] = true
			var columns []Column
			for _, s := range schema.Series {
				for _, f := range Fields(s.Kind, folded) {
					columns = append(columns, Column{s, f})
				}
			}
			for k := range info.Sources {
				c, starts, ok, err := a.Part(info, k, columns)
				if err != nil || !ok {
					t.Fatalf("block %d, source %d: want its rows, got %v, %v", i, k, ok, err)
				}
				parts++
				want := &b.Sources[k]
				if c.Base != want.Base || c.Final != want.Final || c.Estimated != want.Estimated || c.Copied != want.Copied || c.Folded != folded || len(c.Numbers) != len(want.Numbers) {
					t.Fatalf("want %d rows up to %d, %v %v, got %+v", len(want.Numbers), want.Base, want.Final, want.Estimated, c)
				}
				for j, s := range starts {
					if s != want.Starts[j] {
						t.Fatalf("series %d: want it started at %d, got %d", j, want.Starts[j], s)
					}
				}
				for f := range columns {
					for x, no := range c.Numbers {
						if no != want.Numbers[x] || c.Times[x] != want.Times[x] {
							t.Fatalf("want row %d at %d, got %d at %d", want.Numbers[x], want.Times[x], no, c.Times[x])
						}
						if has := c.Present[f] == nil || c.Present[f][x]; has != w.present(want.Source.Key, columns[f].Series.Name, no) {
							t.Fatalf("row %d, %s: present %v", no, columns[f].Series.Name, has)
						} else if !has {
							continue
						}
						width := len(c.Cells[f]) / len(c.Numbers)
						for y := range width {
							word := w.word(want.Source.Key, columns[f].Series.Name, columns[f].Field, isFloat(columns[f].Series, columns[f].Field) && y == 0, no, y)
							if got := c.Cells[f][x*width+y]; got != word {
								t.Fatalf("row %d, %s: want %d, got %d", no, columns[f].Series.Name, word, got)
							}
						}
					}
				}
			}
		}
	}
	if parts < 300 || len(generations) < 6 {
		t.Fatalf("want many parts over many extents, got %d over %d", parts, len(generations))
	}
	if _, _, ok, err := a.Part(first, 0, nil); ok || err != nil {
		t.Errorf("evicted: want nothing, got %v, %v", ok, err)
	}
	if _, _, _, err := a.Part(first, 99, nil); err == nil {
		t.Error("want an error of a source that is not there")
	}
	if _, _, _, err := a.Part(&BlockInfo{Schema: &Schema{Series: []*reader.Series{}}}, 0, nil); err == nil {
		t.Error("want an error of a block that is not the archive's")
	}
}
