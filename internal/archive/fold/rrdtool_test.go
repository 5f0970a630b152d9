package fold

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// What follows feeds rrdtool with the samples that a writer recorded, and holds its round robin archives against folded rows, bucket by
// bucket. docs/consolidation.md says the same in words.

func rrdtool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("rrdtool", args...)
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	if err := cmd.Run(); err != nil {
		t.Fatalf("rrdtool %.80s: %v: %s", strings.Join(args, " "), err, fault.String())
	}
	return out.String()
}

// sample is what was recorded at a tick, as rrdtool is told.
type sample struct {
	ms      int64
	g, n, c string // U: unknown
}

const rrdStart = int64(1_700_000_100) // a multiple of 5 m

// rrd makes a round robin database of samples: gauges g and n and a counter c, a step of 1 s, xff 0.5, 10 s and 5 m.
func rrd(t *testing.T, heartbeat int, samples []sample) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "x.rrd")
	args := []string{"create", file, "--start", fmt.Sprint(rrdStart), "--step", "1", fmt.Sprintf("DS:g:GAUGE:%d:U:U", heartbeat), fmt.Sprintf("DS:n:GAUGE:%d:U:U", heartbeat), fmt.Sprintf("DS:c:COUNTER:%d:U:U", heartbeat)}
	for _, steps := range []int{10, 300} {
		for _, cf := range []string{"AVERAGE", "MIN", "MAX", "LAST"} {
			args = append(args, fmt.Sprintf("RRA:%s:0.5:%d:1000", cf, steps))
		}
	}
	rrdtool(t, args...)
	for len(samples) > 0 {
		n := min(len(samples), 1000)
		args := []string{"update", file}
		for _, s := range samples[:n] {
			args = append(args, fmt.Sprintf("%d.%03d:%s:%s:%s", s.ms/1000, s.ms%1000, s.g, s.n, s.c))
		}
		rrdtool(t, args...)
		samples = samples[n:]
	}
	return file
}

// fetch is what a database says of (from, to] at a step: by data source, by the number of the window.
func fetch(t *testing.T, file, cf string, step, from, to int64) map[string]map[uint64]float64 {
	t.Helper()
	lines := strings.Split(rrdtool(t, "fetch", file, cf, "-r", fmt.Sprint(step), "-s", fmt.Sprint(from), "-e", fmt.Sprint(to-step)), "\n")
	names := strings.Fields(lines[0])
	out := map[string]map[uint64]float64{}
	for _, n := range names {
		out[n] = map[uint64]float64{}
	}
	for _, line := range lines[1:] {
		at, values, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		sec, err := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range strings.Fields(values) {
			v, err := strconv.ParseFloat(text, 64)
			if text == "-nan" {
				v, err = math.NaN(), nil
			}
			if err != nil {
				t.Fatal(err)
			}
			out[names[i]][Number(sec*1000, step*1000)] = v
		}
	}
	return out
}

// agrees compares to what rrdtool prints: 11 digits.
func agrees(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-10*max(math.Abs(a), math.Abs(b))
}

