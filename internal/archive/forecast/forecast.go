// Package forecast says how far back a tier of an archive reaches: of a load that is only planned, and of an archive that
// there is, from what it has taken so far.
//
// It does not know how large anything is. A planned load is drawn, and the archive's own code writes blocks of it into
// files in memory: so rows, labels and index take here what they will take on disk. What is assumed is
// how values move (Load), and that all processes of a load run one program as one user.
package forecast

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// How rows come into an archive: see internal/archiver.
const (
	cohort     = 64               // tables in a block, at most
	maxWait    = 10 * time.Minute // rows wait for half a ring, and no longer
	poll       = time.Second      // what ended in one is drained into one block
	foldedRows = 30               // that come to a coarser tier at once
)

// Tier is a forecast.
type Tier struct {
	Step           time.Duration
	Budget         int64 // of the tier, bytes
	ExtentSize     int64
	Extents        int           // that the budget allows
	Fill           time.Duration // what one extent holds
	Least, Most    time.Duration // how far back the tier reaches: just after an extent was reused, just before
	SamplesSecond  float64       // a value of a series in a row is a sample
	BytesSecond    float64       // all-in: labels, index and what is left free at the end of an extent
	BytesSample    float64
	BytesSource    float64       // what a source takes in each extent that has rows of it, without them
	BytesLife      float64       // what a process that comes and goes takes, rows and all; 0 without churn
	Lag            time.Duration // how long rows wait before they are in the tier, at most
	SourcesExtent  float64       // in one extent
	EphemeralLives bool          // processes that come and go are added to a sum: FORMAT.md 19.6
}

// ErrIdle says that nothing comes into a tier.
var ErrIdle = errors.New("no table's rows come into it")

// Of forecasts tier number i of an archive with tiers of these steps, finest first, under a load.
func (l *Load) Of(steps []time.Duration, i int, budget int64) (Tier, error) {
	size, _, err := extentsOf(steps[i], budget)
	if err != nil {
		return Tier{}, err
	}
	t, err := l.fill(steps, i, size)
	if err != nil {
		return t, err
	}
	return t, t.within(budget)
}

// For is the least budget, in whole MiB, with which a tier reaches back as long as it is asked to, and the forecast with it.
func (l *Load) For(steps []time.Duration, i int, retention time.Duration) (Tier, error) {
	for size := int64(64 << 10); ; size *= 2 {
		t, err := l.fill(steps, i, size)
		if errors.Is(err, archive.ErrTooLarge) && size < largest {
			continue
		} else if err != nil {
			return t, err
		}
		budget := t.need(retention)
		// Extents of that size are made of budgets of 16 of them, and more.
		budget = max(budget, 17*size)
		budget = (budget + 1<<20 - 1) >> 20 << 20
		got, _, err := extentsOf(steps[i], budget)
		if err != nil {
			return t, err
		}
		if got == size {
			return t, t.within(budget)
		}
		if got < size {
			return t, fmt.Errorf("shmts: forecast: tier %v: want extents of %d bytes in a budget of %d, got %d", steps[i], size, budget, got)
		}
	}
}

// within completes a forecast whose extents are known.
func (t *Tier) within(budget int64) error {
	const header = 4096 // before the first extent: FORMAT.md 14.1
	t.Budget, t.Extents = budget, int(min((budget-header)/t.ExtentSize, 65_536))
	t.Least = times(t.Fill, float64(t.Extents-1))
	t.Most = times(t.Fill, float64(t.Extents))
	if t.Extents < 2 {
		return fmt.Errorf("shmts: forecast: tier %v: budget: want at least %d bytes, 2 extents of %d, got %d", t.Step, header+2*t.ExtentSize, t.ExtentSize, budget)
	}
	return nil
}

// need is the budget with which a tier reaches back so long.
func (t *Tier) need(retention time.Duration) int64 {
	n := max(2, int64(math.Ceil(retention.Seconds()/t.Fill.Seconds()))+1)
	return 4096 + n*t.ExtentSize
}

func times(d time.Duration, by float64) time.Duration {
	if ns := float64(d) * by; ns < math.MaxInt64 {
		return time.Duration(ns)
	}
	return math.MaxInt64
}

