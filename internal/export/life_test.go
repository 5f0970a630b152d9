package export_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/writer"
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

// Two exporters of one store send the same points, whenever each was started, and through an outage of one of them.
func TestTwoExporters(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Second, 10 * time.Second, time.Minute} {
		t.Run(step.String(), func(t *testing.T) {
			s := newStage(t, three(60, 60, 8)...)
			dir := t.TempDir()
			o := export.Options{Step: step, Interval: min(step, 10*time.Second), Positions: filepath.Join(dir, "a")}
			a := s.destination(o)
			s.born("long")
			for i := range 4 {
				vm := s.born(fmt.Sprint("vm", i))
				s.run(45 * time.Second)
				s.end(vm)
			}
			o.Positions = filepath.Join(dir, "b")
			b := s.destination(o)
			for i := range 12 {
				vm := s.born(fmt.Sprint("vm", 4+i))
				s.run(47 * time.Second)
				s.end(vm)
				b.r.set(i > 4 && i < 8)
			}
			s.run(2 * time.Minute)
			for name, points := range b.r.points {
				if strings.Fields(name)[1] < "vm4" && !strings.HasPrefix(strings.Fields(name)[1], "vm1") {
					continue // of before it was there
				}
				other := map[time.Duration]point{}
				for _, p := range a.r.points[name] {
					p.request, p.born = 0, false
					other[p.time] = p
				}
				for i, p := range points {
					p.request, p.born = 0, false
					if was := other[p.time]; i > 0 && fmt.Sprint(was) != fmt.Sprint(p) {
						t.Errorf("%s at %v: want the same of both, got %+v and %+v", name, p.time, was, p)
					}
				}
			}
			for _, l := range s.lives[5:] {
				a.check(l, 2*step+10*time.Second)
				b.check(l, 2*step+10*time.Second)
			}
		})
	}
}

// A life of less than half a step of the archive's tier is a part of a sum there: it is sent by itself, also after an outage.
func TestShortLives(t *testing.T) {
	for _, step := range []time.Duration{10 * time.Second, 5 * time.Minute} {
		t.Run(step.String(), func(t *testing.T) {
			s := newStage(t, three(60, 60, 8)...)
			d := s.destination(export.Options{Step: step, Interval: 10 * time.Second, Positions: filepath.Join(t.TempDir(), "positions")})
			s.born("long")
			s.run(12 * time.Minute)
			d.r.set(true)
			for i := range 40 {
				vm := s.born(fmt.Sprint("vm", i))
				s.run([]time.Duration{3 * time.Second, 45 * time.Second}[i%2])
				s.end(vm)
				s.run(15 * time.Second)
			}
			d.r.set(false)
			if step > time.Minute {
				d.kill()
			}
			s.run(40 * time.Minute)
			for _, l := range s.lives {
				d.check(l, step+step/2+10*time.Second)
			}
			d.lostNothing()
			for name := range d.r.points {
				if strings.Contains(name, "ephemeral") {
					t.Errorf("want no sum sent beside its members, got %s", name)
				}
			}
		})
	}
}

// What the archive's tier evicted comes out of the next coarser one; what is nowhere any more is counted.
func TestAgedOut(t *testing.T) {
	s := newStage(t, three(3, 3, 8)...)
	d := s.destination(export.Options{Step: 10 * time.Second, Positions: filepath.Join(t.TempDir(), "positions")})
	var lives []*life
	for i := range 12 {
		lives = append(lives, s.born(fmt.Sprint("i", i)))
	}
	s.run(2 * time.Minute)
	d.r.set(true)
	s.run(9 * time.Hour)
	d.r.set(false)
	s.run(time.Hour)
	st := d.Stats()
	if st.Extents == 0 {
		t.Fatalf("want extents that were evicted before they were sent, got %+v", st)
	}
	coarse, fine := 0, 0
	for _, l := range lives {
		for _, k := range d.r.series("c") {
			if strings.Fields(k)[1] != l.instance {
				continue
			}
			last := time.Duration(0)
			for _, p := range d.r.points[k] {
				switch apart := p.time - last; {
				case apart <= 0:
					t.Fatalf("%s: want times to rise, got %v after %v", k, p.time, last)
				case apart > 4*time.Minute && apart <= 5*time.Minute:
					coarse++
				case apart <= 10*time.Second:
					fine++
				}
				if p.value != float64((p.time-l.born)/time.Second) {
					t.Fatalf("%s at %v: got %v", k, p.time, p.value)
				}
				last = p.time
			}
			if s.now-last > 20*time.Second {
				t.Errorf("%s: want it to have caught up, got it at %v of %v", k, last, s.now)
			}
		}
	}
	if coarse == 0 || fine == 0 {
		t.Errorf("want what is missing out of the 5m tier, got %d points 5m apart, %d 10s apart", coarse, fine)
	}
	t.Logf("%d extents evicted; lost %v", st.Extents, st.Lost)
}

