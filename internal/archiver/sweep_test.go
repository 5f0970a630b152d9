package archiver

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/reader"
)

var sweepSteps = []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute}

// swept is an archive whose tier 0 a test writes, a second after the other, and whose others a sweeper does.
type swept struct {
	t         *testing.T
	rng       *rand.Rand
	mem       archive.Writer
	s         *Sweeper
	o         SweepOptions
	live      map[archive.Key]bool
	now       int64 // unix ms
	sources   []*sweptSource
	schemas   [2]*archive.Schema
	killAt    int // so many writes of the sweeper from now on, this process is killed; 0: never
	killAfter bool
	kills     int
}

// sweptSource is one that a test writes.
type sweptSource struct {
	*archive.Source
	schema  *archive.Schema
	no      uint64
	waiting []sweptRow
	all     []sweptRow
	ended   bool
}

type sweptRow struct {
	no    uint64
	ms    int64
	value uint64
}

func newSwept(t *testing.T, seed uint64, o SweepOptions) *swept {
	w := &swept{t: t, rng: rand.New(rand.NewPCG(seed, 3)), mem: archivetest.New(sweepSteps...), o: o, live: map[archive.Key]bool{}, now: 1_700_000_123_456}
	counter := &reader.Series{Definition: &reader.Definition{Name: "c", Kind: reader.Counter, Number: reader.U64, Labels: []reader.Pair{{Name: "a", Value: "b"}}}}
	for i, list := range [][]*reader.Series{
		{counter, {Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}}},
		{{Definition: &reader.Definition{Name: "s", Kind: reader.Stat, Number: reader.F64, NonNegative: true}}, counter, {Definition: &reader.Definition{Name: "h", Kind: reader.Histogram, Number: reader.U64, Buckets: reader.BucketRange{Count: 2}}}},
	} {
		var err error
		if w.schemas[i], err = archive.NewSchema(0, "t", list); err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	return w
}

var errKilled = errors.New("killed")

// killer panics in the middle of a sweep, before or after something was written.
type killer struct {
	archive.Writer
	w *swept
}

func (k killer) dies(f func() error) error {
	if k.w.killAt > 0 {
		if k.w.killAt--; k.w.killAt == 0 {
			if k.w.killAfter {
				_ = f()
			}
			panic(errKilled)
		}
	}
	return f()
}

func (k killer) Append(tier int, b ...*archive.Block) error {
	return k.dies(func() error { return k.Writer.Append(tier, b...) })
}

func (k killer) SetMark(tier int, m archive.Mark) error {
	return k.dies(func() error { return k.Writer.SetMark(tier, m) })
}

func (w *swept) restart() {
	o := w.o
	o.Archive = w.mem
	w.s = NewSweeper(o)
	w.s.Through(killer{w.s, w}, func(k archive.Key) bool { return w.live[k] })
}

func (w *swept) sweep() {
	defer func() {
		if r := recover(); r != nil {
			if r != errKilled {
				panic(r)
			}
			w.kills++
			w.restart()
		}
	}()
	w.s.Sweep(time.UnixMilli(w.now))
}

func (w *swept) birth(job string, schema int) *sweptSource {
	n := len(w.sources) + 1
	s := &sweptSource{schema: w.schemas[schema], Source: &archive.Source{Key: archive.Key{Segment: [16]byte{byte(n), byte(n >> 8), 1}}, Birth: w.now * 1e6, UID: 7,
		Labels: []reader.Pair{{Name: "instance", Value: fmt.Sprint(n)}, {Name: "job", Value: job}}}}
	w.sources = append(w.sources, s)
	w.live[s.Key] = true
	return s
}

func (s *sweptSource) row(ms int64, add uint64) {
	value := add
	if n := len(s.all); n > 0 {
		value += s.all[n-1].value
	}
	s.no++
	r := sweptRow{s.no, ms, value}
	s.all, s.waiting = append(s.all, r), append(s.waiting, r)
}

