// Package cshim_test compiles C programs with shmts.h, runs them, and reads
// what they left with package layout.
package cshim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/layout"
)

// newStore is a private store on tmpfs, as segments have in life.
func newStore(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-cshim-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run runs a program that ends by itself and succeeds. It answers stdout.
func run(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := try(t, exec.Command(path, args...))
	if err != nil {
		t.Fatalf("%s %s: %v", filepath.Base(path), strings.Join(args, " "), err)
	}
	return out
}

func try(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	timed := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	timed.Stdin, timed.Env = cmd.Stdin, cmd.Env
	var stdout, stderr bytes.Buffer
	timed.Stdout, timed.Stderr = &stdout, &stderr
	timed.WaitDelay = 10 * time.Second // for children that hold stdout
	err := timed.Run()
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String(), err
}

// eachCompiler runs a test with prog.c built by every compiler of this machine.
func eachCompiler(t *testing.T, test func(t *testing.T, prog string)) {
	t.Helper()
	firstCompiler(t)
	for _, c := range compilers() {
		t.Run(c.name, func(t *testing.T) { test(t, program(t, c, "testdata/prog.c", "-ldl")) })
	}
}

// A segment, decoded: its header, and its canonical text.
type segment struct {
	path   string
	header *layout.Header
	text   []string
	live   map[string]string // by name: what the series' live cells say
	lost   string
}

func readSegment(t *testing.T, path string) segment {
	t.Helper()
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]uint64, len(image)/8)
	copy(layout.Bytes(words), image)
	h, err := layout.ParseHeader(words, int64(len(image)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var text bytes.Buffer
	if err := canon.Dump(&text, image); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	s := segment{path: path, header: h, text: strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n"), live: map[string]string{}}
	names := map[string]string{}
	for _, line := range s.text {
		f := strings.SplitN(line, " ", 3)
		switch f[0] {
		case "skip":
			// Of a ring of exemplars, what a kill leaves, or a number that was dropped.
			if !strings.HasPrefix(line, "skip exemplar ") || !strings.HasSuffix(line, " writing") && !strings.HasSuffix(line, " number") {
				t.Errorf("%s: want nothing to skip, got %s", path, line)
			}
		case "series":
			names[f[1]] = strings.Split(line, "\"")[1]
		case "live":
			s.live[names[f[1]]] = f[2]
		case "lost":
			s.lost = line
		}
	}
	return s
}

// readStore reads the segments of this user in a store, oldest first.
func readStore(t *testing.T, store string) []segment {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(store, strconv.Itoa(os.Geteuid()), "*"))
	var found []segment
	for _, p := range paths {
		found = append(found, readSegment(t, p))
	}
	slices.SortFunc(found, func(a, b segment) int { return int(a.header.BirthUnix - b.header.BirthUnix) })
	return found
}

func readOne(t *testing.T, store string) segment {
	t.Helper()
	all := readStore(t, store)
	if len(all) != 1 {
		t.Fatalf("want one segment in %s, got %d", store, len(all))
	}
	return all[0]
}

// allOf is what record_all of prog.c left after these numbers of calls.
func allOf(calls ...int) map[string]string {
	n, odd, sum := 0, 0, 0
	for _, c := range calls {
		n += c
		odd += (c + 1) / 2
		for i := 1; i <= c; i++ {
			sum += i % 5
		}
	}
	return map[string]string{
		"counter": strconv.Itoa(2 * n), "counter_f64": strconv.FormatFloat(float64(n)/4, 'g', 17, 64),
		"updown":        strconv.Itoa(3*odd - (n - odd)),
		"stat":          fmt.Sprintf("count=%d sum=%d ", n, sum),
		"histogram":     fmt.Sprintf("sum=%s zero=0 above=0 buckets=-9:%d", strconv.FormatFloat(float64(n)/2, 'g', 17, 64), n),
		"histogram_u64": fmt.Sprintf("sum=%d zero=0 above=0 buckets=%d:%d", 7*n, layout.BucketIndex(2, 7), n),
	}
}

func (s *segment) want(t *testing.T, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got, ok := s.live[name]; !ok || !strings.HasPrefix(got, value) {
			t.Errorf("%s: series %s: want %s, got %s", filepath.Base(s.path), name, value, got)
		}
	}
}

