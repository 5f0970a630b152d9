package writer

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/shmts/shmts/layout"
)

// Version of the writer, as it stands in a segment's superblock.
const Version = "shmts-go 1.0.0-rc"

// MinRows is how short MaxBytes may make a ring. A ring that was asked for shorter stays as it is.
const MinRows = 8

// The defaults that the zero Options stand for.
const (
	DefaultSeries     = 100 // of which a tenth histograms and a tenth stats
	DefaultBuckets    = 80  // of a histogram: three decades at scale 3
	DefaultOwnedLanes = 2
	MaxProcLanes      = 16 // private lanes for Ps: min(GOMAXPROCS, 16)
	histogramLanes    = 4  // the same for the table "histograms", whose lanes are wide
	sampledLanes      = 4  // the same for a sampled segment: lanes are most of its weight
	sampledHistLanes  = 2
	heapPerSeries     = 128
)

// Options of Open and Plan. The zero value is a good one: 100 series of the executable's name in 512 kB.
type Options struct {
	// Job and Instance name the source across restarts. Default: the executable's
	// base name, and hostname:pid. They are the labels job and instance.
	Job, Instance string
	Labels        map[string]string // further labels that every series carries
	Attributes    map[string]string // OpenTelemetry resource attributes; no labels

	// Dir is the store. Default: $SHMTS_DIR, else /dev/shm/shmts. Only that last one
	// is created where it is missing. FORMAT.md 2.
	Dir  string
	Mode os.FileMode // of the file: 0444 (default) or 0440

	// Tables replaces the two default ones: "scalars", 1 s x 120 and 10 s x 60, and
	// "histograms", 10 s x 30. A series goes to the table that InTable names; a histogram
	// else to the one called "histograms"; everything else to the first.
	Tables []Table

	// For the default tables: how many series there is room for, and how many of them
	// are histograms and stats. 0: 100, and a tenth of Series each. Negative: none.
	Series, Histograms, Stats int
	Buckets                   int // room for so many in a histogram, on the average; 0: 80

	Descriptors int // of series; 0: those of all tables and a quarter more, for names that come and go
	HeapBytes   int // for names, units, help and labels; 0: 128 a descriptor
	OwnedLanes  int // for Writer.Lane; 0: 2, negative: none
	Exemplars   int // slots of 64 bytes for the newest exemplars, at most 4,096, rounded up to a power of two; 0: 64, negative: none

	// MaxBytes is the most that one segment may take: rings are shortened, all in
	// proportion, to fit, but never below MinRows rows. 0: no budget.
	MaxBytes int
	// MaxSegments is how many segments a writer that runs out of room may grow to: 1 to 4. 0: 4.
	MaxSegments int

	// NoTicker leaves ticking to the caller: see Writer.Tick.
	NoTicker bool
	// Sampled makes a segment that never ticks: FORMAT.md 10.8. Its tables have no tiers, whatever Tables says, so that
	// 100 series take some 56 kB, a histogram of 80 buckets 664 bytes a lane of it; a daemon samples the values, and
	// without one nobody keeps a history. A stat has no
	// min and max, and a series that was retired gives its room to no other. By default there are at most 4 lanes for Ps, for the table
	// "histograms" 2, and no owned ones.
	Sampled bool
	// Clock answers unix and monotonic time in ns. nil: CLOCK_REALTIME and CLOCK_MONOTONIC.
	// It is called by Open, by ticks and at registration, never by a record call.
	Clock func() (unix, mono int64)
	// NewID answers a segment's random id. nil: crypto/rand. For images that are the same each time.
	NewID func() [16]byte
}

// Table is the shape of one table: FORMAT.md 4.3.
type Table struct {
	Name  string // at most 16 bytes
	Tiers []Tier // 1 to 4, each step a multiple of the one before; with Options.Sampled they go for nothing

	// Room, in series. Scalars are counters, up-down counters or gauges, whichever come.
	Scalars, Counters, Gauges, Stats, Histograms int
	Buckets                                      int // of a histogram; 0: 80

	// Lanes for Ps. 0: min(GOMAXPROCS, 16), for the table "histograms" at most 4; see also Options.Sampled. A P beyond
	// records into the overflow lane, with atomic instructions.
	Lanes int
}

