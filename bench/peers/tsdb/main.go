// Command tsdb writes the samples of bench/corpus into Prometheus's TSDB, and prints what that takes: size/SET/prometheus is
// a block compacted from the head, chunks and index, bytes a sample (of histograms, which it gets as native ones, a row);
// size/SET/prometheus_aligned the same with all times on the step, as Prometheus's own scrapes mostly are; and
// size/SET/prometheus_wal what it has written before, into its log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/shmts/shmts/bench/corpus"
)

func main() {
	recordings := flag.String("recordings", "", "`directory` of what bench/archive record has made; empty: none")
	flag.Parse()
	if err := run(*recordings); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(recordings string) error {
	sets, err := corpus.Sets(recordings)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shmts-tsdb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i := range sets {
		s := &sets[i]
		for _, aligned := range []bool{false, true} {
			t, err := fill(s, filepath.Join(dir, "db"), aligned)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			name := "size/" + s.Name + "/prometheus"
			if aligned {
				name += "_aligned"
			}
			fmt.Printf("%s\t%.6g\n", name, float64(t.block)/float64(t.samples))
			if !aligned {
				fmt.Printf("%s_wal\t%.6g\n", name, float64(t.wal)/float64(t.samples))
			}
		}
	}
	return nil
}

// taken is what a database takes, bytes.
type taken struct {
	block, wal int64
	samples    int
}

// fill makes a database of a set, compacts its head into a block, and looks whether all samples are in that.
func fill(s *corpus.Set, dir string, aligned bool) (t taken, err error) {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	db.DisableCompactions() // by themselves
	from, to := int64(math.MaxInt64), int64(0)
	for i := range s.Count {
		c := s.Source(i)
		if aligned {
			step := s.Step.Milliseconds()
			first := c.Times[0] - c.Times[0]%step
			for k := range c.Times {
				c.Times[k] = first + int64(k)*step
			}
		}
		if err := add(db, c); err != nil {
			return t, err
		}
		t.samples += c.Samples()
		from, to = min(from, c.Times[0]), max(to, c.Times[len(c.Times)-1])
	}
	if t.wal, err = size(filepath.Join(dir, "wal")); err != nil {
		return t, err
	}
	if err := db.CompactHead(tsdb.NewRangeHead(db.Head(), from, to)); err != nil {
		return t, err
	}
	found := uint64(0)
	for _, b := range db.Blocks() {
		found += b.Meta().Stats.NumSamples
		n, err := size(b.Dir())
		if err != nil {
			return t, err
		}
		t.block += n
	}
	if found != uint64(t.samples) {
		return t, fmt.Errorf("shmts: Prometheus's TSDB: want %d samples in its blocks, got %d", t.samples, found)
	}
	return t, spotCheck(db, s.Source(0))
}

// add appends a source's samples.
func add(db *tsdb.DB, c *corpus.Source) error {
	app := db.Appender(context.Background())
	for i := range c.Series {
		series := &c.Series[i]
		b := labels.NewScratchBuilder(8)
		b.Add(labels.MetricName, series.Name)
		for _, p := range c.Labels {
			b.Add(p.Name, p.Value)
		}
		for _, p := range series.Labels {
			b.Add(p.Name, p.Value)
		}
		b.Sort()
		ls, ref := b.Labels(), storage.SeriesRef(0)
		for row, at := range c.Times {
			if series.Present != nil && !series.Present[row] {
				continue
			}
			var err error
			if series.Buckets > 0 {
				ref, err = app.AppendHistogram(ref, ls, at, native(series, row), nil)
			} else {
				ref, err = app.Append(ref, ls, at, number(series, row))
			}
			if err != nil {
				return errors.Join(err, app.Rollback())
			}
		}
	}
	return app.Commit()
}

func number(s *corpus.Series, row int) float64 {
	switch v := s.Values[row]; {
	case s.Float:
		return math.Float64frombits(v)
	case s.Counter:
		return float64(v)
	default:
		return float64(int64(v))
	}
}

// native is a histogram's row as a native histogram: spans of the buckets that hold something.
func native(s *corpus.Series, row int) *histogram.Histogram {
	w := s.Values[row*(s.Buckets+3) : (row+1)*(s.Buckets+3)]
	h := &histogram.Histogram{Schema: 3, Sum: math.Float64frombits(w[0]), ZeroCount: w[1], ZeroThreshold: math.Exp2(-float64(s.Buckets) / 16), Count: w[1]}
	before, end := int64(0), int32(0) // end: behind the last span
	for i, n := range w[2 : 2+s.Buckets] {
		if n == 0 {
			continue
		}
		index := int32(i - s.Buckets/2 + 1) // Prometheus numbers a bucket by its upper bound
		switch {
		case len(h.PositiveSpans) == 0:
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: index, Length: 1})
		case index == end:
			h.PositiveSpans[len(h.PositiveSpans)-1].Length++
		default:
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: index - end, Length: 1})
		}
		end = index + 1
		h.Count += n
		h.PositiveBuckets = append(h.PositiveBuckets, int64(n)-before)
		before = int64(n)
	}
	return h
}

// spotCheck reads the last of a source's first series back.
func spotCheck(db *tsdb.DB, c *corpus.Source) error {
	series := &c.Series[0]
	last := len(c.Times) - 1
	q, err := db.Querier(0, math.MaxInt64)
	if err != nil {
		return err
	}
	defer q.Close()
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, series.Name)}
	for _, p := range append(c.Labels[:len(c.Labels):len(c.Labels)], series.Labels...) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, p.Name, p.Value))
	}
	set := q.Select(context.Background(), false, nil, matchers...)
	if !set.Next() {
		return fmt.Errorf("shmts: Prometheus's TSDB: want %s, got nothing (%v)", series.Name, set.Err())
	}
	n, value, count := 0, 0.0, uint64(0)
	it := set.At().Iterator(nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		n++
		if kind == chunkenc.ValFloat {
			_, value = it.At()
		} else {
			_, h := it.AtHistogram(nil)
			value, count = h.Sum, h.Count
		}
	}
	want, wantCount := 0.0, uint64(0)
	if series.Buckets > 0 {
		h := native(series, last)
		want, wantCount = h.Sum, h.Count
	} else {
		want = number(series, last)
	}
	if n != len(c.Times) || value != want || count != wantCount {
		return fmt.Errorf("shmts: Prometheus's TSDB: %s: want %d samples and %v (%d) last, got %d, %v (%d)", series.Name, len(c.Times), want, wantCount, n, value, count)
	}
	return it.Err()
}

// size is what the files below a directory hold.
func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
