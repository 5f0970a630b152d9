package forecast

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

var testSteps = []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute}

func scalars(n int) Table {
	return Table{Step: time.Second, Rows: 120, Counters: n * 6 / 10, Gauges: n * 2 / 10, Stats: n / 10}
}

func histograms(n int) Table {
	return Table{Step: 10 * time.Second, Rows: 30, Histograms: n, Buckets: 80}
}

// fill fills extents of an archive on disk with what a load's streams say, block by block with values drawn anew, and answers
// how long one of them took.
func fill(t *testing.T, l *Load, i int, budget int64) time.Duration {
	t.Helper()
	a, err := archive.Open(archive.Options{Dir: t.TempDir(), Tiers: []archive.TierOptions{{Step: testSteps[i], Budget: budget}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	m, err := newMeter(l, testSteps[i])
	if err != nil {
		t.Fatal(err)
	}
	type source struct {
		s       *stream
		schema  *archive.Schema
		blocks  []*archive.Block // of those that live on
		n       int
		next    float64
		between float64
	}
	var all []*source
	for _, s := range l.streams(testSteps, i) {
		schema, err := s.table.schema(s.number)
		if err != nil {
			t.Fatal(err)
		}
		x := &source{s: s, schema: schema, between: float64(s.sources) / s.perSecond}
		for range int(s.living) / s.sources {
			x.blocks = append(x.blocks, m.block(s, schema, []drawn{l.draw(s, schema, 0)}))
		}
		all = append(all, x)
	}
	seed := uint64(1000)
	for {
		x := all[0]
		for _, y := range all {
			if y.next < x.next {
				x = y
			}
		}
		rows := make([]drawn, 3)
		for k := range rows {
			seed++
			rows[k] = l.draw(x.s, x.schema, seed)
		}
		b := m.block(x.s, x.schema, rows)
		if len(x.blocks) > 0 { // the same sources as the last time
			for k := range b.Sources {
				b.Sources[k].Source = x.blocks[x.n%len(x.blocks)].Sources[k].Source
			}
		}
		x.n++
		if err := put(a, b); err != nil {
			t.Fatal(err)
		}
		if g := a.End(0).Generation; x.n > 3 && g >= 9 && x.n*len(b.Sources) > 1000 {
			return time.Duration(x.next / float64(g-1) * 1e9)
		}
		x.next += x.between
	}
}

// put appends a block, in halves where it is too large.
func put(a *archive.Archive, b *archive.Block) error {
	err := a.Append(0, b)
	if n := len(b.Sources); errors.Is(err, archive.ErrTooLarge) && n > 1 {
		one, two := *b, *b
		one.Sources, two.Sources = b.Sources[:n/2], b.Sources[n/2:]
		return errors.Join(put(a, &one), put(a, &two))
	}
	return err
}

// What is forecast comes true of an archive on disk.
func TestForecast(t *testing.T) {
	base := Load{Job: "forwarder", Instance: "host.example.com:1234567", Rate: 1}
	for _, c := range []struct {
		name   string
		tier   int
		budget int64
		change func(*Load)
	}{
		{"ten processes", 0, 8 << 20, func(l *Load) { l.Processes, l.Tables = 10, []Table{scalars(100), histograms(10)} }},
		{"constant", 0, 4 << 20, func(l *Load) { l.Processes, l.Tables, l.Constant = 10, []Table{scalars(100)}, 0.9 }},
		{"cohorts", 0, 32 << 20, func(l *Load) { l.Processes, l.Tables = 100, []Table{scalars(40)} }},
		{"blocks larger than extents", 0, 2 << 20, func(l *Load) { l.Processes, l.Tables = 100, []Table{scalars(100)} }},
		{"churn", 0, 16 << 20, func(l *Load) {
			l.Churn, l.Life, l.Tables = 7200, 45*time.Second, []Table{scalars(100)}
		}},
		{"churn beside others", 0, 16 << 20, func(l *Load) {
			l.Processes, l.Churn, l.Life, l.Tables = 20, 3600, 90*time.Second, []Table{scalars(50)}
		}},
		{"folded", 1, 16 << 20, func(l *Load) { l.Processes, l.Tables = 64, []Table{scalars(100), histograms(5)} }},
		{"folded churn", 1, 16 << 20, func(l *Load) {
			l.Churn, l.Life, l.Tables = 3600, 45*time.Second, []Table{scalars(100)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := base
			c.change(&l)
			want, err := l.Of(testSteps, c.tier, c.budget)
			if err != nil {
				t.Fatal(err)
			}
			got := fill(t, &l, c.tier, c.budget)
			off := want.Fill.Seconds()/got.Seconds() - 1
			t.Logf("an extent of %d KiB: forecast %.0f s, took %.0f s: %+.1f %%; %.3f B a sample, %.0f B a source, %.0f B a life", want.ExtentSize>>10, want.Fill.Seconds(), got.Seconds(), 100*off, want.BytesSample, want.BytesSource, want.BytesLife)
			if math.Abs(off) > 0.1 {
				t.Errorf("want %v to fill an extent, as forecast, to 10 %%; got %v", want.Fill, got)
			}
		})
	}
}

// The budget that a retention needs gives that retention, and a MiB and an extent less does not.
func TestFor(t *testing.T) {
	l := Load{Job: "j", Instance: "i0000000", Rate: 10, Processes: 50, Constant: 0.5, Tables: []Table{scalars(100), histograms(10)}, Churn: 100, Life: 45 * time.Second, Ephemeral: true}
	for i := range testSteps {
		for _, want := range []time.Duration{time.Hour, 400 * 24 * time.Hour} {
			t.Run(fmt.Sprint(testSteps[i], want), func(t *testing.T) {
				f, err := l.For(testSteps, i, want)
				if err != nil {
					t.Fatal(err)
				}
				again, err := l.Of(testSteps, i, f.Budget)
				if err != nil || again.Least != f.Least || again.ExtentSize != f.ExtentSize {
					t.Errorf("want the same from its budget, got %+v and %+v, %v", f, again, err)
				}
				if f.Least < want {
					t.Errorf("want %v at least, got %v of %d MiB", want, f.Least, f.Budget>>20)
				}
				if f.Budget > 17*f.ExtentSize+1<<20 && f.Least-f.Fill-f.Fill*time.Duration(1<<20/f.ExtentSize) > want {
					t.Errorf("want no more than it takes, got %v of %d MiB for %v", f.Least, f.Budget>>20, want)
				}
			})
		}
	}
}

func TestFixed(t *testing.T) {
	l := Load{Job: "j", Instance: "i", Rate: 1, Processes: 1000, Tables: []Table{scalars(100)}}
	f, err := l.Fixed(testSteps, 0, 0.5, 512<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := 90_000.0; f.SamplesSecond != want || f.BytesSecond != want/2 {
		t.Errorf("want %v samples a second of 0.5 bytes, got %+v", want, f)
	}
	g, err := l.Fixed(testSteps, 0, 0.5, 0, f.Least)
	if err != nil || g.Least < f.Least || g.Budget > f.Budget+2<<20 {
		t.Errorf("want about 512 MiB for %v, got %+v, %v", f.Least, g, err)
	}
}

func TestIdle(t *testing.T) {
	l := Load{Job: "j", Instance: "i", Rate: 1, Processes: 1, Tables: []Table{histograms(1)}}
	if _, err := l.Of(testSteps, 0, 1<<20); !errors.Is(err, ErrIdle) {
		t.Errorf("want a tier of 1 s without rows of a table of 10 s, got %v", err)
	}
	for _, bad := range []Load{{}, {Processes: 1}, {Processes: 1, Rate: 1, Constant: 2}, {Churn: 5, Rate: 1}, {Processes: -1, Rate: 1}} {
		if bad.Check() == nil {
			t.Errorf("want an error of %+v, got none", bad)
		}
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}
