package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

var update = flag.Bool("update", false, "write testdata anew")

// This test binary is shmctl, and a writer, when it is told to be.
const (
	asShmctl = "SHMCTL_TEST_RUN"
	asWriter = "SHMCTL_TEST_WRITER"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asShmctl) != "":
		main()
	case os.Getenv(asWriter) != "":
		liveWriter()
	case os.Getenv(asArchiver) != "":
		if err := archiving(os.Getenv(asArchiver)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newStore makes a store of its own, on tmpfs where there is one, and takes it away in the end.
func newStore(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmctl-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// An outcome is what a run of the program left.
type outcome struct {
	t           testing.TB
	args        []string
	out, errors string
	status      int
}

func command(store string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asShmctl+"=1", "SHMTS_DIR="+store, "TERM=xterm", "LC_ALL=C.UTF-8", "SHMTS_URL=")
	return cmd
}

func shmctlIn(t testing.TB, stdin, store string, args ...string) outcome {
	t.Helper()
	cmd := command(store, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &errs, strings.NewReader(stdin)
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	err := cmd.Run()
	timer.Stop()
	for i, a := range args { // for messages
		args[i] = shorten(a, 80)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{t, args, out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func shmctl(t testing.TB, store string, args ...string) outcome {
	t.Helper()
	return shmctlIn(t, "", store, args...)
}

// ok fails the test unless the program did what was asked without a word on standard error.
func (o outcome) ok() outcome {
	o.t.Helper()
	if o.status != exitDone || o.errors != "" {
		o.t.Fatalf("shmctl %q: want status 0 and nothing on standard error, got %d and %q", o.args, o.status, o.errors)
	}
	return o
}

// fails fails the test unless the program failed so, and said so on standard error.
func (o outcome) fails(status int, says ...string) outcome {
	o.t.Helper()
	if o.status != status {
		o.t.Fatalf("shmctl %q: want status %d, got %d; standard error: %s", o.args, status, o.status, o.errors)
	}
	for _, s := range says {
		if !strings.Contains(o.errors, s) {
			o.t.Errorf("shmctl %q: want %q on standard error, got %q", o.args, s, o.errors)
		}
	}
	return o
}

// contains fails the test unless standard output does.
func (o outcome) contains(says ...string) outcome {
	o.t.Helper()
	for _, s := range says {
		if !strings.Contains(o.out, s) {
			o.t.Errorf("shmctl %q: want %q in the answer, got:\n%s", o.args, s, o.out)
		}
	}
	return o
}

// decode reads one JSON value whose fields are all known.
func decode[T any](o outcome) T {
	o.t.Helper()
	list := decodeLines[T](o)
	if len(list) != 1 {
		o.t.Fatalf("shmctl %q: want one JSON value, got %d: %s", o.args, len(list), o.out)
	}
	return list[0]
}

func decodeLines[T any](o outcome) (list []T) {
	o.t.Helper()
	d := json.NewDecoder(strings.NewReader(o.out))
	d.DisallowUnknownFields()
	for {
		var v T
		if err := d.Decode(&v); err == io.EOF {
			return list
		} else if err != nil {
			o.t.Fatalf("shmctl %q: want JSON, got %v: %s", o.args, err, o.out)
		}
		list = append(list, v)
	}
}

// What differs from machine to machine in a golden text.
var varying = []struct{ is, as string }{
	{`/(dev/shm/shmctl-test-\w+|tmp/Test\w+/\d+)`, "STORE"},
	{`STORE/\d+/`, "STORE/UID/"},
	{`(superblock\.(pid|uid|pid_ns) +)\d+`, "${1}N"},
	{`(superblock\.boot_id +)"[0-9a-f]+"`, `${1}"ID"`},
	{`(superblock\.checksum +)0x[0-9a-f]+`, "${1}SUM"},
	{`pid \d+, uid \d+`, "pid N, uid N"},
	{`, [0-9a-z]+ ago`, ", AGE ago"},
	{`"uid":\d+,"pid":\d+`, `"uid":N,"pid":N`},
	{`"uid": \d+`, `"uid": N`},
	{`shmts-go [\w.-]+`, "shmts-go VERSION"},
	{`("id": )"[0-9a-f]{32}"`, `${1}"ID"`},
	{`"age_seconds":[0-9.e+]+`, `"age_seconds":N`},
	{` +\d+(y|d)\d\d+[dh]  `, "  AGE  "},
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	for _, v := range varying {
		got = regexp.MustCompile(v.is).ReplaceAllString(got, v.as)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: want\n%s\ngot\n%s\n(go test ./cmd/shmctl -update writes it anew)", path, want, got)
	}
}

// birth is the unix time at which segments of tests are born: long ago.
const birth = 1_700_000_000_000_000_000

// closedSegment writes a segment that says the same on every machine: a fake clock, a fixed id, five rows
// in a second's step. Its id begins with the digit.
func closedSegment(t testing.TB, store, job, instance string, digit byte) {
	t.Helper()
	// One P, one lane: a second one would be counted in overflow_threads.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	now := int64(0)
	w, err := writer.Open(writer.Options{
		Job: job, Instance: instance, Dir: store, NoTicker: true, OwnedLanes: -1, Labels: map[string]string{"rack": "r12"},
		Attributes: map[string]string{"host.name": "h1"},
		Clock:      func() (int64, int64) { return birth + now, 1e12 + now },
		NewID:      func() (id [16]byte) { id[0], id[15] = digit<<4, 1; return id },
		Tables: []writer.Table{
			{Name: "scalars", Counters: 2, Gauges: 2, Stats: 1, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}, {Step: 4 * time.Second, Rows: 4}}},
			{Name: "histograms", Histograms: 1, Buckets: 16, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	packets := w.Counter("rx_packets_total", writer.Label("queue", "0"), writer.Unit("{packet}"), writer.Help("Packets received."))
	float := w.FloatCounter("busy_seconds_total", writer.Unit("s"))
	depth := w.Gauge("queue_depth", writer.Help("Packets waiting."))
	w.Gauge("never_set")
	wait := w.Stat("wait_seconds", writer.Unit("s"))
	latency := w.Histogram("latency_seconds", writer.Unit("s"), writer.Buckets(0.001, 1), writer.Scale(0), writer.Help("Time on the way."))
	for i := range 5 {
		packets.Add(uint64(100 * (i + 1)))
		float.Add(0.25)
		depth.Set(float64(i) - 1.5)
		if i != 2 {
			wait.Record(float64(i+1) / 8)
			wait.Record(float64(i+1) / 4)
		}
		for j := range 10 {
			ex := writer.Exemplar{SpanID: [8]byte{7: byte(j)}, Time: time.Unix(0, birth+now+int64(j))}
			if j%9 == 0 {
				ex.TraceID = [16]byte{0: byte(i), 15: byte(j + 1)}
			}
			latency.RecordExemplar(float64(i+j+1)/512, ex)
		}
		now += int64(time.Second)
		w.Tick()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// liveWriter is the child: it records, ticks each 100 ms, and says so. It ends when told to by a
// line on standard input: "record N" adds without a tick, "close" closes.
func liveWriter() {
	w, err := writer.Open(writer.Options{Job: os.Getenv(asWriter), Instance: "child", Dir: os.Getenv("SHMTS_DIR"), NoTicker: os.Getenv("NO_TICKER") != "",
		Tables: []writer.Table{{Name: "scalars", Counters: 4, Gauges: 4, Lanes: 1, Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: 64}}}}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	events := w.Counter("events_total", writer.Unit("{event}"))
	w.Gauge("level").Set(7)
	events.Add(1000)
	w.Tick()
	fmt.Println("ready")
	for {
		var verb string
		var n uint64
		if _, err := fmt.Scan(&verb, &n); err != nil {
			w.Close()
			os.Exit(0)
		}
		switch verb {
		case "record":
			events.Add(n)
		case "tick":
			w.Tick()
		case "close":
			w.Close()
			os.Exit(0)
		}
		fmt.Println("done")
	}
}

// A child is a writer in a process of its own.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

func startWriter(t *testing.T, store, job string, env ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(append(os.Environ(), asWriter+"="+job, "SHMTS_DIR="+store), env...)
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	c.read("ready")
	return c
}

func (c *child) read(want string) {
	c.t.Helper()
	var got string
	if _, err := fmt.Fscan(c.out, &got); err != nil || got != want {
		c.t.Fatalf("writer: want %q, got %q, %v", want, got, err)
	}
}

func (c *child) do(verb string, n uint64) {
	c.t.Helper()
	fmt.Fprintln(c.in, verb, n)
	c.read("done")
}

// kill is SIGKILL: the writer says nothing more.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

func (c *child) close() {
	fmt.Fprintln(c.in, "close 0")
	c.cmd.Wait()
}

func (c *child) stop() { c.cmd.Process.Signal(syscall.SIGSTOP) }
func (c *child) goOn() { c.cmd.Process.Signal(syscall.SIGCONT) }

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("want %s within 20 s, got nothing of it", what)
		}
	}
}