// recorded runs a writer with a clock of the test's for so many seconds, and answers its samples and the rows of its segment.
func recorded(t *testing.T, seconds int, late int64, tick func(second int) (g, n float64, set, row bool)) (samples []sample, series []*reader.Series, rows archive.Rows) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-fold-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const mono = int64(1e12)
	now := rrdStart * 1e9
	w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: dir, NoTicker: true, NewID: func() [16]byte { return [16]byte{15: 1} },
		Clock:  func() (int64, int64) { return now, now - rrdStart*1e9 + mono },
		Tables: []writer.Table{{Name: "t", Scalars: 4, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: seconds + 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g, n, c := w.Gauge("g"), w.Gauge("n"), w.Counter("c")
	total := uint64(0)
	text := func(v float64, is bool) string {
		if !is || math.IsNaN(v) {
			return "U"
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	for k := range seconds {
		now = (rrdStart+int64(k+1))*1e9 + late*1e6
		gv, nv, set, row := tick(k)
		if set {
			g.Set(gv)
			n.Set(nv)
		}
		c.Add(uint64(k % 17))
		total += uint64(k % 17)
		s := sample{now / 1e6, "U", "U", "U"}
		if row {
			w.Tick()
			s = sample{now / 1e6, text(gv, set), text(nv, set), fmt.Sprint(total)}
		}
		samples = append(samples, s)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one segment, got %v, %v", files, err)
	}
	seg, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	series = seg.Series()
	rows.Cells, rows.Present = make([][]uint64, len(series)), make([][]bool, len(series))
	for r := range seg.Rows(0, 0, 1) {
		rows.Numbers, rows.Times, rows.Base = append(rows.Numbers, r.No), append(rows.Times, r.Time/1e6), r.No
		for i, s := range series {
			words, ok := r.Words(s)
			is := ok && (s.Kind != reader.Gauge || words[0] != s.Number.Unset())
			if !is {
				words = []uint64{0}
			}
			rows.Cells[i], rows.Present[i] = append(rows.Cells[i], words[0]), append(rows.Present[i], is)
		}
	}
	return samples, series, rows
}

// bucket is a folded row's gauge.
type bucket struct {
	last, min, max, sum float64 // NaN where absent
	count, coverage     uint64
	total               uint64 // the counter
	ms                  int64
}

// buckets folds to 10 s, and that to 5 m: name of a gauge, number of a window.
func buckets(series []*reader.Series, rows archive.Rows) [2]map[string]map[uint64]bucket {
	var out [2]map[string]map[uint64]bucket
	var f Folder
	for i, step := range []time.Duration{10 * time.Second, 5 * time.Minute} {
		f = Folder{}
		f.Reset(series, step, i > 0, 0)
		f.Add(&rows)
		rows = f.Flush(true)
		out[i] = map[string]map[uint64]bucket{"g": {}, "n": {}}
		at := map[string]int{}
		n := 0
		for _, s := range series {
			at[s.Name] = n
			n += len(archive.Fields(s.Kind, true))
		}
		for k, no := range rows.Numbers {
			for name, m := range out[i] {
				v := func(field int) float64 {
					if f := at[name] + field; rows.Present == nil || rows.Present[f] == nil || rows.Present[f][k] {
						return math.Float64frombits(rows.Cells[f][k])
					}
					return math.NaN()
				}
				b := bucket{last: v(0), min: v(1), max: v(2), sum: v(3), coverage: rows.Coverage[k], total: rows.Cells[at["c"]][k], ms: rows.Times[k]}
				if c := v(4); c == c {
					b.count = math.Float64bits(c)
				}
				m[no] = b
			}
		}
	}
	return out
}

func needsRRDtool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("rrdtool"); err != nil {
		t.Skip("no rrdtool (Debian's package rrdtool: tools/needs installs it)")
	}
}

// Samples on step boundaries, with seconds that were not recorded told to rrdtool as unknown: AVERAGE, MIN, MAX and LAST with xff 0.5 are sum/count,
// min, max and last of rows of which the count is at least half of what the steps say; but rrdtool's LAST is unknown where a window's last second is,
// and last is the newest that there was. Counters: rates are the same where all is known;
// where something is missing, rrdtool's rates lose what the rows' totals still have.
func TestRRDtoolAligned(t *testing.T) {
	needsRRDtool(t)
	const seconds = 4200
	rng := rand.New(rand.NewPCG(1, 2))
	missing, unset := 0, 40
	samples, series, rows := recorded(t, seconds, 0, func(k int) (g, n float64, set, row bool) {
		switch { // gaps of some seconds, and one of 400
		case missing > 0:
			missing--
		case k == 2000:
			missing = 400
		case rng.IntN(12) == 0:
			missing = 1 + rng.IntN(9)
		}
		g = float64(rng.IntN(1<<16)-1<<15) / 16
		n = g
		if rng.IntN(30) == 0 {
			n = math.NaN()
		}
		return g, n, k >= unset, missing == 0
	})
	file := rrd(t, 1, samples)
	const end = rrdStart + seconds
	ours := buckets(series, rows)
	known, unknown, partial, lastLost := 0, 0, 0, 0
	for i, step := range []int64{10, 300} {
		avg, low, high, last := fetch(t, file, "AVERAGE", step, rrdStart, end), fetch(t, file, "MIN", step, rrdStart, end), fetch(t, file, "MAX", step, rrdStart, end), fetch(t, file, "LAST", step, rrdStart, end)
		if got, want := len(avg["g"]), int(seconds/step); got != want {
			t.Fatalf("step %d: want %d buckets of rrdtool's, got %d", step, want, got)
		}
		rrdTotal := 0.0
		for no, a := range avg["g"] {
			b, ok := ours[i]["g"][no]
			if known := ok && 2*b.count >= uint64(step); known == math.IsNaN(a) {
				t.Fatalf("step %d, window %d: want known %v as of %d values, got %v of rrdtool", step, no, known, b.count, a)
			}
			if ok && 2*b.count < uint64(step) {
				partial++ // rrdtool says nothing here: rows say what there was, and of how much
			}
			if math.IsNaN(a) {
				unknown++
				continue
			}
			known++
			newest := b.last
			if uint64(b.ms) != no*uint64(step)*1000 { // rrdtool knows no last value where the window's last second is unknown
				newest = math.NaN()
				lastLost++
			}
			if mean := b.sum / float64(b.count); !agrees(mean, a) || !agrees(b.min, low["g"][no]) || !agrees(b.max, high["g"][no]) || !agrees(newest, last["g"][no]) {
				t.Errorf("step %d, window %d: want average, min, max, last %v, %v, %v, %v, got %+v", step, no, a, low["g"][no], high["g"][no], last["g"][no], b)
			}
			if r := avg["c"][no]; r == r {
				rrdTotal += r * float64(step)
				before, ok := ours[i]["g"][no-1]
				if ok && b.coverage == uint64(step) && b.ms-before.ms == step*1000 {
					if rate := float64(b.total-before.total) / float64(step); !agrees(rate, r) {
						t.Errorf("step %d, window %d: want a rate of %v, got %v", step, no, r, rate)
					}
				}
			}
		}
		total := 0
		for k := range seconds {
			total += k % 17
		}
		newest := bucket{}
		for _, b := range ours[i]["g"] {
			if b.ms > newest.ms {
				newest = b
			}
		}
		behind := 0 // seconds behind the last row
		for k := seconds - 1; samples[k].c == "U"; k-- {
			behind += k % 17
		}
		if newest.total != uint64(total-behind) {
			t.Errorf("step %d: want a total of %d, got %d", step, total-behind, newest.total)
		}
		if rrdTotal >= 0.97*float64(total) {
			t.Errorf("step %d: want rrdtool to lose what gaps hide of %d, got %v", step, total, rrdTotal)
		}
		t.Logf("step %d s: %d of %d seconds recorded; a counter rose by %d: rows say %d, rrdtool's rates add up to %.0f", step, len(rows.Times), seconds, total, newest.total, rrdTotal)
		// NaN is a value here, and unknown there: least and greatest agree, an average with one in it is NaN, last may be.
		for no, a := range avg["n"] {
			b, ok := ours[i]["n"][no]
			if !ok || math.IsNaN(a) {
				continue
			}
			if !agrees(b.min, low["n"][no]) || !agrees(b.max, high["n"][no]) {
				t.Errorf("step %d, window %d of n: want min, max %v, %v, got %+v", step, no, low["n"][no], high["n"][no], b)
			}
			if mean := b.sum / float64(b.count); mean == mean && !agrees(mean, a) {
				t.Errorf("step %d, window %d of n: want an average of %v or NaN, got %v", step, no, a, mean)
			}
			if b.last == b.last && uint64(b.ms) == no*uint64(step)*1000 && !agrees(b.last, last["n"][no]) {
				t.Errorf("step %d, window %d of n: want last %v or NaN, got %v", step, no, last["n"][no], b.last)
			}
		}
	}
	if known < 200 || unknown < 30 || partial < 20 || lastLost < 20 {
		t.Errorf("want many of each, got %d known, %d of them without rrdtool's LAST, %d unknown to rrdtool, of which %d are partial rows", known, lastLost, unknown, partial)
	}
}

// Samples between step boundaries: rrdtool spreads each over the time since the one before and cuts that at full seconds, so a sample counts
// in two buckets in part, and extremes are those of mixtures. Rows count in the window that they lie in, whole, and keep what was recorded.
func TestRRDtoolUnaligned(t *testing.T) {
	needsRRDtool(t)
	const seconds, late = 1300, 370 // ms
	rng := rand.New(rand.NewPCG(3, 4))
	var values []float64
	samples, series, rows := recorded(t, seconds, late, func(k int) (g, n float64, set, row bool) {
		g = float64(rng.IntN(1000))
		values = append(values, g)
		return g, g, true, true
	})
	file := rrd(t, 2, samples)
	ours := buckets(series, rows)[0]["g"]
	end := rrdStart + seconds
	avg, high := fetch(t, file, "AVERAGE", 10, rrdStart, end)["g"], fetch(t, file, "MAX", 10, rrdStart, end)["g"]
	// Sample k was taken late ms after second k+1. Second s, which ends at start + s, is made of sample s-2 for late ms, then of sample s-1.
	second := func(s int) float64 { return (late*values[s-2] + (1000-late)*values[s-1]) / 1000 }
	checked, flatter := 0, 0
	for no, a := range avg {
		first := int(int64(no)*10-rrdStart) - 9 // second
		if first < 12 || first+9 >= seconds {
			continue
		}
		sum, most := 0.0, math.Inf(-1)
		for s := first; s < first+10; s++ {
			sum, most = sum+second(s), max(most, second(s))
		}
		if math.Abs(sum/10-a) > 0.002 || math.Abs(most-high[no]) > 0.002 { // its times are good to a microsecond or two, of values up to 1000
			t.Fatalf("window %d: want rrdtool to spread samples, average %v, max %v, got %v, %v", no, sum/10, most, a, high[no])
		}
		plain, top := 0.0, math.Inf(-1)
		for s := first; s < first+10; s++ { // those at s + 0.37 - 1 that lie in (first - 1, first + 9]
			plain, top = plain+values[s-2], max(top, values[s-2])
		}
		b := ours[no]
		if b.count != 10 || b.sum != plain || b.max != top {
			t.Errorf("window %d: want the ten samples in it, sum %v, max %v, got %+v", no, plain, top, b)
		}
		// What differs is the two ends: each by a part of one sample in ten.
		if d := math.Abs(b.sum/10 - a); d > 1000.0/10 {
			t.Errorf("window %d: want averages that differ by less than a tenth of a sample, got %v and %v", no, b.sum/10, a)
		}
		if high[no] < b.max {
			flatter++
		}
		checked++
	}
	if checked < 100 || flatter < checked*9/10 {
		t.Errorf("want rrdtool's peaks flatter in nearly all of 100 windows or more, got %d of %d", flatter, checked)
	}
	t.Logf("unaligned: in %d of %d windows rrdtool's MAX is below the greatest sample", flatter, checked)
}