func TestEveryVariantCounts(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		run(t, prog, "variants", store)
		s := readOne(t, store)
		s.want(t, allOf(1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000))
		s.want(t, map[string]string{"gauge": "1000", "gauge_i64": "-1000"})
		if !regexp.MustCompile(`overflow_threads=[2-6] `).MatchString(s.lost) {
			t.Errorf("want 2 to 6 threads that found no lane, got %s", s.lost)
		}
	})
}

func TestTenThousandThreadsOnEightLanes(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		if out := run(t, prog, "churn", store); out != "overflow_threads 0\n" {
			t.Errorf("want no thread without a lane, got %s", out)
		}
		s := readOne(t, store)
		s.want(t, allOf(slices.Repeat([]int{3}, 10000)...))
	})
}

func TestRejectedAndExtreme(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		run(t, prog, "rejects", store)
		s := readOne(t, store)
		s.want(t, map[string]string{
			"counter_f64": "0", "stat": "count=1 sum=-0.5 last=-0.5 min=-0.5 max=-0.5", "positive": "count=1 sum=0.5 last=0.5 min=0.5 max=0.5",
			"histogram": "sum=1.0000000000000001e+300 zero=4 above=2 buckets=-1:1", "histogram_u64": "sum=18446744073709551615 zero=1 above=1 buckets=",
			"gauge": "nan:7ff8000000000001", "gauge_i64": "-9223372036854775807",
		})
		if !strings.Contains(s.lost, "rejected_records=9 ") {
			t.Errorf("want 9 rejected records, got %s", s.lost)
		}
	})
}

// The index that C computes is that of layout, at and around every bound.
func TestBucketIndex(t *testing.T) {
	prog := program(t, firstCompiler(t), "testdata/prog.c", "-ldl")
	var in strings.Builder
	var want []string
	add := func(scale int, bits uint64) {
		if v := math.Float64frombits(bits); v > 0x1p-1022 && v <= math.MaxFloat64 {
			fmt.Fprintf(&in, "%d %x\n", scale, bits)
			want = append(want, strconv.Itoa(layout.BucketIndex(scale, v)))
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for scale := range layout.MaxScale + 1 {
		for i := -200; i < 200; i++ {
			bits := math.Float64bits(layout.BucketUpper(scale, i))
			for d := -2; d <= 2; d++ {
				add(scale, bits+uint64(d))
			}
		}
		for range 2000 {
			add(scale, random.Uint64()>>1)
		}
	}
	cmd := exec.Command(prog, "buckets", newStore(t))
	cmd.Stdin = strings.NewReader(in.String())
	out, err := try(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	got, asked := strings.Fields(out), strings.Split(in.String(), "\n")
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("index of (scale, bits) %s: want %s, got %v", asked[i], want[i], got[min(i, len(got)-1)])
		}
	}
}

func TestForkedChildrenHaveSegmentsOfTheirOwn(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		if out := run(t, prog, "fork", store); out != "daemon done\n" {
			t.Errorf("want the daemon to see a row of its own, got %q", out)
		}
		all := readStore(t, store)
		if len(all) != 4 {
			t.Fatalf("want 4 segments (parent, child, its child, a daemon), got %d", len(all))
		}
		for i, want := range [][]int{{5, 5, 1}, {7, 7, 3}, {11}, {13}} {
			all[i].want(t, allOf(want...))
			if all[i].header.GroupID != all[i].header.SegmentID {
				t.Errorf("segment %d: want a group of its own, got %x of %x", i, all[i].header.GroupID, all[i].header.SegmentID)
			}
		}
		if _, ok := all[0].live["child_only"]; ok || all[1].live["child_only"] != "1" {
			t.Errorf("want child_only in the child alone, got %q", all[1].live["child_only"])
		}
	})
}

func TestForkedChildHasAnInstanceOfItsOwn(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		pids := strings.Fields(run(t, prog, "instance", store))
		all := readStore(t, store)
		if len(all) != 2 || len(pids) != 2 {
			t.Fatalf("want two processes with a segment each, got %v and %d", pids, len(all))
		}
		for i, s := range all {
			if got := layout.Value(s.header.Labels, "instance"); !strings.HasSuffix(got, ":"+pids[i]) {
				t.Errorf("want an instance that ends in %s, got %q", pids[i], got)
			}
			if len(s.header.Labels) != 4 || layout.Value(s.header.Labels, "zone") != "z" || layout.Value(s.header.Attributes, "zone") != "z" {
				t.Errorf("want the other labels and attributes as they were, got %v, %v", s.header.Labels, s.header.Attributes)
			}
		}
	})
}

