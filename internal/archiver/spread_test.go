package archiver

import (
	"slices"
	"testing"
)

// Cohorts that began together are folded at other times, each a whole number of flushes apart: neither the processor nor memory has to do with
// all of them at once.
func TestSpread(t *testing.T) {
	const cohorts, minutes = 16, 40
	w := newSwept(t, 1, SweepOptions{})
	var all [cohorts][]*sweptSource
	for c := range all {
		all[c] = []*sweptSource{w.birth("j", 0), w.birth("j", 0)}
	}
	var minute [minutes]int // sources that were folded in it
	base := map[tableKey]uint64{}
	for second := range 60 * minutes {
		w.now += 1000
		for c, sources := range all {
			for _, s := range sources {
				s.row(w.now, 1)
			}
			if second%60 == 3*c {
				w.flush(sources...)
			}
		}
		w.sweep()
		for k, p := range w.s.levels[0].pending {
			if p.base > base[k] {
				minute[second/60]++
				base[k] = p.base
			}
		}
	}
	// A source has five minutes' rows when it is folded, and the first time a minute's at least.
	settled, most := 0, slices.Max(minute[:])
	for _, n := range minute[10:] {
		settled += n
	}
	if folds := 2 * cohorts * 30 / 5; settled < folds*9/10 || settled > folds*11/10 {
		t.Errorf("want each source folded every five minutes, %d times in half an hour, got %d", folds, settled)
	}
	if most > cohorts {
		t.Errorf("want not more than half of the %d sources folded in one minute, got %v", 2*cohorts, minute)
	}
	for _, sources := range all {
		for _, s := range sources {
			s.ended = true
		}
	}
	w.end()
	for _, sources := range all {
		for _, s := range sources {
			if got, want := w.read(s.Key, 1), w.want(s, 1); !slices.Equal(got, want) {
				t.Fatalf("want\n%+v\ngot\n%+v", want, got)
			}
		}
	}
}
