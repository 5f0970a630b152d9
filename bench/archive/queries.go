package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// The hour that is asked: so many processes of 100 series at 1 s, of which every fifth changes, folded at 10 s as well; and one histogram of
// 160 buckets at 10 s in each of the first of them.
const (
	hourSources    = 1000
	hourSeries     = 100
	hourRows       = 3600
	hourHistograms = 100
	hourBuckets    = 160
	hourFlush      = 60
)

var hourTiers = []archive.TierOptions{{Step: time.Second, Budget: 512 << 20}, {Step: 10 * time.Second, Budget: 256 << 20}, {Step: 5 * time.Minute, Budget: 16 << 20}}

// queries asks PromQL of an archive alone, through the engine that the daemon has: with the files in the page cache, and without.
func queries(o options) error {
	dir := o.dir
	if dir == "" {
		var err error
		if dir, err = scratch(); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	a, err := archive.Open(archive.Options{Dir: dir, Tiers: hourTiers})
	if err != nil {
		return err
	}
	defer a.Close()
	if a.Tiers()[0].Blocks == 0 {
		if err := errors.Join(hour(a), hourOfHistograms(a), a.Sync()); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tier"))
	if err != nil {
		return err
	}
	end := time.UnixMilli(corpus.Begin + hourRows*1000)
	// 100 histograms of 160 buckets are 6 million numbers an hour, of which the default allows 5.
	engine := query.New(query.Options{MaxSamples: 20_000_000, Now: func() time.Time { return end }, Sources: history.New(history.Options{
		Living: func() []history.Living { return nil }, Left: func() int64 { return math.MaxInt64 }, Archive: a,
	})})
	for _, q := range hourQueries {
		for _, state := range []string{"first", "warm", "cold"} {
			rounds := q.rounds
			if state == "first" {
				rounds = 1 // who overlapped with whom is asked once, and kept
			}
			var took []time.Duration
			var used time.Duration
			for range rounds {
				if state == "cold" {
					if err := forget(files...); err != nil {
						return err
					}
				}
				begin, before := time.Now(), cpu()
				if err := ask(engine, q.query, end, q.step); err != nil {
					return err
				}
				took, used = append(took, time.Since(begin)), used+cpu()-before
			}
			p50, _ := middle(took)
			name := "query/" + q.name + "_" + state
			print(name+"_ms", p50)
			print(name+"_cpu_ms", used.Seconds()*1e3/float64(rounds))
		}
	}
	if o.prometheus {
		return nextToPrometheus(engine, end)
	}
	return nil
}

// hourQueries are those whose goals DESIGN.md has.
var hourQueries = []struct {
	name, query string
	step        time.Duration
	rounds      int
}{
	{"one", `metric_05_total{instance="vm-000077"}`, time.Second, 100},
	{"sum_1s", `sum(rate(metric_05_total[30s]))`, 15 * time.Second, 10}, // the tier of 1 s: its step is a fifth of the range at most
	{"sum_10s", `sum(rate(metric_05_total[1m]))`, 15 * time.Second, 10}, // that of 10 s
	{"quantile", `histogram_quantile(0.99, sum(rate(latency_seconds[1m])))`, 15 * time.Second, 10},
}

func ask(engine *query.Engine, text string, end time.Time, step time.Duration) error {
	ctx := context.Background()
	pq, err := engine.Range(ctx, text, end.Add(-time.Hour), end, step, query.QueryOptions{})
	if err != nil {
		return err
	}
	defer pq.Close()
	m, err := pq.Exec(ctx).Matrix()
	if err != nil {
		return err
	}
	if want := int(time.Hour/step) * 95 / 100; len(m) != 1 || len(m[0].Floats) < want {
		return fmt.Errorf("shmts: query: %s: want one series of %d points or more, got %d series", text, want, len(m))
	}
	return nil
}

// hourValue is what series f of process i is in a second, and hourTime when that row was.
func hourValue(i, f, second int) uint64 {
	return uint64(second*(f+3) + i*((second-1)%hourFlush)%(f+3)) // it never falls
}

func hourTime(i, second int) int64 {
	k := (second - 1) % hourFlush
	return corpus.Begin + int64(second)*1000 - int64((i*37+k*k)%4)
}

// hour appends the scalars of an hour, as they would be flushed: minute by minute, cohort by cohort.
func hour(a *archive.Archive) error {
	var series []*reader.Series
	for i := range hourSeries {
		series = append(series, &reader.Series{Definition: &reader.Definition{Name: fmt.Sprintf("metric_%02d", i), Kind: reader.Counter, Number: reader.U64, Labels: []reader.Pair{{Name: "dev", Value: fmt.Sprint(i % 4)}}}})
	}
	schema, err := archive.NewSchema(0, "scalars", series)
	if err != nil {
		return err
	}
	starts := make([]int64, hourSeries)
	for i := range starts {
		starts[i] = corpus.Begin
	}
	still := make([]uint64, hourFlush*10)
	for i := range still {
		still[i] = 7
	}
	var sources []*archive.Source
	for i := range hourSources {
		sources = append(sources, sourceOf(2, i, corpus.Begin, []reader.Pair{{Name: "instance", Value: fmt.Sprintf("vm-%06d", i)}, {Name: "job", Value: "vm"}}))
	}
	var folder fold.Folder
	for from := 0; from < hourRows; from += hourFlush * 10 { // what makes a block of folded rows
		for at := 0; at < hourSources; at += 64 {
			coarse := &archive.Block{Schema: schema, Step: hourTiers[1].Step, Folded: true}
			var blocks []*archive.Block
			for range 10 {
				blocks = append(blocks, &archive.Block{Schema: schema, Step: hourTiers[0].Step})
			}
			for i := at; i < min(at+64, hourSources); i++ {
				folder.Reset(series, hourTiers[1].Step, false, 0)
				for n, b := range blocks {
					r := archive.Rows{Source: sources[i], Starts: starts, Base: uint64(from + (n+1)*hourFlush)}
					first := from + n*hourFlush + 1
					for k := range hourFlush {
						r.Numbers = append(r.Numbers, uint64(first+k))
						r.Times = append(r.Times, hourTime(i, first+k))
					}
					for f := range series {
						cells := still[:hourFlush]
						if f%5 == 0 {
							cells = make([]uint64, hourFlush)
							for k := range cells {
								cells[k] = hourValue(i, f, first+k)
							}
						}
						r.Cells = append(r.Cells, cells)
					}
					folder.Add(&r)
					b.Sources = append(b.Sources, r)
				}
				of := blocks[len(blocks)-1].Sources[len(blocks[len(blocks)-1].Sources)-1]
				coarse.Sources = append(coarse.Sources, detached(folder.Flush(true), &of))
			}
			for _, b := range blocks {
				if err := a.Append(0, b); err != nil {
					return err
				}
			}
			if err := a.Append(1, coarse); err != nil {
				return err
			}
		}
	}
	return nil
}

// hourOfHistograms appends those: their home is the tier of 10 s.
func hourOfHistograms(a *archive.Archive) error {
	const rows, flush = hourRows / 10, 15
	schema, err := archive.NewSchema(1, "histograms", []*reader.Series{{Definition: &reader.Definition{Name: "latency", Unit: "s", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 3, Min: -hourBuckets / 2, Count: hourBuckets}}}})
	if err != nil {
		return err
	}
	var cells [][]uint64
	for i := range hourHistograms {
		cells = append(cells, histogramWords(i, rows))
	}
	for from := 0; from < rows; from += flush {
		for at := 0; at < hourHistograms; at += 64 {
			b := &archive.Block{Schema: schema, Step: hourTiers[1].Step}
			for i := at; i < min(at+64, hourHistograms); i++ {
				r := archive.Rows{Base: uint64(from + flush), Starts: []int64{corpus.Begin},
					Source: sourceOf(2, i, corpus.Begin, []reader.Pair{{Name: "instance", Value: fmt.Sprintf("vm-%06d", i)}, {Name: "job", Value: "vm"}})}
				for k := from + 1; k <= from+flush; k++ {
					r.Numbers = append(r.Numbers, uint64(k))
					r.Times = append(r.Times, corpus.Begin+int64(k)*10_000-int64(i%4))
				}
				r.Cells = [][]uint64{cells[i][from*(hourBuckets+3) : (from+flush)*(hourBuckets+3)]}
				b.Sources = append(b.Sources, r)
			}
			if err := a.Append(1, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// histogramWords are the rows of histogram i: sum, zero, buckets, above.
func histogramWords(i, rows int) (words []uint64) {
	counts := hostmix.Histogram(uint64(i)+1, rows, hourBuckets, 10, 50, 0.5)
	for row := range rows {
		sum := 0.0
		for b, n := range counts[row*hourBuckets : (row+1)*hourBuckets] {
			sum += float64(n) * math.Exp2((float64(b)-hourBuckets/2)/8)
		}
		words = append(append(append(words, math.Float64bits(sum), 0), counts[row*hourBuckets:(row+1)*hourBuckets]...), 0)
	}
	return words
}