// Nothing is archived any more: rings go on by themselves after a while, and what they went over is counted.
func TestArchiveStopped(t *testing.T) {
	s := newStage(t, three(30, 30, 4)...)
	d := s.destination(export.Options{Step: 10 * time.Second, Positions: filepath.Join(t.TempDir(), "positions")})
	l := s.born("long")
	s.run(2 * time.Minute)
	s.off = true
	d.r.set(true)
	s.run(time.Hour)
	d.r.set(false)
	s.run(30 * time.Minute)
	if n := d.Stats().Lost[export.LostOverrun]; n == 0 || n > 2*480 {
		t.Errorf("want the rows of about an hour lost, got %d", n)
	}
	points := d.r.points[d.r.series("c")[0]]
	if last := points[len(points)-1]; s.now-last.time > 20*time.Second || last.value != float64((last.time-l.born)/time.Second) {
		t.Errorf("want it to go on, got %v at %v of %v", last.value, last.time, s.now)
	}
}

// A process that is started anew under the same labels: the earlier one's rows come first, and no end after the later one's.
func TestSuccessors(t *testing.T) {
	s := newStage(t, three(30, 30, 4)...)
	d := s.destination(export.Options{Step: 10 * time.Second, Positions: filepath.Join(t.TempDir(), "positions")})
	for i := range 20 {
		l := s.born("same")
		if i == 5 || i == 12 {
			d.r.set(true)
		}
		s.run(35 * time.Second)
		if i == 9 || i == 17 {
			d.r.set(false)
		}
		s.end(l)
		s.run(5 * time.Second)
		if i%7 == 6 {
			d.kill()
		}
	}
	s.run(5 * time.Minute)
	d.lostNothing()
	d.inOrder()
	if n := len(d.r.series("c")); n != 20 {
		t.Errorf("want 20 lives, got %d", n)
	}
	ends := 0
	for _, k := range d.r.series("c") {
		for _, p := range d.r.points[k] {
			if p.end {
				ends++
			}
		}
	}
	if ends == 0 {
		t.Error("want ends, at least the last one's")
	}
}

