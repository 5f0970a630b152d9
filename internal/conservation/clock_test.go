package conservation

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// The wall clock is stepped by an hour either way under a living writer. No row is lost or doubled, the reader's window is right by the
// clock that nobody steps, and PromQL counts what was counted, neither the step nor the values before it again.
func TestWallClockSteps(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			dir := segtest.Store(t)
			// Behind now by more than a step, so that nothing lies in the future of this host's own clock.
			wall, mono := time.Now().Add(-3*time.Hour).UnixNano(), int64(1e12)
			w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: dir, NoTicker: true, Clock: func() (int64, int64) { return wall, mono }})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			now := func() time.Time { return time.Unix(0, wall) }
			register, err := source.Open(source.Options{Store: reader.Options{Dir: dir}, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			defer register.Close()
			n := w.Counter("n_total")
			second := func(polled bool) {
				n.Add(10)
				wall, mono = wall+1e9, mono+1e9
				w.Tick()
				if polled {
					if err := register.Poll(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 40 {
				second(true)
			}
			before := wall
			wall += int64(by)
			for i := range 40 {
				second(i > 0)
			}
			seg, err := reader.OpenSegment(w.Stats().Paths[0])
			if err != nil {
				t.Fatal(err)
			}
			defer seg.Close()
			no := uint64(0)
			for row := range seg.Rows(0, 0, 1) {
				v, ok := row.Value(seg.Find("n_total"))
				if no++; row.No != no || !ok || v.Float != float64(10*no) {
					t.Fatalf("want row %d of %d, got row %d of %g", no, 10*no, row.No, v.Float)
				}
			}
			if no != 80 {
				t.Fatalf("want 80 rows, got %d", no)
			}
			for window, want := range map[time.Duration]float64{20 * time.Second: 200, 70 * time.Second: 390} { // the epoch moved 39 seconds ago
				d, err := seg.Delta(seg.Find("n_total"), window)
				if err != nil || d.Change.Float != want || d.Elapsed != time.Duration(want/10)*time.Second || d.Gaps != 0 {
					t.Errorf("delta over %v: want %g in as many tenths of seconds, got %g in %v, gaps %v, %v", window, want, d.Change.Float, d.Elapsed, d.Gaps, err)
				}
			}
			engine := query.New(query.Options{Sources: query.Snapshot(func() (all []query.Segment) {
				for _, s := range register.Segments() {
					all = append(all, s)
				}
				return all
			}), Now: now})
			ask := func(q string, at int64) float64 {
				t.Helper()
				run, err := engine.Instant(context.Background(), q, time.Unix(0, at), query.QueryOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer run.Close()
				res := run.Exec(context.Background())
				if v, ok := res.Value.(promql.Vector); ok && len(v) == 1 {
					return v[0].F
				}
				t.Errorf("%s: want one value, got %v, %v", q, res.Value, res.Err)
				return math.NaN()
			}
			if got := ask("n_total", wall); got != 800 {
				t.Errorf("want the newest value of 800 now, got %g", got)
			}
			if got := ask("increase(n_total[30s])", wall); math.Abs(got-300) > 10.5 {
				t.Errorf("want 300 since, got %g", got)
			}
			if got := ask("resets(n_total[30s])", wall); got != 0 {
				t.Errorf("want no reset, got %g", got)
			}
			if by > 0 { // all of it is one history, with a gap
				if got := ask("increase(n_total[2h])", wall); got < 700 || got > 900 { // what PromQL makes of edges: 1,200 would be twice
					t.Errorf("want some 800 in all, got %g", got)
				}
				if got := ask("resets(n_total[2h])", wall); got != 0 {
					t.Errorf("want no reset, got %g", got)
				}
				if got := ask("n_total", before); got != 400 {
					t.Errorf("want 400 before the step, got %g", got)
				}
			} else if got := ask("increase(n_total[2h])", wall); got < 300 || got > 520 { // what overlaps is hidden
				t.Errorf("want some 400, which came since, got %g", got)
			}
		})
	}
}

// A writer that is stopped for a while, in Go and in C, and within time namespaces whose monotonic clock is another: rows go on, none
// twice, and what it counted is there to the last one.
func TestStoppedAndElsewhere(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err == nil {
		err = exec.Command(unshare, "--time", "--monotonic", "1000000", "true").Run()
	}
	elsewhere := err == nil
	if !elsewhere {
		t.Logf("no time namespaces here (root, and util-linux's unshare): %v", err)
	}
	gcc, noGCC := exec.LookPath("gcc")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "stress")
	if noGCC == nil {
		if out, err := exec.Command(gcc, "-std=c11", "-O2", "-I../../cshim", "-o", program, "../../cshim/testdata/stress.c", "-pthread").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, offset := range []string{"", "1000000", "-1"} {
		for _, kind := range []string{"go", "c"} {
			name := kind + " here"
			if offset != "" {
				name = kind + " where the clock is off by " + offset
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if offset != "" && !elsewhere {
					t.Skip("needs time namespaces")
				}
				if kind == "c" && noGCC != nil {
					t.Skip("needs gcc")
				}
				l := newLoop(t)
				path := filepath.Join(l.tmp, "page")
				var cmd *exec.Cmd
				life := &life{}
				words := pageWords
				if kind == "c" {
					words = (stressProcesses + 1) * stressPage
				}
				page, err := openPage(path, words, true)
				if err != nil {
					t.Fatal(err)
				}
				if kind == "go" {
					cmd = exec.Command(exe)
					cmd.Env = []string{"SHMTS_CONSERVATION_PAGE=" + path}
					life.truth = goPage(page)
					life.series = []expected{{name: "records_total", ack: ackCounter, records: plain(1)}}
				} else {
					cmd = exec.Command(program, "--dir", l.dir, "--ack", path, "--threads", "2")
					life.truth = &stressPages{words: page, contexts: 3}
					life.series = []expected{{name: "adds", ack: 0, records: plain(1)}}
				}
				if offset != "" {
					args := append([]string{"--time", "--monotonic", offset, "--fork", "--kill-child=SIGKILL"}, cmd.Args...)
					args[5] = cmd.Path
					seconds, _ := strconv.ParseInt(offset, 10, 64)
					life.ahead = time.Duration(seconds) * time.Second
					in := exec.Command(unshare, args...)
					in.Env = cmd.Env
					cmd = in
				}
				life.stops = 2
				l.kill(life, cmd)
				l.forget(path, page)
				if l.rows == 0 {
					t.Error("want rows read, got none")
				}
			})
		}
	}
}
