package fuzz

import (
	"testing"

	"github.com/shmts/shmts/layout"
)

// FuzzExemplars takes arbitrary bytes for a slot of the ring of exemplars. One is served only if seq says that it is the one
// asked for, whole, and its check holds, as computed here from the page; and both ways to read agree.
func FuzzExemplars(f *testing.F) {
	for _, b := range seeds(f) {
		w := words(b)
		h, err := layout.ParseHeader(w, int64(len(b)))
		if err != nil {
			continue
		}
		for n := range uint64(min(h.Exemplars.Count, 4)) {
			at := h.ExemplarOffset(n + 1)
			f.Add(b[at:at+layout.ExemplarSize], string(h.SegmentID[:]), w[at/8]>>1)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, id string, want uint64) {
		slot := words(b)
		if len(slot) < layout.ExemplarWords {
			return
		}
		var sb layout.Superblock
		copy(sb.SegmentID[:], id)
		before := [layout.ExemplarWords]uint64(slot)
		x1, v1 := layout.LoadExemplar(slot, sb.ExemplarIdentity(), want)
		x2, v2 := layout.DecodeExemplar(slot, sb.ExemplarIdentity(), want)
		if [layout.ExemplarWords]uint64(slot) != before {
			t.Fatal("the reader wrote")
		}
		if v1 != v2 || v1 == layout.ExemplarOK && before != words8(&x1) || v1 == layout.ExemplarOK && before != words8(&x2) {
			t.Fatalf("in place: %v, %+v; a copy: %v, %+v", v1, x1, v2, x2)
		}
		if v1 != layout.ExemplarOK {
			if x1 != (layout.Exemplar{}) || x2 != (layout.Exemplar{}) {
				t.Fatalf("%v: want no exemplar, got %+v and %+v", v1, x1, x2)
			}
			return
		}
		le := words([]byte((id + string(make([]byte, 16)))[:16]))
		sum := layout.Sum(0x10000, append([]uint64{le[0], le[1], want}, slot[2:8]...))
		if want == 0 || slot[0] != 2*want || slot[1] != sum {
			t.Fatalf("served: want number %d and check %#x, got seq %d and %#x", want, sum, slot[0], slot[1])
		}
	})
}

// words8 are the words of a slot that holds x.
func words8(x *layout.Exemplar) (w [layout.ExemplarWords]uint64) {
	*layout.View[layout.Exemplar](w[:], 0) = *x
	return w
}