// Fixed is a forecast from bytes a sample, which somebody knows better.
func (l *Load) Fixed(steps []time.Duration, i int, bytesSample float64, budget int64, retention time.Duration) (Tier, error) {
	t := Tier{Step: steps[i], BytesSample: bytesSample}
	for _, s := range l.streams(steps, i) {
		t.SamplesSecond += s.perSecond * float64(s.rows*s.table.series())
		t.Lag = max(t.Lag, s.lag)
	}
	if t.SamplesSecond == 0 {
		return t, ErrIdle
	}
	t.BytesSecond = t.SamplesSecond * bytesSample
	if budget == 0 {
		budget = int64(math.Ceil(t.BytesSecond*retention.Seconds()/(1<<20)))<<20 + 2<<20
	}
	for range 64 { // extents grow with the budget, and one of them is always being filled
		size, _, err := extentsOf(t.Step, budget)
		if err != nil {
			return t, err
		}
		t.ExtentSize = size
		t.Fill = times(time.Second, float64(size)/t.BytesSecond)
		need := (t.need(retention) + 1<<20 - 1) >> 20 << 20
		if retention == 0 || need <= budget {
			break
		}
		budget = need
	}
	return t, t.within(budget)
}

// A stream is blocks of one shape that come at a rate.
type stream struct {
	table     *Table
	number    int // of the table
	folded    bool
	step      time.Duration // of its rows
	covers    int           // rows of the table in one of them
	rows      int           // of a source in a block
	sources   int           // in a block
	perSecond float64       // sources' parts of blocks a second
	living    float64       // sources there are at a time, that live on
	lag       time.Duration
	ephemeral bool
	cost      cost
}

// cost is what blocks take, bytes, with what they need in the index.
type cost struct {
	schema float64 // once in an extent
	source float64 // once in an extent, for each
	block  float64 // each
}

// home is the tier that keeps a table's rows as they are. FORMAT.md 14.
func (t *Table) home(steps []time.Duration) int {
	for i := len(steps) - 1; i > 0; i-- {
		if steps[i] <= t.Step {
			return i
		}
	}
	return 0
}

// half is how many rows of a table wait in its ring before they are due.
func (t *Table) half() int { return max(1, min(t.Rows/2, int(maxWait/t.Step))) }

// Waits is how long a row waits in its ring at most before it is archived, if the disk is fast enough.
func (t *Table) Waits() time.Duration { return time.Duration(t.half()) * t.Step }

// streams are what comes into a tier.
func (l *Load) streams(steps []time.Duration, i int) (all []*stream) {
	lives := l.Churn / 3600 // a second
	for number := range l.Tables {
		t := &l.Tables[number]
		home := t.home(steps)
		if home > i || t.series() == 0 {
			continue
		}
		proto := stream{table: t, number: number, step: t.Step, covers: 1, folded: i > home || t.Step < steps[i]}
		half := t.half()
		if proto.folded {
			proto.step, half = steps[i], foldedRows
			proto.covers = max(1, int(steps[i]/t.Step))
		}
		proto.lag = proto.step * time.Duration(half)
		if proto.folded && i > 0 { // and before that they wait in the finer tier
			proto.lag += proto.step
		}
		add := func(s stream, living float64, sources int, rows int, perSecond float64) {
			if sources > 0 && perSecond > 0 {
				s.sources, s.rows, s.perSecond, s.living = sources, rows, perSecond, living
				all = append(all, &s)
			}
		}
		rate := 1 / (proto.step.Seconds() * float64(half)) // blocks of a source a second
		full := l.Processes / cohort * cohort
		add(proto, float64(full), min(full, cohort), half, float64(full)*rate)
		rest := l.Processes - full
		add(proto, float64(rest), rest, half, float64(rest)*rate)
		if lives == 0 {
			continue
		}
		if proto.folded && l.Ephemeral && l.Life < steps[i]/2 {
			e := proto
			e.ephemeral = true
			add(e, 1, 1, 1, 1/proto.step.Seconds())
			continue
		}
		rows := int(l.Life / proto.step)
		if proto.folded || rows == 0 {
			rows++ // windows that it only began or ended in
		}
		ended := proto
		ended.lag = poll
		batch := poll
		if proto.folded {
			ended.lag, batch = proto.step, proto.step
		}
		n := int(min(max(math.Round(lives*batch.Seconds()), 1), cohort))
		if k := rows / half; k > 0 && rows > half {
			alive := int(min(max(math.Round(lives*l.Life.Seconds()), 1), cohort))
			add(proto, 0, alive, half, lives*float64(k))
			rows -= k * half
		}
		add(ended, 0, n, max(rows, 1), lives)
	}
	return all
}