// Tier is a ring of so many rows at a step of 100 ms to 1 h.
type Tier struct {
	Step time.Duration
	Rows int
}

func orDefault(n, def int) int {
	switch {
	case n == 0:
		return def
	case n < 0:
		return 0
	}
	return n
}

func (o *Options) withDefaults() Options {
	d := *o
	if d.Job == "" {
		d.Job = "unknown"
		if exe, err := os.Executable(); err == nil {
			d.Job = filepath.Base(exe)
		}
	}
	if d.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		d.Instance = host + ":" + strconv.Itoa(os.Getpid())
	}
	if d.Mode == 0 {
		d.Mode = 0o444
	}
	procLanes, histLanes, owned := MaxProcLanes, histogramLanes, DefaultOwnedLanes
	if d.Sampled {
		procLanes, histLanes, owned = sampledLanes, sampledHistLanes, 0
	}
	d.OwnedLanes = orDefault(d.OwnedLanes, owned)
	if d.Exemplars = orDefault(d.Exemplars, DefaultExemplars); d.Exemplars > 0 && d.Exemplars <= layout.MaxExemplars {
		d.Exemplars = max(1<<bits.Len(uint(d.Exemplars-1)), layout.MinExemplars)
	}
	if d.MaxSegments == 0 {
		d.MaxSegments = layout.MaxGroup
	}
	if len(d.Tables) == 0 {
		series := orDefault(d.Series, DefaultSeries)
		histograms := orDefault(d.Histograms, series/10)
		stats := orDefault(d.Stats, series/10)
		d.Tables = []Table{{Name: "scalars", Scalars: max(series-histograms-stats, 0), Stats: stats,
			Tiers: []Tier{{time.Second, 120}, {10 * time.Second, 60}}}}
		if histograms > 0 {
			d.Tables = append(d.Tables, Table{Name: "histograms", Histograms: histograms, Buckets: d.Buckets,
				Tiers: []Tier{{10 * time.Second, 30}}})
		}
	} else {
		d.Tables = slices.Clone(d.Tables)
	}
	for i := range d.Tables {
		t := &d.Tables[i]
		t.Buckets = orDefault(t.Buckets, DefaultBuckets)
		if t.Lanes == 0 {
			t.Lanes = min(runtime.GOMAXPROCS(0), procLanes)
			if t.Name == "histograms" {
				t.Lanes = min(t.Lanes, histLanes)
			}
		}
		if d.Sampled {
			t.Tiers = nil
		}
	}
	return d
}

// check finds what layout.NewHeader can't know.
func (o *Options) check() error {
	if o.Mode != 0o444 && o.Mode != 0o440 {
		return fmt.Errorf("shmts: mode: want 0444 or 0440, got %#o", o.Mode)
	}
	if o.MaxSegments < 1 || o.MaxSegments > layout.MaxGroup {
		return fmt.Errorf("shmts: segments: want 1 to %d, got %d", layout.MaxGroup, o.MaxSegments)
	}
	if o.Exemplars > layout.MaxExemplars {
		return fmt.Errorf("shmts: exemplars: want at most %d, got %d", layout.MaxExemplars, o.Exemplars)
	}
	for i, t := range o.Tables {
		if t.Name == "" || slices.ContainsFunc(o.Tables[:i], func(u Table) bool { return u.Name == t.Name }) {
			return fmt.Errorf("shmts: table %d: want a name of its own, got %q", i, t.Name)
		}
		for _, n := range []int{t.Scalars, t.Counters, t.Gauges, t.Stats, t.Histograms, t.Lanes} {
			if n < 0 || n > layout.MaxCells {
				return fmt.Errorf("shmts: table %s: want counts of 0 to %d, got %d", t.Name, layout.MaxCells, n)
			}
		}
		if t.Buckets > layout.MaxBuckets {
			return fmt.Errorf("shmts: table %s: want at most %d buckets, got %d", t.Name, layout.MaxBuckets, t.Buckets)
		}
	}
	return nil
}

