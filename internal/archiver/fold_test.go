package archiver

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/writer"
)

// Rows that are finer than the finest tier are folded on their way into it: each of them is in one row of it, whenever the process
// is another one, and whether their ring holds a window or not.
func TestFinerThanTheArchive(t *testing.T) {
	for _, rows := range []int{60, 24, 8} {
		t.Run(fmt.Sprint("ring of ", rows), func(t *testing.T) {
			w := newWorld(t, Options{})
			tables := []writer.Table{{Name: "t", Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: rows}}, Counters: 10, Gauges: 2, Stats: 1, Histograms: 1, Buckets: 16}}
			k := w.writer("a", 3, tables)
			for i := range 600 {
				w.clock.Add(1e8)
				k.record()
				k.others()
				k.w.Tick()
				if i%4 == 3 { // what looks at it does so more often than the ring goes round
					w.poll()
				}
				switch i {
				case 150, 333, 334:
					w.restart()
				case 400:
					k.w.SetEpoch(3)
				}
			}
			id := w.id("a")
			w.end(k)
			w.poll()
			found, err := w.w.Find(id)
			if err != nil || len(found) != 2 {
				t.Fatalf("want two epochs, got %d, %v", len(found), err)
			}
			n, windows := uint64(0), 0
			for _, inc := range found {
				if tt := inc.Tables[0].Tiers; len(tt) != 1 || tt[0].Tier != 0 || !tt[0].Folded || tt[0].Step != time.Second {
					t.Fatalf("want it folded in the finest tier, got %+v", tt)
				}
				var cols []archive.Column
				for _, s := range inc.Series {
					if s.Name == "c2" {
						cols = append(cols, archive.Column{Series: s})
					}
					if s.Name == "level" {
						cols = append(cols, archive.Column{Series: s, Field: archive.Max})
					}
				}
				for c, err := range w.w.Read(inc, 0, 0, math.MinInt64, math.MaxInt64, cols) {
					if err != nil {
						t.Fatal(err)
					}
					for i, cover := range c.Coverage {
						n += cover
						windows++
						for j, col := range cols {
							want := n
							if col.Series.Name == "c2" {
								want = 3 * n
							} else if n < 3 {
								continue
							}
							if got := c.Cells[j][i]; got != want {
								t.Errorf("up to row %d: %s: want %d, got %d", n, col.Series.Name, want, got)
							}
						}
					}
				}
			}
			equal(t, "rows in the windows' coverage", n, k.n)
			equal(t, "lost", w.a.Stats().Lost[LostOverrun], 0)
			if rows > 20 && windows > 65 {
				t.Errorf("want a row of each second, got %d for 60 s", windows)
			}
			if found[1].Ended == 0 {
				t.Error("want it ended, got it not")
			}
		})
	}
}