func TestForkWithoutAStore(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		for _, lazy := range []bool{false, true} {
			store := newStore(t)
			args := []string{"fork_lost", store}
			losses := "fork_losses=1"
			if lazy {
				args, losses = append(args, "lazy"), "fork_losses=0"
			}
			run(t, prog, args...)
			all := readStore(t, store)
			if len(all) != 2 {
				t.Fatalf("want the parent's segment and the child's, born at its first tick, got %d", len(all))
			}
			all[0].want(t, allOf(5))
			all[1].want(t, allOf(7, 1))
			if !strings.HasSuffix(all[1].lost, losses) {
				t.Errorf("want %s, got %s", losses, all[1].lost)
			}
		}
	})
}

func TestHandlesOutliveClose(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		run(t, prog, "close", store)
		all := readStore(t, store)
		all[0].want(t, allOf(10, 10, 10, 1000))
		text := strings.Join(all[0].text, "\n")
		if !strings.Contains(text, "\ncontrol state=2 ") || strings.Count(text, " flags=1 cells=") != 3 {
			t.Errorf("want state 2 and a final row in each of 3 tiers, got\n%s", text)
		}
	})
}

func TestOpenThatFails(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		expect := func(out, want string) {
			t.Helper()
			if !strings.Contains(out, want) {
				t.Errorf("want an error that says %q, got %q", want, out)
			}
		}
		missing := filepath.Join(store, "missing")
		expect(run(t, prog, "fail", missing), "No such file or directory")
		if _, err := os.Stat(missing); err == nil {
			t.Errorf("want a directory that was named not to be created, got %s", missing)
		}
		expect(run(t, prog, "fail", store, "fsize"), "RLIMIT_FSIZE 65536")
		expect(run(t, prog, "fail", store, "as"), "shmts: want ")
		expect(run(t, prog, "fail", "/dev/null"), "Not a directory")
		if left := readStore(t, store); len(left) != 0 {
			t.Errorf("want no segment left behind, got %d", len(left))
		}
		for _, way := range []string{"", "notmpfile", "nolink", "norename"} {
			store := newStore(t)
			expect(run(t, prog, "fail", store, way), "born")
			s := readOne(t, store) // and no dot-name
			if fi, err := os.Stat(s.path); err != nil || fi.Mode() != 0o444 {
				t.Errorf("%s: want mode 0444, got %v, %v", way, fi.Mode(), err)
			}
		}
		cmd := exec.Command(prog, "fail", "")
		cmd.Env = append(os.Environ(), "SHMTS_DIR="+newStore(t))
		out, err := try(t, cmd)
		if err != nil {
			t.Error(err)
		}
		expect(out, "born")
	})
}

func TestFullStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a small tmpfs: needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	out := run(t, program(t, firstCompiler(t), "testdata/prog.c", "-ldl"), "fail", dir)
	if !strings.Contains(out, "No space left on device") {
		t.Errorf("want ENOSPC by its name, got %q", out)
	}
}

func TestWithoutProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("hides /proc in a mount namespace: needs root")
	}
	store := newStore(t)
	out := run(t, program(t, firstCompiler(t), "testdata/prog.c", "-ldl"), "fail", store, "noproc")
	if strings.HasPrefix(out, "can't hide /proc") {
		t.Skip(strings.TrimSpace(out))
	}
	if out != "born\n" {
		t.Errorf("want a birth without /proc, got %q", out)
	}
	readOne(t, store)
}

// A segment that is born while threads record holds every record, once.
func TestBornLate(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		n, err := strconv.Atoi(strings.TrimSpace(run(t, prog, "adopt", store)))
		if err != nil {
			t.Fatal(err)
		}
		s := readOne(t, filepath.Join(store, "later"))
		want := allOf(n)
		for _, name := range []string{"updown", "stat"} { // whose records are not all the same
			delete(want, name)
		}
		s.want(t, want)
		s.want(t, map[string]string{"stat": fmt.Sprintf("count=%d ", n), "zero": "0", "never_set": "unset"})
		rows := 0
		for _, line := range s.text {
			if strings.HasPrefix(line, "row 0 0 ") {
				rows++
			}
		}
		if rows < 90 {
			t.Errorf("want the rows since its birth, got %d", rows)
		}
	})
}

