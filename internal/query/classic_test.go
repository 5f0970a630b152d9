package query_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// latencies is a process with a histogram of a few buckets, which counts some observations every 10 s.
func latencies(instance string, own ...string) *querytest.Segment {
	s := querytest.New(t0, from(instance), querytest.Scalars(), querytest.Histograms())
	_, v := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "lat", Unit: "s", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 0, Min: -1, Count: 3}, Labels: querytest.Pairs(own...)}})
	for i := int64(1); i <= 6; i++ {
		v.Zero++
		v.Buckets[0] += 2
		v.Buckets[2] += 3
		v.Above += 4
		v.Sum += 100
		s.Tick(t0 + i*10_000)
	}
	return s
}

func TestClassic(t *testing.T) {
	s := latencies("h:1", "path", "/")
	e := newEngine(t0+60_000, s)
	me := `instance="h:1", job="fwd"`
	want(t, "buckets", instant(t, e, "lat_seconds_bucket", t0+60_000), strings.ReplaceAll(`
{__name__="lat_seconds_bucket", ME, le="+Inf", path="/"} 60
{__name__="lat_seconds_bucket", ME, le="0.5", path="/"} 6
{__name__="lat_seconds_bucket", ME, le="1.0", path="/"} 18
{__name__="lat_seconds_bucket", ME, le="2.0", path="/"} 18
{__name__="lat_seconds_bucket", ME, le="4.0", path="/"} 36`, "ME", me))
	for q, wanted := range map[string]string{
		`lat_seconds_count`: `{__name__="lat_seconds_count", ME, path="/"} 60`,
		`lat_seconds_sum`:   `{__name__="lat_seconds_sum", ME, path="/"} 600`,
		`{__name__=~"lat_seconds_sum|lat_seconds_bucket", le=~"|4.0"}`:                     "{__name__=\"lat_seconds_bucket\", ME, le=\"4.0\", path=\"/\"} 36\n{__name__=\"lat_seconds_sum\", ME, path=\"/\"} 600",
		`lat_seconds_bucket{le="2.0"}`:                                                     `{__name__="lat_seconds_bucket", ME, le="2.0", path="/"} 18`,
		`lat_seconds_bucket{le="2"}`:                                                       ``,
		`lat_seconds_bucket{le=""}`:                                                        ``,
		`lat_seconds_bucket{path!="/"}`:                                                    ``,
		`lat_seconds_bucket{path="/", job="fwd", instance="h:2"}`:                          ``,
		`{__name__=~"lat_seconds_b.*"}`:                                                    ``,
		`{job="fwd", le!=""}`:                                                              ``,
		`count({job="fwd"})`:                                                               `{} 1`,
		`sum by (le) (increase(lat_seconds_bucket{le="1.0"}[1m] anchored))`:                `{le="1.0"} 18`,
		`increase(lat_seconds_count[1m] anchored)`:                                         `{ME, path="/"} 60`,
		`count_over_time(lat_seconds_count[1m])`:                                           `{ME, path="/"} 6`,
		`lat_seconds_bucket{le="+Inf"} - ignoring(le) lat_seconds_count`:                   `{ME, path="/"} 0`,
		`histogram_quantile(0.25, rate(lat_seconds_bucket[1m]))`:                           `{ME, path="/"} 0.875`,
		`max_over_time(lat_seconds_count[35s]) - min_over_time(lat_seconds_sum[35s]) / 10`: `{ME, path="/"} 30`,
	} {
		want(t, q, instant(t, e, q, t0+60_000), strings.ReplaceAll(wanted, "ME", me))
	}

	// In listings they are there when they are asked for by name.
	q, _ := e.Querier(t0, t0+60_000)
	for label, c := range map[string]struct{ match, want string }{
		"le":       {`lat_seconds_bucket`, "[+Inf 0.5 1.0 2.0 4.0]"},
		"le ":      {`{job="fwd"}`, "[]"},
		"__name__": {`{job="fwd"}`, "[lat_seconds]"},
		"path":     {`lat_seconds_count`, "[/]"},
	} {
		sets, err := e.Selectors([]string{c.match})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := q.LabelValues(t.Context(), strings.TrimSpace(label), nil, sets[0]...)
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s of %s: got %v, %v, want %s", label, c.match, got, err, c.want)
		}
	}
	set := q.Select(t.Context(), true, &storage.SelectHints{Start: t0, End: t0 + 60_000, Func: "series"}, labels.MustNewMatcher(labels.MatchEqual, "__name__", "lat_seconds_bucket"))
	n := 0
	for set.Next() {
		n++
	}
	if n != 5 || set.Err() != nil {
		t.Errorf("series: want 5, got %d, %v", n, set.Err())
	}
}