// rows makes what is waiting archive.Rows: the counter's value is the row's, all else follows from it.
func (s *sweptSource) rows(final bool) archive.Rows {
	r := archive.Rows{Source: s.Source, Final: final, Starts: make([]int64, len(s.schema.Series))}
	for i := range r.Starts {
		r.Starts[i] = s.Birth / 1e6
	}
	for _, x := range s.waiting {
		r.Numbers, r.Times, r.Base = append(r.Numbers, x.no), append(r.Times, x.ms), x.no
	}
	for _, sr := range s.schema.Series {
		switch f := func(f func(v uint64) []uint64) {
			var col []uint64
			for _, x := range s.waiting {
				col = append(col, f(x.value)...)
			}
			r.Cells = append(r.Cells, col)
		}; sr.Kind {
		case reader.Counter:
			f(func(v uint64) []uint64 { return []uint64{v} })
		case reader.Gauge:
			f(func(v uint64) []uint64 { return []uint64{math.Float64bits(float64(v % 100))} })
		case reader.Histogram:
			f(func(v uint64) []uint64 { return []uint64{5 * v, v, 2 * v, 3 * v, v / 2} })
		case reader.Stat:
			f(func(v uint64) []uint64 { return []uint64{v} })
			f(func(v uint64) []uint64 { return []uint64{math.Float64bits(float64(v) / 4)} })
			for range 3 {
				f(func(v uint64) []uint64 { return []uint64{math.Float64bits(float64(v % 7))} })
			}
		}
	}
	return r
}

// flush writes what is waiting of some sources, those of one schema in one block.
func (w *swept) flush(sources ...*sweptSource) {
	w.t.Helper()
	blocks := map[*archive.Schema]*archive.Block{}
	for _, s := range sources {
		if len(s.waiting) == 0 {
			continue
		}
		b := blocks[s.schema]
		if b == nil {
			b = &archive.Block{Schema: s.schema, Step: sweepSteps[0]}
			blocks[s.schema] = b
		}
		b.Sources = append(b.Sources, s.rows(s.ended))
		s.waiting = nil
		if s.ended {
			delete(w.live, s.Key)
		}
	}
	for _, b := range blocks {
		if err := w.s.Append(0, b); err != nil {
			w.t.Fatal(err)
		}
	}
}

