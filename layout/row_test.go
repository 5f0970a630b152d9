package layout

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func testIdentity(table, tier int) RowIdentity {
	var s Superblock
	for i := range s.SegmentID {
		s.SegmentID[i] = byte(i + 1)
	}
	return s.RowIdentity(table, tier)
}

// The row's sum is that of FORMAT.md 8.3, word for word.
func TestRowSum(t *testing.T) {
	id := testIdentity(2, 3)
	h := RowHeader{RowNo: 9, TBegin: -1, T: 2, TMono: 3, BaseRow: 4, Epoch: 5, Flags: RowFinal}
	slot := make([]uint64, RowWords+3)
	PublishRow(slot, id, &h, []uint64{10, 11, 12})
	words := []uint64{0x0807060504030201, 0x100f0e0d0c0b0a09, 9, 1<<64 - 1, 2, 3, 4, 3 | 5<<32 | 1<<48, 10, 11, 12}
	if want := slowSum(2*256+3, words); slot[7] != want || h.Checksum != want {
		t.Errorf("want %#x, got %#x in the slot and %#x in the header", want, slot[7], h.Checksum)
	}
	if h.Cells != 3 || h.Seq != 2 || slot[0] != 2 {
		t.Errorf("cells %d, seq %d, in the slot %d", h.Cells, h.Seq, slot[0])
	}
}

func TestRowRoundTrip(t *testing.T) {
	id := testIdentity(0, 0)
	cells := []uint64{1, 2, 3, 4, 5}
	slot := make([]uint64, RowWords+8)
	dst := make([]uint64, 8)
	for n := uint64(1); n < 5; n++ {
		h := RowHeader{RowNo: n, T: int64(n) * 10, BaseRow: n}
		PublishRow(slot, id, &h, cells[:n])
		got, c, v := CopyRow(slot, id, n, dst)
		if v != RowOK || got != h || len(c) != int(n) || c[n-1] != n {
			t.Fatalf("row %d, in place: %v, %+v, %v", n, v, got, c)
		}
		got, c, v = DecodeRow(slot, id, n)
		if v != RowOK || got != h || len(c) != int(n) || c[n-1] != n {
			t.Fatalf("row %d, a copy: %v, %+v, %v", n, v, got, c)
		}
	}
}

// Each case is what a reader may find in a slot, and what it is to say, in place and of a copy.
func TestRowVerdicts(t *testing.T) {
	id := testIdentity(0, 1)
	for _, c := range []struct {
		what            string
		inPlace, copied Verdict
		do              func(slot []uint64) (want uint64, id RowIdentity)
	}{
		{"as it was", RowOK, RowOK, func([]uint64) (uint64, RowIdentity) { return 7, id }},
		{"the row before", RowOther, RowOther, func([]uint64) (uint64, RowIdentity) { return 6, id }},
		{"row 0", RowOther, RowOther, func(s []uint64) (uint64, RowIdentity) { s[1] = 0; return 0, id }},
		{"empty", RowOther, RowOther, func(s []uint64) (uint64, RowIdentity) { clear(s); return 7, id }},
		{"seq odd", RowBusy, RowOK, func(s []uint64) (uint64, RowIdentity) { s[0]++; return 7, id }},
		{"another table", RowBad, RowBad, func([]uint64) (uint64, RowIdentity) { return 7, testIdentity(1, 1) }},
		{"another tier", RowBad, RowBad, func([]uint64) (uint64, RowIdentity) { return 7, testIdentity(0, 0) }},
		{"another segment", RowBad, RowBad, func([]uint64) (uint64, RowIdentity) { return 7, RowIdentity{1, 2, 1} }},
		{"cells past the slot", RowBad, RowBad, func(s []uint64) (uint64, RowIdentity) { s[6] = 9; return 7, id }},
		{"cells past everything", RowBad, RowBad, func(s []uint64) (uint64, RowIdentity) { s[6] |= 0xffffffff; return 7, id }},
		{"a cell less", RowBad, RowBad, func(s []uint64) (uint64, RowIdentity) { s[6]--; return 7, id }},
		{"half a row", RowBad, RowBad, func(s []uint64) (uint64, RowIdentity) { s[RowWords+7] = 0; return 7, id }},
	} {
		slot := make([]uint64, RowWords+8)
		h := RowHeader{RowNo: 7, T: 1}
		PublishRow(slot, id, &h, []uint64{1, 2, 3, 4, 5, 6, 7, 8})
		n, who := c.do(slot)
		got, cells, v := CopyRow(slot, who, n, make([]uint64, 8))
		if v != c.inPlace || v != RowOK && (cells != nil || got != RowHeader{}) {
			t.Errorf("%s, in place: want %v, got %v with %v", c.what, c.inPlace, v, cells)
		}
		got, cells, v = DecodeRow(slot, who, n)
		if v != c.copied || v != RowOK && (cells != nil || got != RowHeader{}) {
			t.Errorf("%s, a copy: want %v, got %v with %v", c.what, c.copied, v, cells)
		}
	}
	slot := make([]uint64, RowWords+8)
	h := RowHeader{RowNo: 7}
	PublishRow(slot, id, &h, make([]uint64, 8))
	if _, _, v := CopyRow(slot, id, 7, make([]uint64, 7)); v != RowBad {
		t.Errorf("cells past row_cells: want %v, got %v", RowBad, v)
	}
}

