package archiver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
)

// shallow is an archive whose coarser tiers take blocks of few values.
type shallow struct {
	*archivetest.Memory
	most    int
	refused int
}

func (s *shallow) Append(tier int, blocks ...*archive.Block) error {
	for _, b := range blocks {
		values := 0
		for i := range b.Sources {
			values += len(b.Sources[i].Times) * len(b.Schema.Series)
		}
		if tier > 0 && values > s.most {
			s.refused++
			return archive.ErrTooLarge
		}
	}
	return s.Memory.Append(tier, blocks...)
}

// Folded rows that do not fit are written in parts, by sources and then by rows, and are what they would be in one; what fits nowhere is counted, and
// not tried for ever.
func TestFoldedSplits(t *testing.T) {
	for _, most := range []int{100, 40, 9, 3} {
		t.Run(fmt.Sprint(most, " values"), func(t *testing.T) {
			w := newSwept(t, 2, SweepOptions{})
			s := &shallow{archivetest.New(sweepSteps...), most, 0}
			w.mem = s
			w.restart()
			var all []*sweptSource
			for i := range 5 {
				all = append(all, w.birth("j", i%2))
			}
			for second := range 1300 {
				w.now += 1000
				for i, src := range all {
					if second > 100*i && second%(97+i) != 0 {
						src.row(w.now, uint64(1+i))
					}
				}
				if second%60 == 59 {
					w.flush(all...)
				}
				w.sweep()
			}
			w.end()
			if s.refused == 0 {
				t.Error("want blocks that do not fit, got none")
			}
			if f := w.s.Stats().Failed; f != 0 {
				t.Errorf("want none given up, got %d", f)
			}
			for i, src := range all {
				for tier := 1; tier <= 2; tier++ {
					if want, got := w.want(src, tier), w.read(src.Key, tier); !slices.Equal(want, got) {
						t.Fatalf("source %d, tier %d: want\n%+v\ngot\n%+v", i, tier, want, got)
					}
				}
			}
		})
	}
	w := newSwept(t, 2, SweepOptions{})
	w.mem = &shallow{Memory: archivetest.New(sweepSteps...), most: 1} // not even a row
	w.restart()
	src := w.birth("j", 0)
	for range 90 {
		w.now += 1000
		src.row(w.now, 1)
	}
	w.end()
	st := w.s.Stats()
	if st.Failed != 10 || st.Folded != 0 || st.Pending != 0 {
		t.Errorf("want ten rows of 10 s given up, and nothing left, got %+v", st)
	}
	for range 60 {
		w.now += 60_000
		w.sweep()
	}
	equal(t, "given up later", w.s.Stats().Failed, st.Failed)
	if got := w.read(src.Key, 1); len(got) != 0 {
		t.Errorf("want nothing folded, got %+v", got)
	}
}