// Series that come late and series that are retired, in health and through an outage: each has its own beginning, what it counted, and an end
// where it was retired.
func TestSeriesComeAndGo(t *testing.T) {
	for _, outage := range []bool{false, true} {
		t.Run(fmt.Sprint("outage ", outage), func(t *testing.T) {
			s := newStage(t, three(60, 60, 8)...)
			d := s.destination(export.Options{Step: 10 * time.Second, Positions: filepath.Join(t.TempDir(), "positions")})
			l := s.born("a")
			s.run(time.Minute)
			type series struct {
				name       string
				c          *writer.Counter
				born, gone time.Duration
				n          float64
			}
			var all []*series
			for i := range 40 {
				x := &series{name: fmt.Sprint("x", i), born: s.now}
				x.c = l.Counter(x.name)
				x.c.Add(uint64(100 + i))
				x.n = float64(100 + i)
				all = append(all, x)
				d.r.set(outage && i > 5 && i < 35)
				s.run(35 * time.Second)
				if i%3 == 0 {
					old := all[i/2]
					if old.gone == 0 {
						old.gone = s.now
						old.c.Retire()
					}
				}
				if i%10 == 9 {
					d.kill()
				}
			}
			d.r.set(false)
			s.run(20 * time.Minute)
			ends := 0
			for _, x := range all {
				keys := d.r.series(x.name)
				if len(keys) != 1 {
					t.Errorf("%s: want it sent, got %v", x.name, keys)
					continue
				}
				points := d.r.points[keys[0]]
				last := x.born
				for i, p := range points {
					if p.time <= last || !p.end && p.time-last > 21*time.Second {
						t.Errorf("%s: got %v after %v", x.name, p.time, last)
					}
					last = p.time
					if p.end {
						ends++
						if x.gone == 0 || p.time < x.gone || p.time > x.gone+21*time.Second {
							t.Errorf("%s: want its end behind %v, got it at %v", x.name, x.gone, p.time)
						}
						continue
					}
					if p.value != x.n || p.start/1e6*1e6 != x.born || p.born != (i == 0) {
						t.Errorf("%s at %v: want %v since %v, got %v since %v, born %v", x.name, p.time, x.n, x.born, p.value, p.start, p.born)
					}
				}
				if x.gone == 0 && s.now-last > 20*time.Second || x.gone > 0 && x.gone-last > 20*time.Second {
					t.Errorf("%s, retired at %v: the last point is at %v of %v", x.name, x.gone, last, s.now)
				}
			}
			if ends < 5 {
				t.Errorf("want ends of what was retired, got %d", ends)
			}
			d.check(l, 20*time.Second)
			d.lostNothing()
			t.Logf("%d ends", ends)
		})
	}
}

// What comes out of the archive is what would have come out of the rings, of every kind, to the bit.
func TestArchivedValues(t *testing.T) {
	s := newStage(t, three(60, 60, 8)...)
	dir := t.TempDir()
	a := s.destination(export.Options{Positions: filepath.Join(dir, "a")})
	b := s.destination(export.Options{Positions: filepath.Join(dir, "b")})
	a.r.texts, b.r.texts = true, true
	s.run(5 * time.Second)
	l := s.born("x")
	f, u, g, ig, never := l.FloatCounter("f"), l.UpDownCounter("u"), l.Gauge("g"), l.IntGauge("ig"), l.Gauge("never")
	h, ih, neg, rare := l.Histogram("fh", writer.Buckets(0.001, 10)), l.IntHistogram("ih", writer.Buckets(64, 1<<20)), l.Stat("neg"), l.Stat("rare")
	l.each = func(n int) {
		f.Add(float64(n) / 3)
		u.Add(int64(n%7 - 4))
		if n > 25 {
			g.Set(float64(n)/7 - 3)
			ig.Set(int64(n%5) - 1<<40)
		}
		h.Record(float64(n%300) / 17)
		ih.Record(uint64(n) * 1000)
		neg.Record(float64(n%11) - 5.5)
		if n%90 == 1 {
			rare.Record(1 / float64(n))
		}
	}
	_ = never
	s.run(3 * time.Minute)
	b.r.set(true)
	s.run(40 * time.Minute)
	b.r.set(false)
	s.run(20 * time.Minute)
	s.end(l)
	s.run(time.Minute)
	names, fromArchive := 0, 0
	for name, points := range a.r.points {
		names++
		others := map[time.Duration]point{}
		for _, p := range b.r.points[name] {
			others[p.time] = p
		}
		for _, p := range points {
			q, ok := others[p.time]
			p.request, q.request = 0, 0
			if !ok || fmt.Sprint(p) != fmt.Sprint(q) {
				t.Fatalf("%s at %v: want of both\n%+v\ngot\n%+v", name, p.time, p, q)
			}
			delete(others, p.time)
			if p.time > 4*time.Minute && p.time < 30*time.Minute {
				fromArchive++
			}
		}
		if len(others) > 0 {
			t.Errorf("%s: want no other points, got %v", name, others)
		}
	}
	if names != 11 || fromArchive < 1000 {
		t.Errorf("want all but one of 12 series, most of it out of the archive, got %d, %d points", names, fromArchive)
	}
	b.lostNothing()
}