// Every bit of a row but those of seq, flipped: never served. Of seq, an odd one in place.
func TestRowFlips(t *testing.T) {
	id := testIdentity(3, 2)
	r := rand.New(rand.NewPCG(11, 12))
	cells := make([]uint64, 9)
	for i := range cells {
		cells[i] = r.Uint64()
	}
	slot := make([]uint64, RowWords+len(cells))
	h := RowHeader{RowNo: 12345, TBegin: 17e17, T: 17e17 + 1e9, TMono: 1e12, BaseRow: 12345, Epoch: 3}
	PublishRow(slot, id, &h, cells)
	dst := make([]uint64, len(cells))
	for bit := 64; bit < 64*len(slot); bit++ {
		slot[bit/64] ^= 1 << (bit % 64)
		if _, _, v := DecodeRow(slot, id, 12345); v == RowOK {
			t.Errorf("bit %d flipped: a copy is served", bit)
		}
		if _, _, v := CopyRow(slot, id, 12345, dst); v == RowOK {
			t.Errorf("bit %d flipped: served in place", bit)
		}
		slot[bit/64] ^= 1 << (bit % 64)
	}
	// Whole bytes, as a copy that is torn at any byte would have them.
	other := make([]uint64, len(slot))
	h2 := h
	h2.T, h2.RowNo = h.T+1e9, h.RowNo // the same number, of another life
	for i := range cells {
		cells[i]++
	}
	PublishRow(other, id, &h2, cells)
	a, b := Bytes(slot), Bytes(other)
	served := 0
	for cut := 8; cut <= len(a); cut++ {
		torn := make([]uint64, len(slot))
		copy(Bytes(torn), a[:cut])
		copy(Bytes(torn)[cut:], b[cut:])
		if _, _, v := DecodeRow(torn, id, 12345); v == RowOK {
			if torn := Bytes(torn)[8:]; string(torn) != string(a[8:]) && string(torn) != string(b[8:]) {
				t.Errorf("torn at byte %d: served", cut)
			}
			served++
		}
	}
	if served == 0 {
		t.Error("want the whole rows served")
	}
}

