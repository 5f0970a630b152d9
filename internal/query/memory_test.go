package query_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// wide is a process of so many gauges, counters and a histogram, with rows of two minutes.
func wide(gauges int) *querytest.Segment {
	const start = 1_700_000_000_000
	s := querytest.New(start, querytest.Pairs("job", "wide", "instance", "1"), querytest.Scalars(), querytest.Histograms())
	for i := range gauges {
		querytest.Set(s.Gauge("g", "i", fmt.Sprintf("value-%04d", i)), float64(i))
	}
	_, h := s.Register(start, reader.Series{Definition: &reader.Definition{Table: 1, Name: "h", Kind: reader.Histogram, Buckets: reader.BucketRange{Scale: 3, Min: -40, Count: 160}}})
	for t := int64(start); t <= start+120_000; t += 1000 {
		h.Buckets[t/1000%160]++
		s.Tick(t)
	}
	return s
}

const wideEnd = 1_700_000_120_000

func ask(e *query.Engine, q string, span time.Duration) (*promql.Result, func(), error) {
	end := time.UnixMilli(wideEnd)
	var p promql.Query
	var err error
	if span == 0 {
		p, err = e.Instant(context.Background(), q, end, query.QueryOptions{})
	} else {
		p, err = e.Range(context.Background(), q, end.Add(-span), end, time.Second, query.QueryOptions{})
	}
	if err != nil {
		return nil, nil, err
	}
	res := p.Exec(context.Background())
	return res, p.Close, res.Err
}

// A query that would hold more than it may ends with an error that says so, and gives everything back.
func TestMemoryLimit(t *testing.T) {
	segments := querytest.Segments{wide(500)}
	for _, q := range []string{"g", "sum(g)", "rate(h[1m])", "sum_over_time(g[1m])", "g + g", "h", "label_replace(g, 'a', '$1', 'i', '(.*)')"} {
		all := query.NewMemory(0, "all queries", nil)
		least := int64(1)
		for _, limit := range []int64{1 << 10, 16 << 10, 64 << 10, 1 << 20, 1 << 30} {
			e := query.New(query.Options{Sources: segments, Now: func() time.Time { return time.UnixMilli(wideEnd) }, MaxMemory: limit, Memory: all})
			res, done, err := ask(e, q, 100*time.Second)
			var over *query.MemoryError
			switch {
			case err == nil && done != nil:
				if used := all.Used(); used > limit || used < 16 {
					t.Errorf("%s within %d: want its result counted, got %d", q, limit, used)
				}
				if res.Value == nil {
					t.Errorf("%s: no value", q)
				}
			case errors.As(err, &over):
				if over.Shared || over.Limit != limit || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
					t.Errorf("%s: want an error with the limit %d, got %v", q, limit, err)
				}
				least = limit
			default:
				t.Errorf("%s within %d: %v", q, limit, err)
			}
			if done != nil {
				done()
			}
			if used := all.Used(); used != 0 {
				t.Errorf("%s within %d: want everything given back, got %d", q, limit, used)
			}
		}
		if least < 1<<10 || least >= 1<<30 {
			t.Errorf("%s: want it refused within little and answered within much, got the limit between %d and more", q, least)
		}
	}
}

// What all of a tenant hold together is limited as well; who asks for little is answered all the same.
func TestMemoryOfAll(t *testing.T) {
	all := query.NewMemory(2<<20, "all queries of a tenant", nil)
	e := query.New(query.Options{Sources: querytest.Segments{wide(500)}, Now: func() time.Time { return time.UnixMilli(wideEnd) }, MaxMemory: 3 << 20, Memory: all})
	_, held, err := ask(e, "g", 100*time.Second) // a result of 0.9 MB
	if err != nil {
		t.Fatal(err)
	}
	_, more, err := ask(e, "g", 100*time.Second)
	var over *query.MemoryError
	if !errors.As(err, &over) || !over.Shared {
		t.Fatalf("want an error of what all hold, got %v", err)
	}
	more()
	if res, done, err := ask(e, `g{i="value-0001"}`, 0); err != nil || len(res.Value.(promql.Vector)) != 1 {
		t.Errorf("who asks for little: got %v", err)
	} else {
		done()
	}
	held()
	if used := all.Used(); used != 0 {
		t.Errorf("want everything given back, got %d", used)
	}
	_, done, err := ask(e, "g", 100*time.Second)
	if err != nil {
		t.Errorf("when there is room again: %v", err)
	} else {
		done()
	}
}

// The estimate is what the heap really takes, within a factor, and not less.
func TestMemoryHonest(t *testing.T) {
	segments := querytest.Segments{wide(2000)}
	for _, q := range []string{"g", "g > 1000", "rate(h[30s])"} {
		all := query.NewMemory(0, "all queries", nil)
		e := query.New(query.Options{Sources: segments, Now: func() time.Time { return time.UnixMilli(wideEnd) }, MaxMemory: 1 << 30, Memory: all})
		if _, done, err := ask(e, q, 100*time.Second); err != nil { // once before, for what is kept
			t.Fatal(err)
		} else {
			done()
		}
		heap := func() int64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		res, done, err := ask(e, q, 100*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		took, said := heap()-before, all.Used()
		runtime.KeepAlive(res)
		done()
		t.Logf("%s: a result of %d bytes, counted as %d (%.2f)", q, took, said, float64(said)/float64(took))
		if said < took*8/10 || said > 4*took+64<<10 {
			t.Errorf("%s: want a result of %d bytes counted as about that, got %d", q, took, said)
		}
	}
}
