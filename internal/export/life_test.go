package export_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/source"
)

// In health: long and short lives, each row once, with and without an archive, and an exporter that is killed now and then.
func TestHealth(t *testing.T) {
	for _, archived := range []bool{false, true} {
		for _, delta := range []bool{false, true} {
			t.Run(fmt.Sprintf("archive %v delta %v", archived, delta), func(t *testing.T) {
				var s *stage
				if s = newStage(t); archived {
					s = newStage(t, three(30, 30, 4)...)
				}
				d := s.destination(export.Options{Positions: filepath.Join(t.TempDir(), "positions"), Delta: delta})
				if !archived {
					s.reg.Hold("export", finished(d))
				}
				long := s.born("long")
				for i := range 12 {
					vm := s.born(fmt.Sprint("vm", i))
					s.run(45 * time.Second)
					s.end(vm)
					if i%3 == 2 {
						d.kill()
					}
				}
				s.run(30 * time.Second)
				s.end(long)
				s.run(20 * time.Second)
				for _, l := range s.lives {
					d.check(l, 20*time.Second)
				}
				d.lostNothing()
			})
		}
	}
}

// A receiver that is away for an hour: everything comes afterwards, once and in order, of whoever lived in the meantime.
func TestOutage(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(fmt.Sprint("delta ", delta), func(t *testing.T) {
			s := newStage(t, three(60, 60, 8)...)
			d := s.destination(export.Options{Positions: filepath.Join(t.TempDir(), "positions"), Delta: delta})
			long, other := s.born("long"), s.born("other")
			s.run(3 * time.Minute)
			d.r.set(true)
			for i := range 60 {
				vm := s.born(fmt.Sprint("vm", i))
				s.run(45 * time.Second)
				s.end(vm)
				s.run(15 * time.Second)
				if i == 30 {
					s.end(other)
				}
			}
			if n := d.r.Points(); n > 120 {
				t.Errorf("want one request in memory, got %d points", n)
			}
			d.r.set(false)
			s.run(20 * time.Minute)
			s.end(long)
			s.run(time.Minute)
			for _, l := range s.lives {
				d.check(l, 30*time.Second)
			}
			d.lostNothing()
			if n := d.Stats().Positions; n > 12 {
				t.Errorf("want positions of what ended let go of, got %d", n)
			}
		})
	}
}

func finished(d *destination) func(*source.Segment) bool {
	return func(g *source.Segment) bool { return d.Finished(g.ID()) }
}