// fill forecasts what an extent of a size holds.
func (l *Load) fill(steps []time.Duration, i int, size int64) (Tier, error) {
	t := Tier{Step: steps[i], ExtentSize: size}
	all := l.streams(steps, i)
	if len(all) == 0 {
		return t, fmt.Errorf("shmts: forecast: tier %v: %w", t.Step, ErrIdle)
	}
	m, err := newMeter(l, steps[i])
	if err != nil {
		return t, err
	}
	lives := 0.0 // bytes a second of those that come and go
	room := float64(size) - m.fixed
	schemas := map[schemaKey]bool{}
	for _, s := range all {
		if err := m.measure(s, size); err != nil {
			return t, err
		}
		bytes := s.perSecond / float64(s.sources) * s.cost.block
		switch {
		case s.ephemeral:
			t.EphemeralLives = true
			perBlock := l.Churn / 3600 / s.perSecond * member
			s.cost.block += perBlock
			lives += bytes + l.Churn/3600*member
		case s.living == 0:
			lives += bytes + s.perSecond*s.cost.source
		}
		if k := (schemaKey{s.number, s.folded}); !schemas[k] {
			schemas[k] = true
			room -= s.cost.schema
		}
		t.SamplesSecond += s.perSecond * float64(s.rows*s.table.series())
		t.Lag = max(t.Lag, s.lag)
		t.BytesSource = max(t.BytesSource, s.cost.source)
	}
	seconds, sources := roundRobin(all, room)
	if seconds <= 0 {
		return t, fmt.Errorf("shmts: forecast: tier %v: %w: want less than %d bytes for a block with its sources and schema, got more", t.Step, archive.ErrTooLarge, size)
	}
	t.Fill, t.SourcesExtent = times(time.Second, seconds), sources
	t.BytesSecond = float64(size) / seconds
	t.BytesSample = t.BytesSecond / t.SamplesSecond
	if l.Churn > 0 {
		t.BytesLife = lives / (l.Churn / 3600)
	}
	return t, nil
}

// roundRobin fills extents with blocks as they come, and answers how long one takes, in seconds, and how many sources it has. What
// does not fit begins the next one.
func roundRobin(all []*stream, room float64) (seconds, sources float64) {
	const mostExtents, mostBlocks = 64, 400_000
	next := make([]float64, len(all))   // of each stream's block, in blocks' own time
	blocks := make([]float64, len(all)) // in this extent
	for i, s := range all {
		next[i] = s.every() * float64(i+1) / float64(len(all)+1) // not all in one second
	}
	used, extents, seen := 0.0, 0, 0.0
	for n := 1; ; n++ {
		i := 0
		for k := range next {
			if next[k] < next[i] {
				i = k
			}
		}
		s := all[i]
		fresh := float64(s.sources) // sources that the extent doesn't have yet
		if s.living > 0 {
			fresh = min(fresh, max(0, s.living-blocks[i]*fresh))
		}
		bytes := s.cost.block + fresh*s.cost.source
		if used+bytes > room {
			if used == 0 {
				return 0, 0
			}
			extents++
			if extents == mostExtents || n > mostBlocks {
				return next[i] / float64(extents), seen / float64(extents)
			}
			used = 0
			clear(blocks)
			continue
		}
		used += bytes
		seen += fresh
		blocks[i]++
		next[i] += s.every()
		if n > 2*mostBlocks && extents == 0 { // much room and little that comes
			return next[i] * room / used, seen
		}
	}
}

// every is how many seconds lie between two blocks.
func (s *stream) every() float64 { return float64(s.sources) / s.perSecond }

// member is what a life takes among those that an ephemeral source took in: FORMAT.md 16.2, run 4.
const member = 24

type schemaKey struct {
	table  int
	folded bool
}

// Check says what is wrong with a load.
func (l *Load) Check() error {
	switch {
	case l.Processes < 0 || l.Churn < 0 || l.Processes == 0 && l.Churn == 0:
		return fmt.Errorf("shmts: forecast: want processes, or some that come and go, got %d and %v an hour", l.Processes, l.Churn)
	case l.Churn > 0 && l.Life <= 0:
		return fmt.Errorf("shmts: forecast: life: want more than 0, got %v", l.Life)
	case l.Constant < 0 || l.Constant > 1:
		return fmt.Errorf("shmts: forecast: constant: want a part from 0 to 1, got %v", l.Constant)
	case !(l.Rate > 0):
		return fmt.Errorf("shmts: forecast: rate: want more than 0 a second, got %v", l.Rate)
	}
	if i := slices.IndexFunc(l.Tables, func(t Table) bool { return t.Step <= 0 || t.Rows < 1 }); i >= 0 {
		return fmt.Errorf("shmts: forecast: table %d: want a step and rows, got %v and %d", i, l.Tables[i].Step, l.Tables[i].Rows)
	}
	return nil
}