func TestStrictSeccomp(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		if out := run(t, prog, "seccomp", store); out != "sealed\n" {
			t.Errorf("want to live under the filter, got %q", out)
		}
		s := readOne(t, store)
		s.want(t, allOf(slices.Concat([]int{1}, slices.Repeat([]int{250}, 3000))...))
		s.want(t, map[string]string{"too_late_for_growth": "1"})
	})
}

func TestTwoCopiesInOneProcess(t *testing.T) {
	c := firstCompiler(t)
	prog := program(t, c, "testdata/prog.c", "-ldl")
	var libs []string
	for _, name := range []string{"a", "b"} {
		lib, err := compile(c, "testdata/copy.c", "copy_"+name+".so", "-fPIC", "-shared", "-DCOPY="+name)
		if err != nil {
			t.Fatal(err)
		}
		libs = append(libs, lib)
	}
	store := newStore(t)
	run(t, prog, "copies", store, libs[0], libs[1])
	all := readStore(t, store)
	if len(all) != 4 {
		t.Fatalf("want a segment for each copy in parent and child, got %d", len(all))
	}
	for i, want := range []string{"7000", "7000", "1000", "1000"} {
		all[i].want(t, map[string]string{"counter": want})
	}
}

func TestGrowth(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		out := run(t, prog, "growth", store)
		all := readStore(t, store)
		if len(all) != 4 {
			t.Fatalf("want 4 segments, got %d", len(all))
		}
		series := 0
		for i, s := range all {
			for name, value := range s.live {
				series++
				if want := map[bool]string{true: "2", false: "1"}[name == "c250"]; value != want {
					t.Errorf("%s: want %s, got %s", name, want, value)
				}
			}
			if s.header.GroupID != all[0].header.SegmentID || int(s.header.GroupIndex) != i {
				t.Errorf("segment %d: want group %x and its index, got %x, %d", i, all[0].header.SegmentID, s.header.GroupID, s.header.GroupIndex)
			}
		}
		if want := fmt.Sprintf("4 segments, %d series, %d dropped, plan %d", series, 1000-series, all[0].header.TotalSize); !strings.Contains(out, want) || !strings.Contains(out, "want room") {
			t.Errorf("want %q, got %q", want, out)
		}
		if series < 400 {
			t.Errorf("want 100 series a segment at the least, got %d", series)
		}
	})
}

func TestDefaultSizeAndBudget(t *testing.T) {
	prog := program(t, firstCompiler(t), "testdata/prog.c", "-ldl")
	for _, p := range []struct{ budget, want string }{
		{"0", "512000 born"}, {"300000", "299008 born"}, {"1000", "max_bytes: want at least 176128"},
	} {
		store := newStore(t)
		out := run(t, prog, "plan", store, p.budget)
		if !strings.Contains(out, p.want) {
			t.Errorf("budget %s: want %s, got %s", p.budget, p.want, out)
		}
		for _, s := range readStore(t, store) {
			if fi, err := os.Stat(s.path); err != nil || !strings.HasPrefix(out, strconv.FormatInt(fi.Size(), 10)+" ") {
				t.Errorf("want the file that was planned, got %d bytes for %s", fi.Size(), out)
			}
		}
	}
}

func TestMisuseIsASinkAndCounted(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		if out := run(t, prog, "misuse", store); !strings.Contains(out, "want it once, got it twice") {
			t.Errorf("want the first error, got %q", out)
		}
		if s := readOne(t, store); len(s.live) != 1 || !strings.Contains(s.lost, "dropped_series=10 ") {
			t.Errorf("want one series and 10 dropped, got %v, %s", s.live, s.lost)
		}
	})
}

func TestRetiredCellsComeBack(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		run(t, prog, "retire", store)
		s := readOne(t, store)
		s.want(t, map[string]string{"c": "3"})
		var series []string
		for _, line := range s.text {
			if strings.HasPrefix(line, "series ") {
				series = append(series, line)
			}
		}
		if len(series) != 1 || !strings.Contains(series[0], " live generation=4 ") {
			t.Errorf("want one descriptor in its fourth generation, got %q", series)
		}
	})
}

