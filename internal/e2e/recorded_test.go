//go:build peers

package e2e

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

// What the writer process records. Sums are of binary fractions, so that they are
// exact in whatever order they are added.
const (
	packets = 1<<53 + 1001 // beyond what a double holds: integers stay integers
	seconds = 12.375
)

var (
	batches   = []float64{4, 1.5, 32}
	latencies = []float64{ // of the range 0.001 to 1, so the buckets of indexes -80 to -1
		0.5, 0.5, 0.25, 0.3125, 0.3125, 0.3125, 1, // 1, 0.5, 0.25 are upper bounds: inclusive
		0.0009765625, 0.00048828125, 0, // at the zero threshold 2^-10 and below it
		1.5, 1024, // above the range: the bucket after the last
	}
	sizes = []uint64{64, 65, 1500, 1500, 9000, 65535}
)

// bucketCounts is where values belong, by the definition: bucket i of scale 3 is
// (2^(i/8), 2^((i+1)/8)]. It takes a logarithm, which the product does not, and is
// only right for values not within rounding of an odd bound, as all here are.
func bucketCounts[T float64 | uint64](values []T, low, high int) (zero uint64, counts map[int]uint64) {
	counts = map[int]uint64{}
	for _, v := range values {
		i := math.MinInt
		if v > 0 {
			i = int(math.Ceil(8*math.Log2(float64(v)))) - 1
		}
		if i < low {
			zero++
			continue
		}
		counts[min(i, high+1)]++
	}
	return zero, counts
}

func total[T float64 | uint64](values []T) (sum T) {
	for _, v := range values {
		sum += v
	}
	return sum
}

// recorded is what the writer process says of itself.
type recorded struct {
	Before, After int64 // unix ns, around the registration of every series
	Done          int64 // when everything was recorded: rows before that may hold less
}

// The environment that makes TestWriterProcess the writer process.
const (
	writerEnv = "SHMTS_E2E_WRITER" // the job; "batch" kills itself
	storeEnv  = "SHMTS_E2E_STORE"
	ringEnv   = "SHMTS_E2E_RING" // rows of 1 s of each table; empty: the default tiers
)

// TestWriterProcess is no test but that process: see startWriter.
func TestWriterProcess(t *testing.T) {
	job := os.Getenv(writerEnv)
	if job == "" {
		t.Skip("only a process of its own, for the other tests")
	}
	if err := record(job, os.Getenv(storeEnv)); err != nil {
		t.Fatal(err)
	}
}

// record is the writer process. With job batch it dies by SIGKILL as soon as it has said what it
// recorded, which mostly is before its first row; otherwise it lives until its standard input is closed.
func record(job, store string) error {
	r := recorded{Before: time.Now().UnixNano()}
	o := writer.Options{Job: job, Instance: job + "-1", Dir: store,
		Labels: map[string]string{"zone": "a"}, Attributes: map[string]string{"service.version": "1.2.3"}}
	if rows, err := strconv.Atoi(os.Getenv(ringEnv)); err == nil {
		tiers := []writer.Tier{{Step: time.Second, Rows: rows}}
		o.Tables = []writer.Table{{Name: "scalars", Scalars: 20, Stats: 4, Tiers: tiers}, {Name: "histograms", Histograms: 4, Buckets: 80, Tiers: tiers}}
	}
	w, err := writer.Open(o)
	if err != nil {
		return err
	}
	counter := w.Counter("rx_packets", writer.Label("queue", "0"), writer.Unit("{packet}"), writer.Help("packets received"))
	float := w.FloatCounter("process.cpu.time", writer.Unit("s"))
	updown := w.UpDownCounter("connections")
	gauge := w.Gauge("temperature", writer.Unit("Cel"))
	integer := w.IntGauge("queue.depth")
	w.Gauge("never.set")
	stat := w.Stat("batch", writer.NonNegative())
	latency := w.Histogram("http.server.request.duration", writer.Label("method", "GET"), writer.Unit("s"), writer.Buckets(0.001, 1))
	size := w.IntHistogram("rx.size", writer.Unit("By"), writer.Buckets(64, 65536))
	if err := w.Err(); err != nil {
		return err
	}
	r.After = time.Now().UnixNano()

	counter.Add(packets - 1000)
	for range 1000 {
		counter.Inc()
	}
	float.Add(12)
	float.Add(0.375)
	updown.Add(10)
	updown.Add(-13)
	gauge.Set(99)
	gauge.Set(21.5)
	integer.Set(-7)
	for _, v := range batches {
		stat.Record(v)
	}
	for _, v := range latencies {
		latency.Record(v)
	}
	for _, v := range []float64{-0.25, math.NaN(), math.Inf(1)} { // rejected: FORMAT.md 9
		latency.Record(v)
	}
	for _, v := range sizes {
		size.Record(v)
	}
	r.Done = time.Now().UnixNano()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	if job == "batch" {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL) // does not return
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return w.Close()
}

// startWriter runs the writer process and waits until everything is recorded; for batch, until it is dead.
func startWriter(t *testing.T, job, store string, env ...string) recorded {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestWriterProcess$")
	cmd.Env = append(append(os.Environ(), writerEnv+"="+job, storeEnv+"="+store), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var r recorded
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &r) != nil {
		_ = cmd.Wait()
		t.Fatalf("the writer process: want its times, got %q: %s", lines.Text(), said.String())
	}
	if job == "batch" {
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("the writer process: want it killed by SIGKILL, got %v: %s", cmd.ProcessState, said.String())
		}
		return r
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return r
}

// newStore is a private store where segments usually are.
func newStore(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startDaemon builds shmtsd as the Makefile does and runs it on a store; it gives its HTTP address.
func startDaemon(t *testing.T, store string, env ...string) (address string, cmd *exec.Cmd) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shmtsd")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", path, "github.com/shmts/shmts/cmd/shmtsd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build shmtsd: %v\n%s", err, out)
	}
	address = freeAddress(t)
	cmd = exec.Command(path, "--store", store, "--listen", address)
	cmd.Env = append(os.Environ(), env...)
	startServer(t, cmd)
	waitFor(t, 30*time.Second, "shmtsd to be ready", func() error { return get("http://" + address + "/-/ready") })
	return address, cmd
}
