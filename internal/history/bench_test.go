package history_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// hour is an archive of an hour of 1,000 processes with 20 series each at 1 s, and what is folded of it at 10 s, made once.
var hour = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shmts-history-")
	if err != nil {
		return "", err
	}
	a, err := archive.Open(hourOptions(dir))
	if err != nil {
		return dir, err
	}
	defer a.Close()
	var series []*reader.Series
	for i := range 20 {
		series = append(series, &reader.Series{Definition: &reader.Definition{Name: fmt.Sprintf("metric_%d", i), Kind: reader.Counter, Number: reader.U64, Labels: querytest.Pairs("dev", fmt.Sprint(i%4))}})
	}
	schema, err := archive.NewSchema(0, "scalars", series)
	if err != nil {
		return dir, err
	}
	var sources []*archive.Source
	for i := range 1000 {
		sources = append(sources, &archive.Source{Key: archive.Key{Segment: sha256Of(i)}, Group: sha256Of(i), Birth: t0 * 1e6, Inode: uint64(i), UID: 1000,
			Labels: querytest.Pairs("job", "vm", "instance", fmt.Sprint("vm-", i))})
	}
	starts := make([]int64, len(series))
	for i := range starts {
		starts[i] = t0
	}
	const seconds, flush = 3600, 60
	for tier, step := range []int{1, 10} {
		for from := 0; from < seconds; from += flush * step {
			for at := 0; at < len(sources); at += 64 {
				b := &archive.Block{Schema: schema, Step: steps[tier], Folded: tier > 0}
				for i := at; i < min(at+64, len(sources)); i++ {
					r := archive.Rows{Source: sources[i], Starts: starts, Base: uint64(from + flush*step)}
					for k := 1; k <= flush; k++ {
						sec := from + k*step
						ms := t0 + int64(sec)*1000 + int64((i*37+k*k)%5)
						r.Times = append(r.Times, ms)
						if tier > 0 {
							r.Numbers, r.Coverage = append(r.Numbers, uint64((ms+9999)/10_000)), append(r.Coverage, 10)
						} else {
							r.Numbers = append(r.Numbers, uint64(sec))
						}
					}
					for f := range series {
						cells := make([]uint64, flush)
						for k := range cells {
							if sec := uint64(from + (k+1)*step); f%5 != 0 {
								cells[k] = 7
							} else {
								cells[k] = sec*uint64(f+3) + uint64(i*k%11)
							}
						}
						r.Cells = append(r.Cells, cells)
					}
					b.Sources = append(b.Sources, r)
				}
				if err := a.Append(tier, b); err != nil {
					return dir, err
				}
			}
		}
	}
	return dir, a.Sync()
})

func hourOptions(dir string) archive.Options {
	return archive.Options{Dir: dir, Tiers: []archive.TierOptions{{Step: time.Second, Budget: 256 << 20}, {Step: 10 * time.Second, Budget: 64 << 20}, {Step: 5 * time.Minute, Budget: 16 << 20}}}
}

func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// child are what this program is when the environment says so: a writer's process, to be killed.
var child = map[string]func(){}

const childEnv = "SHMTS_HISTORY_CHILD"

func TestMain(m *testing.M) {
	if f := child[os.Getenv(childEnv)]; f != nil {
		f()
		return
	}
	code := m.Run()
	if made {
		if dir, _ := hour(); dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

var made bool

// forget drops the files' clean pages from the page cache.
func forget(b *testing.B, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// BenchmarkHour asks an hour of 1,000 archived processes, with the pages of the files in memory (warm) and not (cold).
func BenchmarkHour(b *testing.B) {
	made = true
	dir, err := hour()
	if err != nil {
		b.Fatal(err)
	}
	a, err := archive.Open(hourOptions(dir))
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	end := time.UnixMilli(t0 + 3_600_000)
	fresh := func() *query.Engine {
		return query.New(query.Options{Now: func() time.Time { return end }, Sources: history.New(history.Options{
			Living: func() []history.Living { return nil }, Left: func() int64 { return math.MaxInt64 }, Archive: a,
		})})
	}
	engine := fresh()
	b.Run("the first query, of whose 1,000 lives all cross its edges", func(b *testing.B) {
		var used time.Duration
		for b.Loop() {
			before := cpu()
			pq, err := fresh().Instant(b.Context(), "count(last_over_time(metric_5_total[10s]))", end.Add(-30*time.Minute), query.QueryOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if v, err := pq.Exec(b.Context()).Vector(); err != nil || len(v) != 1 || v[0].F != 1000 {
				b.Fatalf("want 1,000 lives, got %.300v, %v", v, err)
			}
			pq.Close()
			used += cpu() - before
		}
		b.ReportMetric(used.Seconds()*1e3/float64(b.N), "cpu-ms/op")
	})
	for _, q := range []struct {
		query string
		step  time.Duration
	}{
		{`metric_5_total{instance="vm-77"}`, time.Second},
		{`rate(metric_5_total{instance="vm-77"}[1m])`, 15 * time.Second},
		{`sum(rate(metric_5_total[1m]))`, 15 * time.Second},
		{`sum(rate(metric_5_total[30s]))`, 15 * time.Second},
		{`sum(metric_5_total)`, 15 * time.Second},
		{`sum(metric_5_total)`, 20 * time.Second},
	} {
		// Who overlapped with whom is asked once, and kept.
		if pq, err := engine.Range(b.Context(), q.query, end.Add(-time.Hour), end, q.step, query.QueryOptions{}); err == nil {
			pq.Exec(b.Context())
			pq.Close()
		}
		for _, cold := range []bool{false, true} {
			name := fmt.Sprintf("%s by %v/warm", q.query, q.step)
			if cold {
				name = fmt.Sprintf("%s by %v/cold", q.query, q.step)
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				var used time.Duration // on a busy machine it says more than the clock
				for b.Loop() {
					if cold {
						b.StopTimer()
						forget(b, dir)
						b.StartTimer()
					}
					before := cpu()
					pq, err := engine.Range(b.Context(), q.query, end.Add(-time.Hour), end, q.step, query.QueryOptions{})
					if err != nil {
						b.Fatal(err)
					}
					res := pq.Exec(b.Context())
					if m, err := res.Matrix(); err != nil || len(m) != 1 || len(m[0].Floats) < 150 || len(res.Warnings.AsErrors()) > 2 {
						b.Fatalf("%.300v", res)
					}
					pq.Close()
					used += cpu() - before
				}
				b.ReportMetric(used.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			})
		}
	}
}