// strace sees no syscall while three million records of each kind are made.
func TestRecordsMakeNoSyscall(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace: apt-get install strace")
	}
	prog := program(t, firstCompiler(t), "testdata/prog.c", "-ldl")
	log := filepath.Join(t.TempDir(), "strace")
	if _, err := try(t, exec.Command("strace", "-f", "-o", log, prog, "million", newStore(t))); err != nil {
		if strings.Contains(err.Error(), "ptrace") {
			t.Skipf("strace may not trace here: %v", err)
		}
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	begin := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"begin\n"`) })
	end := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"end\n"`) })
	if begin < 0 || end != begin+1 {
		t.Errorf("want no syscall between the two writes, got %q", lines[max(begin, 0):max(end, 0)])
	}
}

// age says in a dead segment that its last sign of life was at a mono time.
func age(t *testing.T, s segment, mono int64) {
	t.Helper()
	if err := os.Chmod(s.path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	word := binary.LittleEndian.AppendUint64(nil, uint64(mono))
	for _, at := range []int64{int64(s.header.Control.Offset) + layout.CtlHeartbeat*8, 0x58} { // birth_mono, FORMAT.md 4.1
		if _, err := f.WriteAt(word, at); err != nil {
			t.Fatal(err)
		}
	}
}

// What a service that crashes again and again leaves is bounded: FORMAT.md 10.11.
func TestLitter(t *testing.T) {
	prog := program(t, firstCompiler(t), "testdata/prog.c", "-ldl")
	store := newStore(t)
	for range 20 {
		run(t, prog, "fail", store, "")
	}
	before := readStore(t, store)
	if len(before) != 20 {
		t.Fatalf("want young segments left alone, got %d of 20", len(before))
	}
	// They gave their last sign 100 minutes ago and less, a minute apart; the newest two five minutes ago.
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	for i, s := range before {
		ago := time.Duration(100-i) * time.Minute
		if i >= 18 {
			ago = 5 * time.Minute
		}
		age(t, s, ts.Nano()-int64(ago))
	}
	stranger := filepath.Join(filepath.Dir(before[0].path), "prog2."+strings.Repeat("0", 32)+".shmts")
	if err := os.WriteFile(stranger, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	run(t, prog, "fail", store, "")
	if err := os.Remove(stranger); err != nil {
		t.Errorf("want another stem's file left alone, got %v", err)
	}
	for i, s := range before {
		if _, err := os.Lstat(s.path); (err == nil) != (i >= 4) {
			t.Errorf("dead segment %d of 20: want it kept: %v, got %v", i, i >= 4, err)
		}
	}
	for range 20 { // that died just now
		run(t, prog, "fail", store, "")
	}
	if paths, _ := filepath.Glob(filepath.Join(filepath.Dir(before[0].path), "*")); len(paths) != 2+1+20 {
		t.Errorf("want the young left alone however many there are, and no other left, got %d files", len(paths))
	}
}

// Killed at random instants, a segment holds what its writer had completed, and
// in each context at most the one call that was in flight.
func TestStressKilled(t *testing.T) {
	prog := program(t, firstCompiler(t), "testdata/stress.c")
	for i, mode := range [][]string{{}, {"--churn"}, {"--signals"}, {"--forks", "2"}, {"--churn", "--signals", "--forks", "2", "--threads", "9"}} {
		t.Run(strings.Join(append(mode, "killed"), " "), func(t *testing.T) {
			for round := range 6 {
				store := newStore(t)
				ack := filepath.Join(store, "ack")
				cmd := exec.Command(prog, append([]string{"--dir", store, "--ack", ack}, mode...)...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				deadline := time.Now().Add(20 * time.Second)
				for records := uint64(0); records < 200 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if b, err := os.ReadFile(ack); err == nil && len(b) > 4096 {
						records = binary.LittleEndian.Uint64(b[64:])
					}
				}
				time.Sleep(time.Duration(rand.IntN(15000)+1000*i*round) * time.Microsecond) // the instant is to be any
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				cmd.Wait()
				checkAcknowledged(t, store, ack, false)
			}
		})
	}
	for _, mode := range [][]string{{}, {"--churn", "--signals", "--forks", "2"}} {
		store := newStore(t)
		ack := filepath.Join(store, "ack")
		run(t, prog, append([]string{"--dir", store, "--ack", ack, "--calls", "5000"}, mode...)...)
		checkAcknowledged(t, store, ack, true)
	}
}

// checkAcknowledged holds segments against stress.c's pages.
func checkAcknowledged(t *testing.T, store, ack string, exact bool) {
	t.Helper()
	const processes, page = 16, 16384
	b, err := os.ReadFile(ack)
	if err != nil || len(b) < processes*page {
		t.Fatalf("want %d pages of acknowledgements, got %d bytes, %v", processes, len(b), err)
	}
	bySegment := map[string]segment{}
	// Children are killed with the group, so their locks are free when the group is gone.
	for _, s := range readStore(t, store) {
		bySegment[string(s.header.SegmentID[:])] = s
	}
	checked := 0
	for p := range processes {
		pg := b[p*page:][:page]
		if binary.LittleEndian.Uint64(pg) == 0 {
			continue
		}
		s, ok := bySegment[string(pg[16:32])]
		if !ok {
			t.Fatalf("process %d: want its segment %x, got none", p, pg[16:32])
		}
		checked++
		var sum [8]uint64
		contexts := uint64(0)
		for at := 64; at+64 <= page; at += 64 {
			used := false
			for w := range sum {
				n := binary.LittleEndian.Uint64(pg[at+8*w:])
				sum[w] += n
				used = used || n != 0
			}
			if used {
				contexts++
			}
		}
		contexts += 64 // those whose first call was in flight: threads just begun
		if exact {
			contexts = 0
		}
		value := func(name, field string) float64 {
			text := s.live[name]
			if field != "" {
				_, text, _ = strings.Cut(" "+text, " "+field+"=")
				text, _, _ = strings.Cut(text, " ")
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("%s %s: want a number, got %q", name, field, s.live[name])
			}
			return v
		}
		buckets := func(name string) float64 {
			_, text, _ := strings.Cut(s.live[name], " buckets=")
			n := value(name, "zero") + value(name, "above")
			for _, b := range strings.Split(text, ",") {
				if _, count, ok := strings.Cut(b, ":"); ok {
					c, _ := strconv.ParseFloat(count, 64)
					n += c
				}
			}
			return n
		}
		for _, c := range []struct {
			what      string
			got, acks float64
			most      float64 // that one call changes it by
		}{
			{"adds", value("adds", ""), float64(sum[0]), 1},
			{"f64s", value("f64s", ""), float64(sum[1]) / 2, 0.5},
			{"sizes", value("sizes", "count"), float64(sum[3]), 1},
			{"waits", buckets("waits"), float64(sum[4]), 1},
			{"hops", buckets("hops"), float64(sum[5]), 1},
			{"hops sum", value("hops", "sum"), 3 * float64(sum[5]), 3},
		} {
			if c.got < c.acks || c.got > c.acks+c.most*float64(contexts) {
				t.Errorf("process %d: %s: want %v, and at most %d calls in flight, got %v", p, c.what, c.acks, contexts, c.got)
			}
		}
		seen := map[[2]uint64]bool{}
		for _, line := range s.text {
			var n, k, i, span uint64
			var series, at int64
			var v float64
			if _, err := fmt.Sscanf(line, "exemplar %d series=%d value=%g t=%d trace=%16x%16x span=%16x", &n, &series, &v, &at, &k, &i, &span); err != nil {
				continue
			}
			k, i, span = bits.ReverseBytes64(k), bits.ReverseBytes64(i)-1, bits.ReverseBytes64(span)
			offered := uint64(0)
			if i < (page-64)/64 {
				offered = binary.LittleEndian.Uint64(pg[64*(1+i)+56:])
			}
			if k == 0 || k > offered+1 || seen[[2]uint64{k, i}] || v != float64(k*128+i) || span != k*7+i || at != int64(k*1000+i) {
				t.Errorf("process %d: want one of %d that context %d offered, once, got %s", p, offered, i, line)
			}
			seen[[2]uint64{k, i}] = true
		}
		if exact && len(seen) == 0 {
			t.Errorf("process %d: want exemplars, got none", p)
		}
		if d := value("level", "") - float64(int64(sum[2])); math.Abs(d) > 2*float64(contexts) {
			t.Errorf("process %d: level: want %d and at most %d calls in flight, got %v more", p, int64(sum[2]), contexts, d)
		}
	}
	if checked == 0 {
		t.Error("want a process that recorded, got none")
	}
}
