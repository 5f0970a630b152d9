package fuzz

import (
	"testing"

	"github.com/shmts/shmts/layout"
)

// FuzzRows takes arbitrary bytes for the slot of a row. A row is served only if its number is the one asked for, its cells lie
// inside the slot and the checksum holds, as computed here from the page; and both ways to read agree.
func FuzzRows(f *testing.F) {
	for _, b := range seeds(f) {
		w := words(b)
		h, err := layout.ParseHeader(w, int64(len(b)))
		if err != nil {
			continue
		}
		for i := range h.Tables {
			for tier := range int(h.Tables[i].Tiers) {
				r := &h.Tables[i].Tier[tier]
				for slot := range uint64(min(r.Rows, 4)) {
					at := r.Offset + slot*uint64(r.RowStride)
					f.Add(b[at:at+uint64(r.RowStride)], string(h.SegmentID[:]), uint8(i), uint8(tier), w[at/8+1])
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, id string, table, tier uint8, want uint64) {
		slot := words(b)
		if len(slot) < layout.RowWords {
			return
		}
		var sb layout.Superblock
		copy(sb.SegmentID[:], id)
		identity := sb.RowIdentity(int(table), int(tier))
		dst := make([]uint64, len(slot)-layout.RowWords)
		before := append([]uint64(nil), slot...)
		h1, cells1, v1 := layout.CopyRow(slot, identity, want, dst)
		h2, cells2, v2 := layout.DecodeRow(slot, identity, want)
		for i := range before {
			if slot[i] != before[i] {
				t.Fatal("the reader wrote")
			}
		}
		if slot[0]&1 != 0 {
			if v1 != layout.RowBusy {
				t.Fatalf("in place, odd seq: want busy, got %v", v1)
			}
		} else if v1 != v2 || h1 != h2 || len(cells1) != len(cells2) {
			t.Fatalf("in place: %v, %+v; a copy: %v, %+v", v1, h1, v2, h2)
		}
		if v2 != layout.RowOK {
			if h2 != (layout.RowHeader{}) || cells2 != nil {
				t.Fatalf("%v: want no row, got %+v", v2, h2)
			}
			return
		}
		if h2.RowNo != want || want == 0 || int(h2.Cells) != len(cells2) || len(cells2) > len(slot)-layout.RowWords {
			t.Fatalf("served: want row %d, got %+v with %d cells of %d", want, h2, len(cells2), len(slot)-layout.RowWords)
		}
		var head [2]uint64
		copy(layout.Bytes(head[:]), sb.SegmentID[:])
		covered := append(append([]uint64{head[0], head[1]}, slot[1:7]...), cells2...)
		if sum := slowSum(uint64(table)*256+uint64(tier), covered); sum != h2.Checksum {
			t.Fatalf("served with checksum %#x, which is %#x", h2.Checksum, sum)
		}
	})
}

// slowSum is FORMAT.md 8.3, as it stands there.
func slowSum(seed uint64, w []uint64) uint64 {
	const p = 0x9e3779b185ebca87
	rotl := func(x uint64, n uint) uint64 { return x<<n | x>>(64-n) }
	a := [4]uint64{p, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, seed}
	for i, x := range w {
		a[i%4] = rotl(a[i%4]^x, 29) * p
	}
	h := rotl(a[0], 1) + rotl(a[1], 7) + rotl(a[2], 12) + rotl(a[3], 18)
	h = (h ^ h>>33) * 0xc2b2ae3d27d4eb4f
	h = (h ^ h>>29) * 0x165667b19e3779f9
	return h ^ h>>32
}

func words(b []byte) []uint64 {
	w := make([]uint64, len(b)/8)
	copy(layout.Bytes(w), b)
	return w
}