// A name that was recorded is what it is; a label le gives way, as anywhere where two meet.
func TestClassicNames(t *testing.T) {
	s := latencies("h:1", "le", "mine")
	querytest.Set(s.Gauge("lat_seconds_count"), 5)
	s.Tick(t0 + 61_000)
	e := newEngine(t0+61_000, s)
	want(t, "recorded", instant(t, e, "lat_seconds_count", t0+61_000), `{__name__="lat_seconds_count", instance="h:1", job="fwd"} 5`)
	want(t, "le", instant(t, e, `lat_seconds_bucket{le="1.0",exported_le="mine"}`, t0+61_000), `{__name__="lat_seconds_bucket", exported_le="mine", instance="h:1", job="fwd", le="1.0"} 18`)
	if query.MatchNames([]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "lat_seconds_bucket")})(s.Series()) != true {
		t.Error("want a source of the histogram to be one of its buckets")
	}

	// Its numbers count against the limit, however few the histogram is.
	small := query.New(query.Options{Sources: querytest.Segments{latencies("h:2")}, MaxSamples: 60, Now: func() time.Time { return time.UnixMilli(t0 + 60_000) }})
	pq, err := small.Instant(t.Context(), `count(rate(lat_seconds_bucket[1m]))`, time.UnixMilli(t0+60_000), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res := pq.Exec(t.Context()); res.Err == nil || !strings.Contains(res.Err.Error(), "too many samples") {
		t.Errorf("want too many samples, got %v", res)
	}
}

// What a dashboard of classic histograms shows is what the native ones say, to a bucket, of several real writers.
func TestClassicQuantiles(t *testing.T) {
	s := newStore(t, false)
	rnd := rand.New(rand.NewPCG(9, 9))
	var lat []*writer.Histogram
	var writers []*writer.Writer
	for i := range 3 {
		w := s.writer(writer.Options{Job: "fwd", Instance: fmt.Sprint("h:", i)})
		lat = append(lat, w.Histogram("latency_seconds"))
		writers = append(writers, w)
	}
	for range 60 {
		for i := range lat {
			for range 50 {
				lat[i].Record(math.Exp(rnd.NormFloat64()*1.5 - 4))
			}
		}
		s.now.Add(int64(time.Second))
		for _, w := range writers {
			w.Tick()
		}
	}
	s.poll()
	for _, q := range []string{"0.01", "0.1", "0.5", "0.9", "0.99"} {
		value := func(q string) float64 {
			var f float64
			if _, err := fmt.Sscanf(instant(t, s.engine, q, s.ms()), "{} %g", &f); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
			return f
		}
		native := value("histogram_quantile(" + q + ", sum(rate(latency_seconds[40s])))")
		classic := value("histogram_quantile(" + q + ", sum by (le) (rate(latency_seconds_bucket[40s])))")
		// Both are in one bucket; native ones interpolate in it exponentially, classic ones linearly.
		if r := classic / native; !(r > 1/1.1 && r < 1.1) {
			t.Errorf("quantile %s: classic %g, native %g", q, classic, native)
		}
	}
	want(t, "sum", instant(t, s.engine, "sum(latency_seconds_count) - sum(histogram_count(latency_seconds))", s.ms()), "{} 0")
	want(t, "sum", instant(t, s.engine, "sum(latency_seconds_sum) - sum(histogram_sum(latency_seconds))", s.ms()), "{} 0")
	want(t, "+Inf", instant(t, s.engine, `sum(latency_seconds_bucket{le="+Inf"})`, s.ms()), "{} 9000")
}
