// Package corpus is the samples that the archive and its peers are fed with, so that all of them hold the very same. Sets are drawn
// or recorded by bench/hostmix; the same set is the same in every program that asks for it.
package corpus

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/reader"
)

// Begin is the time of the first rows, unix ms.
const Begin = 1_750_000_000_000

// Set is the samples of many sources that have the same series.
type Set struct {
	Name  string
	What  string // for people
	Step  time.Duration
	Count int // sources
	Block int // rows that are written at a time
	// Cohort is how many sources are: 64, unless fewer end in one second.
	Cohort int
	// Source draws the i-th: the same each time.
	Source func(i int) *Source
}

// Source is one process's, or host's, samples.
type Source struct {
	Labels []reader.Pair // sorted
	Birth  int64         // unix ms
	Times  []int64       // of each row, unix ms
	Series []Series
}

// Series is one of a source's, with a value for each row.
type Series struct {
	Name    string
	Labels  []reader.Pair // sorted
	Counter bool
	Float   bool
	Values  []uint64 // integers, or the bits of f64s; of a histogram rows x (Buckets + 3): sum (bits of an f64), zero, buckets, above
	Present []bool   // nil: every row has a value
	Buckets int      // of a histogram of scale 3, the first of index -Buckets/2; 0: none is
}

// Samples is how many values a source has, or, of histograms, rows.
func (s *Source) Samples() (n int) {
	for i := range s.Series {
		if s.Series[i].Present == nil {
			n += len(s.Times)
			continue
		}
		for _, p := range s.Series[i].Present {
			if p {
				n++
			}
		}
	}
	return n
}

// The names of recordings in their directory: see bench/archive.
const (
	HostFile = "host.gz"
	DemoFile = "demo.gz"
)

// Rates of observations a second that histograms are drawn with.
var Rates = []float64{5, 50, 1000}

// Sets are all there are. recordings is the directory of those that were made on this machine; empty: without them.
func Sets(recordings string) ([]Set, error) {
	const hour = 3600
	host := func(name, what string, series []*hostmix.Series) Set {
		return Set{Name: name, What: what, Step: time.Second, Count: 1, Block: 60, Cohort: 1, Source: func(int) *Source { return replayed("host", series, hour) }}
	}
	sets := []Set{host("host", "a host's own metrics, as recorded in the repository", hostmix.Recorded())}
	if recordings != "" {
		for _, r := range []struct{ name, file, what string }{
			{"host_now", HostFile, "this host's own metrics, recorded just before"},
			{"demo", DemoFile, "the demo's UDP forwarder under load, recorded just before"},
		} {
			series, err := hostmix.Load(filepath.Join(recordings, r.file))
			if err != nil {
				return nil, err
			}
			sets = append(sets, host(r.name, r.what, series))
		}
	}
	sets = append(sets,
		Set{Name: "app", What: "an application mix, 1,000 sources of 100 series, 120 rows", Step: time.Second, Count: 1000, Block: 60, Cohort: 64,
			Source: func(i int) *Source { return app(i, 120, 0) }},
		Set{Name: "vms", What: "VMs that live for 45 s, 100 series of the application mix, 22 of them end a second", Step: time.Second, Count: 2000, Block: 45, Cohort: 22,
			Source: func(i int) *Source { return app(i, 45, int64(i/22)*1000) }})
	for _, rate := range Rates {
		sets = append(sets, Set{Name: fmt.Sprintf("histogram_%g", rate), What: fmt.Sprintf("histograms of 160 buckets, %g observations a second, rows of 10 s", rate),
			Step: 10 * time.Second, Count: 192, Block: 15, Cohort: 64, Source: func(i int) *Source { return histograms(i, rate) }})
	}
	return sets, nil
}

// times are a source's: a tick has a phase of its own, and comes some ms late.
func times(i, rows int, step, after int64) []int64 {
	t := make([]int64, rows)
	phase := int64(i*7919) % step
	for k := range t {
		t[k] = Begin + after + phase + int64(k)*step + int64((i*31+k*k*17)%4)
	}
	return t
}

func instance(job string, i int) []reader.Pair {
	return []reader.Pair{{Name: "instance", Value: fmt.Sprintf("%s-%06d", job, i)}, {Name: "job", Value: job}}
}

