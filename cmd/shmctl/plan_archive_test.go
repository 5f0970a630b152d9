package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// A replay is processes that record a real host's metrics under the test's clock, and their archive.
type replay struct {
	t     *testing.T
	dir   string // of the archive
	store string
	now   int64 // unix ns
	r     *source.Register
	a     *archive.Archive
	by    *archiver.Archiver
	hosts []*replayed
	made  int
}

// newReplay makes a store and an archive whose tiers have so many extents, wired as shmtsd does.
func newReplay(t *testing.T, extent int, extents []int64) *replay {
	t.Helper()
	p := &replay{t: t, dir: filepath.Join(t.TempDir(), "archive"), store: newStore(t), now: birth}
	now := func() time.Time { return time.Unix(0, p.now) }
	o := archive.Options{Dir: p.dir, ExtentSize: extent, Now: now}
	for i, n := range extents {
		o.Tiers = append(o.Tiers, archive.TierOptions{Step: []time.Duration{time.Second, 10 * time.Second}[i], Budget: 4096 + n*int64(extent)})
	}
	var err error
	if p.a, err = archive.Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.a.Close() })
	if p.r, err = source.Open(source.Options{Store: reader.Options{Dir: p.store, Rescan: time.Nanosecond}, Now: now, DeadTTL: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.r.Close() })
	sweeper := archiver.NewSweeper(archiver.SweepOptions{Archive: p.a, Ephemeral: true})
	p.by = archiver.New(archiver.Options{Archive: sweeper, Now: now, Missing: sweeper.Missing, Swept: sweeper.Sweep}, func() (all []archiver.Segment) {
		for _, s := range p.r.Segments() {
			all = append(all, s)
		}
		return all
	})
	sweeper.Through(p.by.Writer(), p.by.Live)
	p.r.Hold("archive", func(s *source.Segment) bool { return p.by.Finished(s) })
	return p
}

// replayed is one process.
type replayed struct {
	w      *writer.Writer
	series []*hostmix.Series
	set    []func(row int)
	row    int // of the recording
	ends   int64
}

// start begins a process that records some of the host's series, from a row on.
func (p *replay) start(series []*hostmix.Series, row int, life time.Duration) {
	p.t.Helper()
	p.made++
	w, err := writer.Open(writer.Options{Job: "host", Instance: fmt.Sprintf("host-%06d.example.com", p.made), Dir: p.store, NoTicker: true, Series: len(series),
		HeapBytes: 100 * len(series), Clock: func() (int64, int64) { return p.now, p.now - birth + 1e12 },
		Tables: []writer.Table{{Name: "scalars", Gauges: len(series), Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 40}}}}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { w.Close() })
	h := &replayed{w: w, series: series, row: row, ends: math.MaxInt64}
	if life > 0 {
		h.ends = p.now + int64(life)
	}
	for _, s := range series {
		n := len(s.Values)
		if s.Float {
			g, rises := w.Gauge(s.Name), rising(s, func(v uint64) float64 { return math.Float64frombits(v) })
			h.set = append(h.set, func(row int) {
				v := math.Float64frombits(s.Values[row%n])
				if rises > 0 && row >= n { // the recording is played again, and the counter goes on
					v = math.Round(100*(v+float64(row/n)*rises)) / 100
				}
				g.Set(v)
			})
			continue
		}
		g, rises := w.IntGauge(s.Name), rising(s, func(v uint64) float64 { return float64(int64(v)) })
		h.set = append(h.set, func(row int) { g.Set(int64(s.Values[row%n]) + int64(row/n)*int64(rises)) })
	}
	p.hosts = append(p.hosts, h)
}

// rising is by how much a counter rises in a recording; 0 of what falls at times.
func rising(s *hostmix.Series, number func(uint64) float64) float64 {
	if s.Present != nil || !slices.IsSortedFunc(s.Values, func(a, b uint64) int {
		switch {
		case number(a) < number(b):
			return -1
		case number(a) > number(b):
			return 1
		}
		return 0
	}) {
		return 0
	}
	return number(s.Values[len(s.Values)-1]) - number(s.Values[0])
}