// A writer killed inside a row leaves seq odd; the next row in the slot heals it.
func TestRowHeals(t *testing.T) {
	id := testIdentity(0, 0)
	slot := make([]uint64, RowWords+2)
	slot[0] = 5
	if _, _, v := CopyRow(slot, id, 1, make([]uint64, 2)); v != RowBusy {
		t.Errorf("want %v, got %v", RowBusy, v)
	}
	h := RowHeader{RowNo: 1}
	PublishRow(slot, id, &h, []uint64{1, 2})
	if slot[0] != 6 {
		t.Errorf("want seq 6, got %d", slot[0])
	}
	if _, _, v := CopyRow(slot, id, 1, make([]uint64, 2)); v != RowOK {
		t.Errorf("want %v, got %v", RowOK, v)
	}
}

// One writer in a ring of two slots, as fast as it can, and readers in place: all words of a
// row are tied to its number by arithmetic, so that any word of another row would be seen. Run with -race too.
func TestRowsAreNeverTorn(t *testing.T) {
	const cells, rows = 37, 60_000
	id := testIdentity(1, 1)
	tier := Tier{Rows: 2, RowStride: (RowWords + cells + 3) * 8}
	ring := make([]uint64, 2*tier.RowStride/8)
	slot := func(n uint64) []uint64 { return ring[tier.RowOffset(n)/8:][:RowWords+cells] }
	var head atomic.Uint64
	var wg sync.WaitGroup
	var served [3]int
	for reader := range served {
		wg.Add(1)
		go func() {
			defer wg.Done()
			dst := make([]uint64, cells)
			for {
				n := head.Load()
				h, got, v := CopyRow(slot(n), id, n, dst)
				if v == RowBad {
					t.Errorf("row %d: seq was even and steady, the sum wrong", n)
					return
				}
				if v == RowOK {
					served[reader]++
					bad := h.RowNo != n || h.T != int64(n)*1000 || h.TBegin != int64(n-1)*1000 || h.BaseRow != n+7 || len(got) != cells-int(n%3)
					for i, c := range got {
						bad = bad || c != n*1_000_003+uint64(i)
					}
					if bad {
						t.Errorf("row %d is torn: %+v, %v", n, h, got)
						return
					}
				}
				if n == rows {
					if v != RowOK {
						t.Errorf("the last row, at rest: %v", v)
					}
					return
				}
			}
		}()
	}
	values := make([]uint64, cells)
	for n := uint64(1); n <= rows; n++ {
		for i := range values {
			values[i] = n*1_000_003 + uint64(i)
		}
		h := RowHeader{RowNo: n, T: int64(n) * 1000, TBegin: int64(n-1) * 1000, BaseRow: n + 7}
		PublishRow(slot(n), id, &h, values[:cells-int(n%3)])
		head.Store(n)
	}
	wg.Wait()
	for reader, n := range served {
		if n == 0 {
			t.Errorf("reader %d was served no row", reader)
		}
	}
}

func TestRowsAllocateNothing(t *testing.T) {
	id := testIdentity(0, 0)
	slot, dst, cells := make([]uint64, RowWords+50), make([]uint64, 50), make([]uint64, 50)
	h := RowHeader{RowNo: 1}
	for name, f := range map[string]func(){
		"PublishRow": func() { PublishRow(slot, id, &h, cells) },
		"CopyRow":    func() { CopyRow(slot, id, 1, dst) },
		"DecodeRow":  func() { DecodeRow(slot, id, 1) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: want no allocation, got %v", name, n)
		}
	}
}

func TestSlots(t *testing.T) {
	tier := Tier{Rows: 5, RowStride: 192, Offset: 4096}
	for n, want := range map[uint64]uint64{1: 4096 + 192, 4: 4096 + 4*192, 5: 4096, 6: 4096 + 192, 1<<63 + 2: 4096 + 0} {
		if n == 1<<63+2 {
			want = 4096 + (n%5)*192
		}
		if got := tier.RowOffset(n); got != want {
			t.Errorf("row %d: want offset %d, got %d", n, want, got)
		}
	}
	if got := []string{RowOK.String(), RowOther.String(), RowBusy.String(), RowBad.String()}; got[0] != "ok" || got[3] != "bad" {
		t.Errorf("verdicts: %q", got)
	}
}