// schema is what the defaulted options ask of layout.
func (o *Options) schema() (layout.Schema, error) {
	if err := o.check(); err != nil {
		return layout.Schema{}, err
	}
	s := layout.Schema{Sampled: o.Sampled, Exemplars: o.Exemplars, Labels: []layout.Pair{{Name: "job", Value: o.Job}, {Name: "instance", Value: o.Instance}}}
	for k, v := range o.Labels {
		if k == "job" || k == "instance" {
			return s, fmt.Errorf("shmts: label %q: want it in Options.Job or .Instance, got it in Options.Labels", k)
		}
		s.Labels = append(s.Labels, layout.Pair{Name: k, Value: v})
	}
	for k, v := range o.Attributes {
		s.Attributes = append(s.Attributes, layout.Pair{Name: k, Value: v})
	}
	for _, t := range o.Tables {
		ts := layout.TableSchema{Name: t.Name, Lanes: t.Lanes + o.OwnedLanes}
		ts.Add(t.Scalars+t.Counters, layout.Counter, 0)
		ts.Add(t.Gauges, layout.Gauge, 0)
		ts.Add(t.Stats, layout.Stat, 0)
		ts.Add(t.Histograms, layout.Histogram, t.Buckets)
		ts.SharedCells += t.Scalars // whichever come
		ts.LaneCells = max(ts.LaneCells, 1)
		for _, tier := range t.Tiers {
			ts.Tiers = append(ts.Tiers, layout.TierSchema{Step: tier.Step, Rows: tier.Rows})
		}
		s.Tables = append(s.Tables, ts)
		s.Series += ts.Series
	}
	s.Series += s.Series / 4
	if o.Descriptors > 0 {
		s.Series = o.Descriptors
	}
	s.HeapBytes = o.HeapBytes
	if s.HeapBytes == 0 {
		s.HeapBytes = s.Series * heapPerSeries
	}
	return s, nil
}

// Plan lays out what Open would give birth to, and creates nothing. TotalSize
// of the header is the file's size, to the byte; ids and times are zero. The
// lanes, unless given, are those of this machine's GOMAXPROCS. An error names
// the first maximum that the options are over, or the least that MaxBytes would have to be.
func Plan(o Options) (*layout.Header, error) {
	d := o.withDefaults()
	return d.plan()
}

func (o *Options) plan() (*layout.Header, error) {
	s, err := o.schema()
	if err != nil {
		return nil, err
	}
	h, err := layout.NewHeader(s)
	if o.MaxBytes <= 0 || err != nil || h.TotalSize <= uint64(o.MaxBytes) {
		return h, err
	}
	// Shorten every ring to the same share of what was asked for, in 1/1024ths.
	shortened := func(share int) (*layout.Header, error) {
		t := s
		t.Tables = slices.Clone(s.Tables)
		for i := range t.Tables {
			t.Tables[i].Tiers = slices.Clone(t.Tables[i].Tiers)
			for j := range t.Tables[i].Tiers {
				tier := &t.Tables[i].Tiers[j]
				tier.Rows = max(tier.Rows*share/1024, min(tier.Rows, MinRows))
			}
		}
		return layout.NewHeader(t)
	}
	least, err := shortened(0)
	if err != nil {
		return nil, err
	}
	if least.TotalSize > uint64(o.MaxBytes) {
		return nil, fmt.Errorf("shmts: MaxBytes: want at least %d for these tables with %d rows a tier, got %d",
			least.TotalSize, MinRows, o.MaxBytes)
	}
	fits, over := 0, 1024
	for over-fits > 1 {
		share := (fits + over) / 2
		if h, err = shortened(share); err != nil {
			return nil, err
		}
		if h.TotalSize <= uint64(o.MaxBytes) {
			fits = share
		} else {
			over = share
		}
	}
	return shortened(fits)
}

// stem is the hint for people in a segment's name. FORMAT.md 2.
func stem(job string) string {
	if len(job) > 64 {
		job = job[:64]
	}
	b := []byte(job)
	for i, c := range b {
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			b[i] = '_'
		}
	}
	if len(b) == 0 {
		return "segment"
	}
	return string(b)
}
