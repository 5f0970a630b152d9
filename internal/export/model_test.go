package export_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/testenv"
)

// Whatever happens: processes that come and go under a few names, a receiver that is away now and then, a daemon that is killed and goes on with
// an older state of its positions. Nothing is left out; what comes twice is what was sent after that state was written.
func TestModel(t *testing.T) {
	for seed := range uint64(testenv.Number(t, "SHMTS_EXPORT_SEEDS", 6, 2)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 5))
			s := newStage(t, three(80, 80, 8)...)
			s.phases = seed%2 == 1
			step := []time.Duration{10 * time.Second, 10 * time.Second, time.Minute, 5 * time.Second}[seed%4]
			d := s.destination(export.Options{Step: step, Interval: min(step, 10*time.Second), Positions: filepath.Join(t.TempDir(), "positions"), Delta: seed%3 == 2})
			d.r.batch = 5 + r.IntN(200)
			for i := range 40 {
				living := slices.DeleteFunc(slices.Clone(s.lives), func(l *life) bool { return l.closed })
				switch {
				case len(living) < 2 || len(living) < 8 && r.IntN(2) == 0:
					s.born(fmt.Sprint("i", i))
				case r.IntN(3) > 0:
					s.end(living[r.IntN(len(living))])
				}
				d.r.set(r.IntN(4) == 0)
				s.run(time.Duration(r.IntN(90)+1) * time.Second)
				if r.IntN(6) == 0 {
					d.r.set(true)
					s.run(time.Duration(r.IntN(30)) * time.Minute)
				}
				if r.IntN(4) == 0 {
					d.kill()
				}
			}
			d.r.set(false)
			s.run(25 * time.Minute)
			for _, l := range s.lives {
				s.endIfAlive(l)
			}
			s.run(2 * time.Minute)
			for _, l := range s.lives {
				d.check(l, 2*step+10*time.Second)
			}
			d.lostNothing()
			d.inOrder()
		})
	}
}

func (s *stage) endIfAlive(l *life) {
	if !l.closed {
		s.end(l)
	}
}

// inOrder: of processes under one name the earlier one's points come before the later one's.
func (d *destination) inOrder() {
	last := map[string]time.Duration{}
	for _, o := range d.r.order {
		f := strings.Fields(o)
		at, err := time.ParseDuration(f[len(f)-1])
		if err != nil {
			d.s.t.Fatal(err)
		}
		k := strings.Join(f[1:3], " ")
		if at < last[k] {
			d.s.t.Errorf("%s: want times to rise, got %v after %v", k, at, last[k])
			return
		}
		last[k] = at
	}
}

// A position that was lost repeats what came after it, and leaves nothing out: with a file that is cut anywhere.
func TestOlderPositions(t *testing.T) {
	s := newStage(t, three(30, 30, 4)...)
	d := s.destination(export.Options{Positions: filepath.Join(t.TempDir(), "positions")})
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 12 {
		vm := s.born(fmt.Sprint("vm", i))
		s.run(45 * time.Second)
		s.end(vm)
		s.run(time.Duration(r.IntN(20)) * time.Second)
		b, err := os.ReadFile(d.o.Positions)
		if err != nil {
			t.Fatal(err)
		}
		cut := max(64, len(b)-r.IntN(min(len(b), 400)))
		if i%3 == 0 && cut < len(b) {
			b[cut] ^= 1 << r.IntN(8)
			cut = len(b)
		}
		if err := os.WriteFile(d.o.Positions, b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		d.kill()
	}
	s.run(5 * time.Minute)
	d.lostNothing()
	for name, points := range d.r.points {
		// What came twice is the same.
		byTime := map[time.Duration]point{}
		for _, p := range points {
			p.request, p.born, p.min, p.max = 0, false, 0, 0
			if was, ok := byTime[p.time]; ok && was != p {
				t.Errorf("%s at %v: want the same again, got %+v and %+v", name, p.time, was, p)
			}
			byTime[p.time] = p
		}
		var once []point
		for _, p := range points {
			if q, ok := byTime[p.time]; ok {
				q.born = len(once) == 0
				_ = q
				once = append(once, p)
				delete(byTime, p.time)
			}
		}
		d.r.points[name] = once
	}
	for _, l := range s.lives {
		for _, name := range []string{"c", "h"} {
			var points []point
			for _, k := range d.r.series(name) {
				if strings.Fields(k)[1] == l.instance {
					points = d.r.points[k]
				}
			}
			last := l.born
			for i, p := range points {
				if p.time-last > 20*time.Second || p.time < last {
					t.Errorf("%s %s: want nothing left out, got %v after %v", l.instance, name, p.time, last)
				}
				last = p.time
				if i == len(points)-1 && (!p.end || p.time != l.died+time.Millisecond) {
					t.Errorf("%s %s: want its end at %v, got %v, end %v", l.instance, name, l.died, p.time, p.end)
				}
			}
			if len(points) == 0 {
				t.Errorf("%s %s: want points", l.instance, name)
			}
		}
	}
}