func app(i, rows int, after int64) *Source {
	s := &Source{Labels: instance("app", i), Birth: Begin + after - 1000, Times: times(i, rows, 1000, after)}
	for k, d := range hostmix.App(uint64(i)+1, 100, rows, 1) {
		series := Series{Labels: []reader.Pair{{Name: "queue", Value: fmt.Sprint(k % 8)}}, Float: d.Float, Values: d.Values, Present: d.Present}
		switch k % 10 {
		case 0, 1, 2, 3, 4:
			series.Name, series.Counter = fmt.Sprintf("app_requests_%02d_total", k), true
		case 5, 6:
			series.Name, series.Counter = fmt.Sprintf("app_request_%02d_seconds_total", k), true
		default:
			series.Name = fmt.Sprintf("app_level_%02d", k)
		}
		s.Series = append(s.Series, series)
	}
	return s
}

func histograms(i int, rate float64) *Source {
	const rows, buckets, each = 30, 160, 10
	s := &Source{Labels: instance("app", i), Birth: Begin - 3_600_000, Times: times(i, rows, 10_000, 0)}
	for k := range each {
		counts := hostmix.Histogram(uint64(i*each+k)+1, rows, buckets, 10, rate, 0.5)
		values := make([]uint64, 0, rows*(buckets+3))
		for row := range rows {
			c := counts[row*buckets : (row+1)*buckets]
			sum := 0.0
			for b, n := range c {
				sum += float64(n) * math.Exp2((float64(b)-buckets/2)/8) * (1 + float64(row*b%7)/1e4)
			}
			values = append(append(append(values, math.Float64bits(sum), 0), c...), 0)
		}
		s.Series = append(s.Series, Series{Name: fmt.Sprintf("app_latency_%d_seconds", k), Float: true, Values: values, Buckets: buckets})
	}
	return s
}

// replayed is a recording, again and again until there are so many rows: an hour holds labels and index in the proportion that a tier has
// them in. What never falls goes on from where it was.
func replayed(job string, recorded []*hostmix.Series, rows int) *Source {
	s := &Source{Labels: instance(job, 0), Birth: Begin - 3_600_000, Times: times(0, rows, 1000, 0)}
	names := map[string]int{}
	for _, r := range recorded {
		name, labels := named(job, r.Name)
		if n := names[name+fmt.Sprint(labels)]; n > 0 {
			labels = append(labels, reader.Pair{Name: "z", Value: fmt.Sprint(n)})
		}
		names[name+fmt.Sprint(labels)]++
		out := Series{Name: name, Labels: labels, Float: r.Float, Values: make([]uint64, rows)}
		shift := shiftOf(r)
		out.Counter = shift != nil
		if r.Present != nil {
			out.Present = make([]bool, rows)
		}
		for k := range out.Values {
			round, at := k/len(r.Values), k%len(r.Values)
			if out.Present != nil {
				if out.Present[k] = r.Present[at]; !out.Present[k] {
					continue
				}
			}
			out.Values[k] = r.Values[at]
			if shift != nil {
				out.Values[k] = shift(r.Values[at], uint64(round))
			}
		}
		s.Series = append(s.Series, out)
	}
	return s
}

// shiftOf is how a counter's values go on in a later round; nil for what is none: it fell, or can't be added to without another last digit.
func shiftOf(r *hostmix.Series) func(v, round uint64) uint64 {
	if r.Present != nil {
		return nil
	}
	if !r.Float {
		if !slices.IsSorted(r.Values) {
			return nil
		}
		d := r.Values[len(r.Values)-1] - r.Values[0]
		return func(v, round uint64) uint64 { return v + round*d }
	}
	hundredths := func(v uint64) float64 { return math.Round(math.Float64frombits(v) * 100) }
	last := math.Inf(-1)
	for _, v := range r.Values {
		h := hundredths(v)
		if math.Float64bits(h/100) != v || h < last {
			return nil
		}
		last = h
	}
	d := last - hundredths(r.Values[0])
	return func(v, round uint64) uint64 { return math.Float64bits((hundredths(v) + float64(round)*d) / 100) }
}

// named makes of a/b/c what an exporter would: a name with the kind and item, and labels of what is in between.
func named(job, path string) (string, []reader.Pair) {
	parts := strings.Split(path, "/")
	var labels []reader.Pair
	name := job + "_" + parts[0]
	if n := len(parts); n > 1 {
		name += "_" + parts[n-1]
		for i, p := range parts[1 : n-1] {
			labels = append(labels, reader.Pair{Name: []string{"device", "kind", "part"}[min(i, 2)], Value: p})
		}
	}
	clean := []byte(name)
	for i, c := range clean {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			clean[i] = '_'
		}
	}
	return string(clean), labels
}
