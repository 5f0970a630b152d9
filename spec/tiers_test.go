package spec_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// Both writers fold their own tiers, at any steps: a row of each tier where mono time crosses its step, one at most a tick, which
// says in t_begin what it covers. FORMAT.md 10.4, held against a model that has no rings, lanes or bytes.

// tierSteps are from the least step to the greatest, of one tier to four, in round and odd ratios.
var tierSteps = [][]time.Duration{
	{100 * time.Millisecond, time.Second, 10 * time.Second, 5 * time.Minute},
	{time.Second, 10 * time.Second, 5 * time.Minute, time.Hour},
	{100 * time.Millisecond, time.Hour},
	{300 * time.Millisecond, 900 * time.Millisecond, 9900 * time.Millisecond, 19800 * time.Millisecond},
	{7 * time.Second, 21 * time.Second, 315 * time.Second, 2520 * time.Second},
	{250 * time.Millisecond, 750 * time.Millisecond, time.Minute},
	{time.Hour},
}

const (
	tiersUnix, tiersMono = int64(1_700_000_000_000_000_000), int64(1_000_000_000_000)
	tierRows             = 64
)

var tiersID = [16]byte{0x20, 0x31, 0x42, 0x53, 0x64, 0x75, 0x86, 0x97, 0xa8, 0xb9, 0xca, 0xdb, 0xec, 0xfd, 0x0e, 0x1f}

// tierRow is what a row says, of a counter, a gauge and a stat.
type tierRow struct {
	no, base         uint64
	begin, t         int64
	counter, count   int64
	gauge, last, sum float64
	low, high        float64
	gaugeUnset, any  bool // any: something was recorded in the window
}

// tierAction is a piece of a script.
type tierAction struct {
	add    int
	set    float64
	is     bool
	record []float64
	pass   int64
}

func tierActions(rng *rand.Rand, steps []time.Duration) (all []tierAction, script string) {
	var b strings.Builder
	b.WriteString("s counter c - - - 0 0 0\ns gauge g - - - 0 0 0\ns stat s - - - 0 0 0\n")
	base, last := int64(steps[0]), int64(steps[len(steps)-1])
	for k := range 1500 {
		a := tierAction{add: rng.IntN(5), pass: base}
		if k > 100 && rng.IntN(3) == 0 {
			a.set, a.is = float64(rng.IntN(100)), true
		}
		for range rng.IntN(3) {
			a.record = append(a.record, float64(rng.IntN(1000)-500))
		}
		switch rng.IntN(40) {
		case 0: // the writer was late, or stood still
			a.pass = rng.Int64N(3*last) + 1
		case 1:
			a.pass = rng.Int64N(5*base) + 1
		case 2, 3, 4, 5:
			a.pass = rng.Int64N(base) + 1
		default:
			a.pass += rng.Int64N(base/50) - base/100
		}
		fmt.Fprintf(&b, "a 0 %d\n", a.add)
		if a.is {
			fmt.Fprintf(&b, "a 1 %g\n", a.set)
		}
		for _, v := range a.record {
			fmt.Fprintf(&b, "a 2 %g\n", v)
		}
		fmt.Fprintf(&b, "t %d\n", a.pass)
		all = append(all, a)
	}
	return all, b.String()
}

// tierModel says which rows there are, tier by tier.
func tierModel(steps []time.Duration, actions []tierAction) [][]tierRow {
	first := uint64(0)
	for i := range 8 {
		first |= uint64(tiersID[i]) << (8 * i)
	}
	at := func(i int, mono int64) uint64 {
		return (uint64(mono) + first%uint64(steps[i])) / uint64(steps[i])
	}
	out := make([][]tierRow, len(steps))
	windows := make([][]float64, len(steps)) // what was recorded since a tier's last row
	step := make([]uint64, len(steps))
	begin := make([]int64, len(steps))
	unix, mono := tiersUnix, tiersMono
	for i := range steps {
		step[i], begin[i] = at(i, mono), unix
	}
	now := tierRow{gaugeUnset: true}
	for _, a := range actions {
		now.counter += int64(a.add)
		if a.is {
			now.gauge, now.gaugeUnset = a.set, false
		}
		for _, v := range a.record {
			now.count, now.sum, now.last = now.count+1, now.sum+v, v
			for i := range windows {
				windows[i] = append(windows[i], v)
			}
		}
		unix, mono = unix+a.pass, mono+a.pass
		if at(0, mono) == step[0] {
			continue
		}
		base := uint64(len(out[0]) + 1)
		for i := range steps {
			if at(i, mono) == step[i] {
				continue
			}
			step[i] = at(i, mono)
			r := now
			r.no, r.base, r.begin, r.t = uint64(len(out[i])+1), base, begin[i], unix
			for k, v := range windows[i] {
				if k == 0 {
					r.low, r.high, r.any = v, v, true
				}
				r.low, r.high = min(r.low, v), max(r.high, v)
			}
			windows[i], begin[i] = nil, unix
			out[i] = append(out[i], r)
		}
	}
	return out
}