// read is all of a source in a tier.
func (w *swept) read(k archive.Key, tier int) (rows []foldedRow) {
	w.t.Helper()
	found, err := w.mem.Find(k.Segment)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, inc := range found {
		if inc.Key != k {
			continue
		}
		for i, tt := range inc.Tables[0].Tiers {
			if tt.Tier != tier {
				continue
			}
			for c, err := range w.mem.Read(inc, 0, i, math.MinInt64, math.MaxInt64, fold.Columns(inc.Series, tt.Folded)) {
				if err != nil {
					w.t.Fatal(err)
				}
				for n := range c.Times {
					r := foldedRow{no: c.Numbers[n], ms: c.Times[n], copied: c.Copied, end: (c.Final || c.Estimated) && n == len(c.Times)-1}
					if c.Coverage != nil {
						r.coverage = c.Coverage[n]
					}
					for f, col := range fold.Columns(inc.Series, tt.Folded) {
						name := fmt.Sprint(col.Series.Name, col.Field)
						if c.Cells[f] == nil || c.Present[f] != nil && !c.Present[f][n] {
							continue
						}
						width := len(c.Cells[f]) / len(c.Times)
						r.cells += fmt.Sprintf("%s=%x ", name, c.Cells[f][n*width:(n+1)*width])
						if name == fmt.Sprint("c", archive.Last) {
							r.value = c.Cells[f][n]
						}
					}
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

type foldedRow struct {
	no, coverage, value uint64
	ms                  int64
	end, copied         bool
	cells               string
}

// want folds what a source wrote in one go.
func (w *swept) want(s *sweptSource, tier int) (rows []foldedRow) {
	all := *s
	all.waiting = s.all
	r := all.rows(s.ended)
	var f fold.Folder
	var kept [2]sweepBatch
	defer runtime.KeepAlive(&kept) // the rows are in their memory
	for t := 1; t <= tier; t++ {
		f.Reset(s.schema.Series, sweepSteps[t], t > 1, 0)
		f.Add(&r)
		r, _ = kept[t-1].keep(f.Flush(true))
	}
	for n := range r.Times {
		x := foldedRow{no: r.Numbers[n], coverage: r.Coverage[n], ms: r.Times[n], end: (r.Final || r.Estimated) && n == len(r.Times)-1}
		for i, col := range fold.Columns(s.schema.Series, true) {
			if r.Present != nil && r.Present[i] != nil && !r.Present[i][n] {
				continue
			}
			width := len(r.Cells[i]) / len(r.Times)
			x.cells += fmt.Sprintf("%s%d=%x ", col.Series.Name, col.Field, r.Cells[i][n*width:(n+1)*width])
			if col.Series.Kind == reader.Counter {
				x.value = r.Cells[i][n]
			}
		}
		rows = append(rows, x)
	}
	return rows
}

// drive lets sources live for some minutes: they are born, tick, are written at random times, end, and are swept, killed and restarted.
func (w *swept) drive(seconds int, jobs ...string) {
	w.t.Helper()
	for range seconds {
		w.now += 1000
		if len(w.sources) < 12 || w.rng.IntN(40) == 0 {
			if len(w.live) < 12 {
				w.birth(jobs[w.rng.IntN(len(jobs))], w.rng.IntN(2))
			}
		}
		var some []*sweptSource
		for _, s := range w.sources {
			if s.ended {
				continue
			}
			if w.rng.IntN(50) > 0 { // else a late tick
				s.row(w.now+w.rng.Int64N(5), uint64(w.rng.IntN(9)))
			}
			if len(s.all) > 0 && w.rng.IntN(400) == 0 {
				s.row(w.now+500, 3)
				s.ended = true
			}
			if len(s.waiting) > 60 || s.ended || w.rng.IntN(90) == 0 {
				some = append(some, s)
			}
		}
		w.flush(some...)
		if w.killAt == 0 && w.rng.IntN(30) == 0 {
			w.killAt, w.killAfter = 1+w.rng.IntN(4), w.rng.IntN(2) == 0
		}
		if w.rng.IntN(3) > 0 {
			w.sweep()
		}
		if w.rng.IntN(200) == 0 {
			w.restart()
		}
	}
}

// end ends everything and sweeps until nothing is left.
func (w *swept) end() {
	w.t.Helper()
	w.killAt = 0
	for _, s := range w.sources {
		if !s.ended {
			s.row(w.now+900, 1)
			s.ended = true
		}
		w.flush(s)
	}
	for range 60 {
		w.now += 30_000
		w.sweep()
	}
}

func TestSweep(t *testing.T) {
	kills, folded := 0, uint64(0)
	for seed := range uint64(6) {
		w := newSwept(t, seed, SweepOptions{})
		w.drive(2500, "j")
		w.end()
		for i, s := range w.sources {
			for tier := 1; tier <= 2; tier++ {
				want, got := w.want(s, tier), w.read(s.Key, tier)
				if !slices.Equal(want, got) {
					t.Fatalf("seed %d, source %d, tier %d: want\n%v\ngot\n%v", seed, i, tier, want, got)
				}
			}
		}
		if p := w.s.Stats().Pending; p != 0 {
			t.Errorf("seed %d: want nothing left, got %d", seed, p)
		}
		for tier := 1; tier <= 2; tier++ {
			if m, _ := w.mem.Marked(tier); m != w.mem.End(tier-1) {
				t.Errorf("seed %d: want the mark at the end of tier %d, %v, got %v", seed, tier-1, w.mem.End(tier-1), m)
			}
		}
		kills += w.kills
		folded += w.s.Stats().Folded
	}
	if kills < 50 || folded == 0 {
		t.Errorf("want at least 50 kills and something folded, got %d and %d", kills, folded)
	}
}

// additiveTotals are the totals over sources that a tier tells of, by the ends of their counters.
func (w *swept) totals(tier int) (total uint64, sources int) {
	w.t.Helper()
	found, err := w.mem.Select(w.t.Context(), archive.Selection{From: math.MinInt64, To: math.MaxInt64, Tiers: []int{tier}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, inc := range found {
		if rows := w.read(inc.Key, tier); len(rows) > 0 {
			total += rows[len(rows)-1].value
			sources++
		}
	}
	return total, sources
}

// Ephemeral sources: whatever is killed when, the totals of a job are what was written, each source once.
func TestEphemeral(t *testing.T) {
	kills, taken := 0, uint64(0)
	for seed := range uint64(8) {
		w := newSwept(t, seed, SweepOptions{Ephemeral: true})
		calm := seed%4 == 0 // nobody is killed
		if seed%4 == 1 {    // and on a disk
			o := archive.Options{Dir: t.TempDir()}
			for _, step := range sweepSteps {
				o.Tiers = append(o.Tiers, archive.TierOptions{Step: step, Budget: 4 << 20})
			}
			a, err := archive.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			w.mem = a
			w.restart()
		}
		want := uint64(0)
		for n := range 40 {
			for range 1 + w.rng.IntN(20) {
				s := w.birth([]string{"a", "b"}[w.rng.IntN(2)], w.rng.IntN(2))
				life := []int{2, 4, 45, 45, 45, 200, 700}[w.rng.IntN(7)]
				for k := range life {
					s.row(s.Birth/1e6+int64(k+1)*1000, uint64(w.rng.IntN(5)))
				}
				want += s.all[len(s.all)-1].value
				s.ended = true
			}
			w.now += 20_000
			for _, s := range w.sources {
				if len(s.waiting) > 0 && s.all[len(s.all)-1].ms <= w.now {
					w.flush(s)
				}
			}
			if !calm {
				w.killAt, w.killAfter = 1+w.rng.IntN(6), w.rng.IntN(2) == 0
			}
			w.sweep()
			if seed%4 == 3 && n == 30 { // those who were taken in stay so
				w.o.Ephemeral = false
				w.restart()
			}
		}
		w.now += 1_000_000
		w.end()
		if got, n := w.totals(0); got != want || n != len(w.sources) {
			t.Fatalf("seed %d: want %d of %d sources in tier 0, got %d of %d", seed, want, len(w.sources), got, n)
		}
		for tier := 1; tier <= 2; tier++ {
			got, n := w.totals(tier)
			if got != want {
				t.Fatalf("seed %d: want %d in tier %d, got %d", seed, want, tier, got)
			}
			if n >= len(w.sources) {
				t.Errorf("seed %d: want fewer than %d sources in tier %d, got %d", seed, len(w.sources), tier, n)
			}
		}
		for _, job := range []string{"a", "b"} {
			w.checkEphemeral(job, calm)
		}
		kills += w.kills
		taken += w.s.Stats().Ephemeral
	}
	if kills < 50 || taken == 0 {
		t.Errorf("want at least 50 kills and somebody taken in, got %d and %d", kills, taken)
	}
}

// checkEphemeral holds the ephemeral source of a job in the 5 m tier against those it took in, window by window. Where nobody was
// killed, each was taken in before a later window was; else perhaps after, and then it counts from there on.
func (w *swept) checkEphemeral(job string, calm bool) {
	w.t.Helper()
	k := EphemeralKey(7, job, sweepSteps[2])
	found, err := w.mem.Find(k.Segment)
	if err == nil && len(found) == 0 && !w.o.Ephemeral {
		return // switched off before there was one
	}
	if err != nil || len(found) != 1 || found[0].Key != k || !found[0].Ephemeral {
		w.t.Fatalf("want an ephemeral source of job %s, got %d, %v", job, len(found), err)
	}
	labels := []reader.Pair{{Name: "instance", Value: "ephemeral-5m"}, {Name: "job", Value: job}}
	if !slices.Equal(found[0].Labels, labels) {
		w.t.Errorf("want labels %v, got %v", labels, found[0].Labels)
	}
	taken := map[archive.Key]int{}
	for info, err := range w.mem.Blocks(2, archive.Mark{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if info.Sources[0].Key == k {
			for _, m := range info.Members {
				taken[m]++
			}
		}
	}
	byWindow := map[uint64]uint64{}
	for _, s := range w.sources {
		lived := s.all[len(s.all)-1].ms - s.Birth/1e6
		n := taken[s.Key]
		if own := len(w.read(s.Key, 2)) > 0; n > 1 || n == 1 && own {
			w.t.Fatalf("source %x: want once in the tier, got %d times as a member and by itself: %v", s.Segment, n, own)
		}
		if n == 1 {
			if lived >= 150_000 {
				w.t.Errorf("source %x: want it in the tier by itself after %d ms, got it in the ephemeral one", s.Segment, lived)
			}
			last := s.all[len(s.all)-1]
			byWindow[fold.Number(last.ms, 300_000)] += last.value
		}
	}
	rows := w.read(k, 2)
	windows := slices.Sorted(maps.Keys(byWindow))
	sum, next := uint64(0), 0
	for i, r := range rows {
		if i > 0 && (r.no < rows[i-1].no || r.ms < rows[i-1].ms || r.value < rows[i-1].value) {
			w.t.Fatalf("want rows that rise, got %+v before %+v", rows[i-1], r)
		}
		if i+1 < len(rows) && rows[i+1].no == r.no {
			continue // more came for the same window
		}
		for next < len(windows) && windows[next] <= r.no {
			sum += byWindow[windows[next]]
			next++
		}
		if last := i == len(rows)-1; r.value > sum || (calm || last) && r.value != sum {
			w.t.Errorf("job %s: window %d: want %d, got %d", job, r.no, sum, r.value)
		}
	}
	if next != len(windows) {
		w.t.Errorf("job %s: want all of %d windows, got %d", job, len(windows), next)
	}
}

// What is about to be evicted is folded before, whatever window it is in: of every row that was ever written, the coarser tiers tell once.
// (Thanos, issue 7908: raw data expired before it was downsampled.)
func TestReuse(t *testing.T) {
	for seed := range uint64(4) {
		w := newSwept(t, seed, SweepOptions{Ephemeral: seed%2 == 0})
		mem := w.mem.(*archivetest.Memory)
		for range 30 {
			w.drive(40, "j")
			w.killAt = 0
			// Without a sweep in between, and before those of a restart have looked at everything.
			if w.rng.IntN(2) == 0 {
				w.restart()
			}
			mem.Evict(0, w.rng.IntN(mem.Tiers()[0].Blocks)) // but the last one: places begin anew in an empty tier of Memory's
		}
		w.end()
		members := map[archive.Key]bool{}
		for info := range w.mem.Blocks(1, archive.Mark{}) {
			for _, k := range info.Members {
				members[k] = true
			}
		}
		for i, s := range w.sources {
			covered, last := uint64(0), foldedRow{}
			for _, r := range w.read(s.Key, 1) {
				covered += r.coverage
				last = r
			}
			if n := uint64(len(s.all)); !members[s.Key] && (covered != n || last.value != s.all[n-1].value || !last.end) {
				t.Fatalf("seed %d, source %d: want %d rows covered up to %d, got %d up to %+v", seed, i, n, s.all[n-1].value, covered, last)
			}
		}
	}
}

// A source that is gone without a last row, as after a loss of power, is folded all the same, once it has been silent for long; so is
// one that stands still, and goes on later.
func TestSilent(t *testing.T) {
	w := newSwept(t, 1, SweepOptions{Ephemeral: true})
	gone, still, brief := w.birth("j", 0), w.birth("j", 1), w.birth("j", 0)
	for k := range 400 {
		w.now += 1000
		gone.row(w.now, 1)
		still.row(w.now, 2)
		if k >= 360 {
			brief.row(w.now, 3)
		}
	}
	brief.Birth = (w.now - 40_000) * 1e6
	w.flush(gone, still, brief)
	w.live = map[archive.Key]bool{still.Key: true}
	w.restart() // the power is back
	for range 40 {
		w.now += 60_000
		w.sweep()
	}
	for i, s := range []*sweptSource{gone, still} {
		for tier := 1; tier <= 2; tier++ {
			if want, got := w.want(s, tier), w.read(s.Key, tier); !slices.Equal(want, got) {
				t.Errorf("source %d, tier %d: want %v, got %v", i, tier, want, got)
			}
		}
	}
	if got := w.read(EphemeralKey(7, "j", sweepSteps[2]), 2); len(got) != 1 || got[0].value != brief.all[39].value {
		t.Errorf("want the brief one taken in, got %+v", got)
	}
	for range 20 {
		w.now += 1000
		still.row(w.now, 2)
	}
	still.ended = true
	w.flush(still)
	w.now += 600_000
	for range 3 {
		w.sweep()
	}
	covered := uint64(0)
	rows := w.read(still.Key, 2)
	for _, r := range rows {
		covered += r.coverage
	}
	if last := rows[len(rows)-1]; covered != 420 || !last.end || last.value != 840 {
		t.Errorf("want 420 rows up to 840, got %d up to %+v", covered, last)
	}
	if p := w.s.Stats().Pending; p != 0 {
		t.Errorf("want nothing left, got %d", p)
	}
}

// An archive that stops, and is mended, is folded on from what it says then.
func TestSweepStopped(t *testing.T) {
	w := newSwept(t, 5, SweepOptions{Ephemeral: true})
	mem := w.mem.(*archivetest.Memory)
	for range 20 {
		w.drive(60, "j")
		mem.Stop(errors.New("no disk"))
		w.killAt = 0
		for range 5 {
			w.now += 1000
			w.sweep()
		}
		if err := w.s.Mend(); err == nil {
			t.Fatal("want no mend while the disk is gone")
		}
		mem.Stop(nil)
		if err := w.s.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	w.end()
	total, n := w.totals(0)
	for tier := 1; tier <= 2; tier++ {
		if got, m := w.totals(tier); got != total || m > n+4 {
			t.Errorf("tier %d: want %d, got %d of %d sources", tier, total, got, m)
		}
	}
}

// The same on a disk: the finest tier goes round again and again while everything is folded out of it, through kills, restarts and files that
// are closed and opened.
func TestSweepOnDisk(t *testing.T) {
	for seed := range uint64(3) {
		w := newSwept(t, seed, SweepOptions{})
		dir := t.TempDir()
		reopen := func() {
			t.Helper()
			if a, ok := w.mem.(*archive.Archive); ok {
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
			a, err := archive.Open(archive.Options{Dir: dir, ExtentSize: 64 << 10, Tiers: []archive.TierOptions{
				{Step: sweepSteps[0], Budget: 4096 + 3*64<<10}, {Step: sweepSteps[1], Budget: 4 << 20}, {Step: sweepSteps[2], Budget: 4 << 20}}})
			if err != nil {
				t.Fatal(err)
			}
			w.mem = a
			w.restart()
		}
		reopen()
		defer func() { w.mem.Close() }()
		evicted := uint64(0)
		for range 12 {
			w.drive(300, "j")
			evicted += w.mem.Tiers()[0].Evicted
			reopen()
		}
		w.end()
		if evicted += w.mem.Tiers()[0].Evicted; evicted < 3 {
			t.Errorf("seed %d: want extents reused, got %d", seed, evicted)
		}
		whole := 0
		for i, s := range w.sources {
			for tier := 1; tier <= 2; tier++ {
				covered, last := uint64(0), foldedRow{}
				rows := w.read(s.Key, tier)
				for _, r := range rows {
					covered += r.coverage
					last = r
				}
				if n := uint64(len(s.all)); covered != n || last.value != s.all[n-1].value || !last.end {
					t.Fatalf("seed %d, source %d, tier %d: want %d rows covered up to %d, got %d up to %+v", seed, i, tier, n, s.all[n-1].value, covered, last)
				}
				if slices.Equal(w.want(s, tier), rows) {
					whole++
				}
			}
		}
		if whole < len(w.sources) { // of two tiers
			t.Errorf("seed %d: want windows cut by eviction now and then, got %d of %d sources and tiers without", seed, whole, 2*len(w.sources))
		}
	}
}