// second lets one pass.
func (p *replay) second() {
	p.t.Helper()
	p.now += 1e9
	kept := p.hosts[:0]
	for _, h := range p.hosts {
		for i, s := range h.series {
			if at := h.row % len(s.Values); s.Present == nil || s.Present[at] {
				h.set[i](h.row)
			}
		}
		h.row++
		if p.now >= h.ends {
			h.w.Close()
			continue
		}
		h.w.Tick()
		kept = append(kept, h)
	}
	p.hosts = kept
	if err := p.r.Poll(); err != nil {
		p.t.Fatal(err)
	}
	p.by.Poll()
	if err := p.by.Stopped(); err != nil {
		p.t.Fatal(err)
	}
}

// The claim: of real data, what a part of an archive took says when the rest will be evicted, within 10 %. The
// recording is a real host's; it goes through writers, segments, the archiver and an archive on disk.
func TestPlanComesTrue(t *testing.T) {
	host := hostmix.Recorded()
	var some []*hostmix.Series
	for i := 0; i < len(host); i += 10 {
		some = append(some, host[i])
	}
	for _, c := range []struct {
		name    string
		extent  int
		extents []int64 // of each tier; the last one is looked at
		second  func(p *replay, n int)
	}{
		{"hosts", 128 << 10, []int64{8}, func(p *replay, n int) {
			for n == 0 && len(p.hosts) < 4 {
				p.start(host, 70*len(p.hosts), 0)
			}
		}},
		// Rows are folded in pieces of 300 s: an extent is to hold some of those, as one of 16 MiB does.
		{"folded", 128 << 10, []int64{32, 6}, func(p *replay, n int) {
			for n == 0 && len(p.hosts) < 4 {
				p.start(some, 70*len(p.hosts), 0)
			}
		}},
		{"folded, and lives of 45 s", 512 << 10, []int64{32, 6}, func(p *replay, n int) {
			if n == 0 {
				p.start(some, 0, 0)
			}
			if n%3 == 0 {
				p.start(some, n, 45*time.Second)
			}
		}},
		{"hosts, and lives of 45 s", 128 << 10, []int64{8}, func(p *replay, n int) {
			if n == 0 {
				p.start(host, 0, 0)
			}
			if n%3 == 0 {
				p.start(some, n, 45*time.Second)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, at := newReplay(t, c.extent, c.extents), len(c.extents)-1
			var planned *planArchiveTierJSON
			var reached []float64 // how far back the tier reached, just after an extent was reused
			evicted := uint64(0)
			for n := 0; len(reached) < 6; n++ {
				if n > 40_000 {
					t.Fatalf("want extents reused, got %+v", p.a.Tiers()[at])
				}
				c.second(p, n)
				p.second()
				tier := p.a.Tiers()[at]
				if planned == nil && tier.Used == int(c.extents[at])/2+1 { // a part: half of it
					plan := decode[planJSON](shmctl(t, "", "plan", "--from-archive", p.dir, "--json").ok())
					planned = &plan.Archive.Tiers[at]
					ls := decode[archiveLsJSON](shmctl(t, "", "archive", "ls", p.dir, "--json").ok())
					t.Logf("after %d s: %d sources, %.3f B a sample, %.0f B/s; at least %.0f s, at most %.0f", n, ls.Tiers[at].Sources, ls.Tiers[at].BytesPerSample, planned.BytesPerSecond, planned.RetentionSeconds, planned.LongestSeconds)
					back := decode[planJSON](shmctl(t, "", "plan", "--from-archive", p.dir, "--json", "--retention", fmt.Sprintf("%s=%ds", stepText(tier.Step), int(planned.RetentionSeconds))).ok())
					if got := back.Archive.Tiers[0].BudgetBytes; got != tier.Size {
						t.Errorf("the budget for what a budget gives: want %d, got %d", tier.Size, got)
					}
				}
				if tier.Evicted > evicted {
					evicted = tier.Evicted
					reached = append(reached, float64(tier.Newest-tier.Oldest)/1000)
				}
			}
			t.Logf("reached back %.0f s", reached)
			mean := 0.0
			for _, s := range reached {
				mean += s / float64(len(reached))
			}
			off := mean/planned.RetentionSeconds - 1
			t.Logf("planned %.0f s from a part, reached %.0f s: %+.1f %%", planned.RetentionSeconds, mean, 100*off)
			if math.Abs(off) > 0.1 {
				t.Errorf("want what was planned within 10 %%, got %+.1f %%", 100*off)
			}
		})
	}
}

func TestPlanArchive(t *testing.T) {
	plan := func(args ...string) *planArchiveJSON {
		t.Helper()
		return decode[planJSON](shmctl(t, "", append([]string{"plan", "--json", "--lanes", "4"}, args...)...).ok()).Archive
	}
	if plan() != nil {
		t.Error("want no archive where none was asked for")
	}
	p := plan("--archive", "--segments", "1000")
	if len(p.Tiers) != 3 || p.TotalBytes != 1<<30 || p.Tiers[0].SamplesPerSecond != 90_000 || p.PowerLoss != 155 || p.Tiers[0].LagSeconds != 60 {
		t.Errorf("want three tiers of 1 GiB, 90,000 scalars a second, and a loss of half a ring of histograms and a sync, got %+v", p)
	}
	for i := 1; i < 3; i++ {
		if p.Tiers[i].RetentionSeconds <= p.Tiers[i-1].RetentionSeconds {
			t.Errorf("want coarser tiers to reach further back, got %+v", p.Tiers)
		}
	}
	long := plan("--archive", "--archive-budget", "1s=1GiB", "--segments", "1000")
	if r := long.Tiers[0].RetentionSeconds / p.Tiers[0].RetentionSeconds; r < 1.9 || r > 2.2 {
		t.Errorf("want twice as much of twice the budget, got %v", r)
	}
	still := plan("--archive", "--segments", "1000", "--constant", "90")
	if still.Tiers[0].BytesPerSample > p.Tiers[0].BytesPerSample/2 {
		t.Errorf("want constant series to cost less, got %v and %v", still.Tiers[0].BytesPerSample, p.Tiers[0].BytesPerSample)
	}
	vms := plan("--retention", "1s=1d,5m=1y", "--processes", "0", "--churn", "3600")
	own := plan("--retention", "1s=1d,5m=1y", "--processes", "0", "--churn", "3600", "--no-ephemeral")
	if vms.Tiers[0].BytesPerLife < 1000 || !vms.Tiers[1].Ephemeral || own.Tiers[1].Ephemeral || own.Tiers[1].BudgetBytes < 10*vms.Tiers[1].BudgetBytes || vms.Tiers[1].RetentionSeconds < 365*86400 {
		t.Errorf("want lives summed up in the coarse tier to take much less, got %+v and %+v", vms.Tiers, own.Tiers)
	}
	given := plan("--archive", "--segments", "1000", "--bytes-per-sample", "0.5", "--bytes-per-sample", "5m=2")
	if !given.BytesAreGiven || given.Tiers[0].BytesPerSecond != 45_000 || given.Tiers[2].BytesPerSample != 2 {
		t.Errorf("want bytes a sample as given, got %+v", given)
	}
	shmctl(t, "", "plan", "--archive", "--lanes", "4").ok().contains("REACHES BACK", "A loss of power costs at most the last 2m35s", "assumed: 50 %")
	shmctl(t, "", "plan", "--retention", "1s=1d", "--histograms", "5", "--counters", "0", "--gauges", "1").ok()
	shmctl(t, "", "plan", "--from-archive", newArchive(t), "--archive-budget", "5m=1GiB").fails(exitFailed, "want tiers that it has, of 1s, 10s, got 5m")
	shmctl(t, "", "plan", "--from-archive", newArchive(t), "--archive-budget", "10s=1GiB").fails(exitFailed, "want rows of at least 1m40s, got 30s")
	shmctl(t, "", "plan", "--from-archive", t.TempDir()).fails(exitFailed, "want files named")
}