// tiersOf reads what a segment's rings hold; a dead writer's last words are left out.
func tiersOf(t *testing.T, dir string, tiers int) (out [][]tierRow) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one segment in the store, got %v, %v", files, err)
	}
	g, err := reader.OpenSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	c, ga, s := g.Find("c"), g.Find("g"), g.Find("s")
	for i := range tiers {
		var rows []tierRow
		for r := range g.Rows(0, i, 1) {
			if r.Estimated {
				continue
			}
			cv, ok1 := r.Value(c)
			gv, ok2 := r.Value(ga)
			sv, ok3 := r.Value(s)
			if !ok1 || !ok2 || !ok3 {
				t.Fatalf("tier %d, row %d: want three series in it", i, r.No)
			}
			x := tierRow{no: r.No, base: r.BaseRow, begin: r.Begin, t: r.Time, counter: cv.Int, count: int64(sv.Count), sum: sv.Sum, gaugeUnset: gv.Unset, any: sv.Min == sv.Min}
			if !gv.Unset {
				x.gauge = gv.Float
			}
			if !sv.Unset {
				x.last = sv.Last
			}
			if x.any {
				x.low, x.high = sv.Min, sv.Max
			}
			rows = append(rows, x)
		}
		out = append(out, rows)
	}
	return out
}

func checkTiers(t *testing.T, by string, steps []time.Duration, want, got [][]tierRow) {
	t.Helper()
	for i := range steps {
		w := want[i][max(0, len(want[i])-tierRows):]
		// Of a full ring a reader can't be promised the oldest row.
		if g := got[i]; len(g) < len(w)-1 || len(g) == 0 && len(w) > 0 {
			t.Errorf("%s, %v, tier %d: want %d rows, got %d", by, steps, i, len(w), len(g))
			continue
		}
		w = w[len(w)-len(got[i]):]
		for k := range w {
			if w[k] != got[i][k] {
				t.Fatalf("%s, %v, tier %d: want\n%+v\ngot\n%+v", by, steps, i, w[k], got[i][k])
			}
		}
	}
}

func TestTiers(t *testing.T) {
	program := ""
	if _, err := exec.LookPath("gcc"); err == nil {
		program = scriptProgram(t)
	} else {
		t.Log("no gcc: the C writer's tiers are not checked")
	}
	store := func() string {
		dir, err := os.MkdirTemp("/dev/shm", "shmts-tiers-")
		if err != nil {
			t.Skipf("no /dev/shm to test in: %v", err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	for seed, steps := range tierSteps {
		actions, script := tierActions(rand.New(rand.NewPCG(uint64(seed), 9)), steps)
		want := tierModel(steps, actions)
		late, merged := 0, 0
		for i, rows := range want {
			for _, r := range rows {
				if r.t-r.begin > 2*int64(steps[i]) {
					late++ // a gap is one row that says so
				}
				if r.t-r.begin < int64(steps[i])*9/10 {
					merged++
				}
			}
		}
		if late < 10 || merged < 10 {
			t.Errorf("%v: want rows that cover more than their step, and less, got %d and %d", steps, late, merged)
		}

		dir := store()
		unix, mono := tiersUnix, tiersMono
		tiers := make([]writer.Tier, len(steps))
		for i, s := range steps {
			tiers[i] = writer.Tier{Step: s, Rows: tierRows}
		}
		w, err := writer.Open(writer.Options{Job: "tiers", Instance: "one", Dir: dir, NoTicker: true, OwnedLanes: -1, Clock: func() (int64, int64) { return unix, mono },
			NewID: func() [16]byte { return tiersID }, Tables: []writer.Table{{Name: "scalars", Scalars: 8, Stats: 2, Lanes: 2, Tiers: tiers}}})
		if err != nil {
			t.Fatal(err)
		}
		c, g, s := w.Counter("c"), w.Gauge("g"), w.Stat("s")
		for _, a := range actions {
			c.Add(uint64(a.add))
			if a.is {
				g.Set(a.set)
			}
			for _, v := range a.record {
				s.Record(v)
			}
			unix, mono = unix+a.pass, mono+a.pass
			w.Tick()
		}
		got := tiersOf(t, dir, len(steps))
		w.Close()
		checkTiers(t, "Go", steps, want, got)

		if program == "" {
			continue
		}
		dir = store()
		args := []string{dir}
		for _, s := range steps {
			args = append(args, strconv.FormatInt(int64(s), 10), strconv.Itoa(tierRows))
		}
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got = tiersOf(t, dir, len(steps))
		checkTiers(t, "C", steps, want, got)
	}
}
