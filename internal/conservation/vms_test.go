package conservation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/testenv"
	"github.com/shmts/shmts/reader"
)

// vms is how many short-lived processes there are, and how long the longest lives; SHMTS_VMS=2000 and SHMTS_VM_LIFE=45s say otherwise.
// Steps are a tenth of the defaults': 4.5 s stand for a life of 45.
func vms(t *testing.T) (n int, longest time.Duration) {
	n, longest = testenv.Number(t, "SHMTS_VMS", 500, 60), 4500*time.Millisecond
	if s := os.Getenv("SHMTS_VM_LIFE"); s != "" {
		var err error
		if longest, err = time.ParseDuration(s); err != nil || longest < time.Second {
			t.Fatalf("SHMTS_VM_LIFE: want a duration of at least 1s, got %q", s)
		}
	}
	return n, longest
}

const (
	leastLife  = 20 * time.Millisecond
	vmDeadTTL  = 5 * time.Second
	vmSettling = 60 * time.Second
)

// vmTiers are the archive's.
var vmTiers = []string{"100ms", "1s", "10s"}

// vm is one of them, and what it will have recorded.
type vm struct {
	instance string
	life     time.Duration
	rounds   int
	end      string
}

// TestShortLives runs many processes that end in every way, most of them between two looks at the store,
// beside the real daemon; afterwards everything that each recorded is exact from the archive alone, in every tier, and the
// daemon has given back what it had of them.
func TestShortLives(t *testing.T) {
	n, longest := vms(t)
	bin := t.TempDir()
	build(t, exec.Command("gcc", "-std=c11", "-O2", "-I../../cshim", "-o", filepath.Join(bin, "vm"), "testdata/vm.c", "-pthread"))
	build(t, exec.Command("go", "build", "-o", bin, "../../cmd/shmtsd"))
	dir, err := os.MkdirTemp("/dev/shm", "shmts-vms-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	archiveDir := filepath.Join(t.TempDir(), "archive")
	d := startDaemon(t, filepath.Join(bin, "shmtsd"), "--store", dir, "--dead-ttl", vmDeadTTL.String(),
		"--archive.dir", archiveDir, "--archive.tiers", "100ms=64MiB,1s=32MiB,10s=32MiB", "--archive.ephemeral=false", "--log.level", "warn")
	before := d.usage(t)

	all := make([]vm, n)
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range all {
		all[i] = vm{fmt.Sprintf("vm-%04d", i), leastLife + time.Duration(random.Int64N(int64(longest-leastLife))), 2 * (1 + random.IntN(60)), []string{"close", "exit", "kill"}[random.IntN(3)]}
	}
	run := make(chan vm)
	var work sync.WaitGroup
	for range max(20, n/5) { // so many at once
		work.Go(func() {
			for v := range run {
				if err := v.live(filepath.Join(bin, "vm"), dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, v := range all {
		run <- v
	}
	close(run)
	work.Wait()
	if t.Failed() {
		return
	}

	deadline := time.Now().Add(vmDeadTTL + vmSettling)
	for left := n; left > 0; time.Sleep(100 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(dir, "*", "vm.*.shmts"))
		if left = len(files); err != nil || time.Now().After(deadline) {
			t.Fatalf("want every segment unlinked within %v, got %d left (%v)\n%s", vmSettling, left, err, d.log.String())
		}
	}
	after := d.usage(t) // a descriptor is given back at the poll after the next
	for ; after.fds > before.fds+8 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		after = d.usage(t)
	}
	t.Logf("%d lives: descriptors %d before, %d after; resident %d kB before, %d kB after", n, before.fds, after.fds, before.rss, after.rss)
	if after.fds > before.fds+8 {
		t.Errorf("descriptors: want about the %d from before, got %d", before.fds, after.fds)
	}
	if after.rss > before.rss+48<<10 {
		t.Errorf("resident: want about the %d kB from before, got %d kB", before.rss, after.rss)
	}
	a, err := archive.OpenReader(archiveDir) // beside the daemon, which may be folding yet
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for whole := 0; whole < n; time.Sleep(100 * time.Millisecond) {
		whole = 0
		for _, inc := range inTier(t, a, len(vmTiers)-1) {
			if len(inc.Series) == 100 && inc.Ended != 0 {
				whole++
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("want all %d folded into the tier of 10s within %v, got %d\n%s", n, vmSettling, whole, d.log.String())
		}
	}
	d.stop(t)
	for tier, step := range vmTiers {
		found := inTier(t, a, tier)
		byInstance := map[string][]*archive.Incarnation{}
		for _, inc := range found {
			for _, p := range inc.Labels {
				if p.Name == "instance" {
					byInstance[p.Value] = append(byInstance[p.Value], inc)
				}
			}
		}
		if len(byInstance) != n && len(found) != n {
			t.Errorf("tier %s: want %d sources of one incarnation, got %d of %d", step, n, len(byInstance), len(found))
		}
		for _, v := range all {
			if incs := byInstance[v.instance]; len(incs) == 1 {
				v.check(t, a, incs[0], step)
			} else {
				t.Errorf("tier %s: %s: want one incarnation, got %d", step, v.instance, len(incs))
			}
		}
	}
}

// inTier is everything that a tier has of them.
func inTier(t *testing.T, a archive.Reader, tier int) []*archive.Incarnation {
	t.Helper()
	found, err := a.Select(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64, Tiers: []int{tier},
		Labels: []archive.Matcher{{Name: "job", Equal: "vm", Match: func(v string) bool { return v == "vm" }}}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// live runs the process to its end.
func (v *vm) live(bin, dir string) error {
	cmd := exec.Command(bin, "--dir", dir, "--instance", v.instance, "--ms", strconv.FormatInt(v.life.Milliseconds(), 10), "--rounds", strconv.Itoa(v.rounds), "--end", v.end)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && v.end == "kill" && status.Signal() == syscall.SIGKILL {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", v.instance, err, stderr.String())
	}
	return nil
}

// check holds what a tier of the archive has of a life against what it recorded.
func (v *vm) check(t *testing.T, a archive.Reader, inc *archive.Incarnation, step string) {
	t.Helper()
	if inc.Ended == 0 {
		t.Errorf("tier %s: %s: want it ended, got no end", step, v.instance)
	}
	want := 100
	if step == "100ms" {
		want = 90 // the histograms' table has no rows of that step
	}
	if len(inc.Series) != want {
		t.Errorf("tier %s: %s: want %d series, got %d", step, v.instance, want, len(inc.Series))
	}
	for _, s := range inc.Series {
		if s.Table >= len(inc.Tables) || len(inc.Tables[s.Table].Tiers) != 1 {
			t.Errorf("tier %s: %s: %s: want its table in the tier, got %+v", step, v.instance, s.Name, inc.Tables)
			continue
		}
		tt := inc.Tables[s.Table].Tiers[0]
		kind, number, _ := strings.Cut(s.Name, "_")
		k, _ := strconv.Atoi(number)
		got := map[archive.Field]float64{archive.Min: math.Inf(1), archive.Max: math.Inf(-1)}
		fields := []archive.Field{archive.Last}
		switch s.Kind {
		case reader.Stat:
			fields = []archive.Field{archive.Last, archive.Count, archive.Sum, archive.Min, archive.Max}
		case reader.Gauge:
			fields = []archive.Field{archive.Last, archive.Min, archive.Max}
		case reader.Histogram:
			fields = []archive.Field{archive.Hist}
		}
		columns := make([]archive.Column, len(fields))
		for i, f := range fields {
			columns[i] = archive.Column{Series: s, Field: f}
		}
		next := uint64(1)
		for c, err := range a.Read(inc, s.Table, 0, math.MinInt64, math.MaxInt64, columns) {
			if err != nil {
				t.Fatal(err)
			}
			for row, no := range c.Numbers {
				if !tt.Folded && no != next {
					t.Errorf("tier %s: %s: %s: want row %d, got %d", step, v.instance, s.Name, next, no)
				}
				next = no + 1
				for i, f := range fields {
					if c.Present[i] != nil && !c.Present[i][row] {
						continue
					}
					if f == archive.Hist {
						words := c.Cells[i][row*(s.Buckets.Count+3):][:s.Buckets.Count+3]
						got[archive.Sum], got[archive.Count] = math.Float64frombits(words[0]), 0
						for _, w := range words[1:] {
							got[archive.Count] += float64(w)
						}
						continue
					}
					x := archive.Number(s, f, c.Cells[i][row])
					switch {
					case s.Kind == reader.Stat && f == archive.Min:
						x = min(x, got[f])
					case s.Kind == reader.Stat && f == archive.Max:
						x = max(x, got[f])
					}
					got[f] = x
				}
			}
		}
		for f, want := range v.want(kind, k) {
			if got[f] != want {
				t.Errorf("tier %s: %s, which ended with %s after %v and %d rounds: field %d of %s: want %v, got %v", step, v.instance, v.end, v.life, v.rounds, f, s.Name, want, got[f])
			}
		}
	}
}

// want is what testdata/vm.c says of a series.
func (v *vm) want(kind string, k int) map[archive.Field]float64 {
	r := float64(v.rounds)
	switch kind {
	case "counter":
		return map[archive.Field]float64{archive.Last: r * float64(k+1)}
	case "seconds":
		return map[archive.Field]float64{archive.Last: r * 0.25}
	case "level":
		return map[archive.Field]float64{archive.Last: r}
	case "gauge":
		return map[archive.Field]float64{archive.Last: r, archive.Max: r}
	case "wait":
		return map[archive.Field]float64{archive.Count: r, archive.Sum: r * float64(k+1) / 64}
	}
	sum, least, most := 0.0, math.Inf(1), math.Inf(-1)
	for i := 1; i <= v.rounds; i++ {
		x := float64(i%(k+1)) + 0.5
		sum, least, most = sum+x, min(least, x), max(most, x)
	}
	return map[archive.Field]float64{archive.Last: float64(v.rounds%(k+1)) + 0.5, archive.Count: r, archive.Sum: sum, archive.Min: least, archive.Max: most}
}

func build(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// daemon is a shmtsd of its own.
type daemon struct {
	cmd *exec.Cmd
	log bytes.Buffer
	url string
}

// startDaemon starts one on a port of its own, and waits until it is ready.
func startDaemon(t *testing.T, bin string, args ...string) *daemon {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "http")
	d := &daemon{cmd: exec.Command(bin, append(args, "--listen", "unix:"+socket)...), url: "unix:" + socket}
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if answer, err := d.get("/-/ready"); err == nil {
			return d
		} else if time.Now().After(deadline) {
			t.Fatalf("want the daemon ready within 20s, got %v (%s)\n%s", err, answer, d.log.String())
		}
	}
}

func (d *daemon) get(path string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(strings.TrimPrefix(d.url, "unix:"))}}
	resp, err := client.Get("http://shmtsd" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(body), err
}

// usage is what the process has: descriptors, and resident memory in kB.
type usage struct{ fds, rss int }

func (d *daemon) usage(t *testing.T) (u usage) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &u.rss); err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	return u
}

// stop ends it as an init system would, and wants status 0.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("shmtsd: %v\n%s", err, d.log.String())
	}
}

func dialUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}
