package peers

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"
)

// StartPrometheus starts one that receives remote-write, with its data in a directory, a configuration and further flags, and waits until it is
// ready. It answers its URL, and the process, which the caller kills; it does not outlive the caller.
func StartPrometheus(logf Logf, dir, config string, flags ...string) (url string, cmd *exec.Cmd, err error) {
	binary, err := Prometheus(logf)
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", nil, fmt.Errorf("shmts: Prometheus's configuration: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("shmts: an address for Prometheus: %w", err)
	}
	address := l.Addr().String()
	l.Close()
	args := append([]string{"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--storage.tsdb.retention.time", "100y",
		"--web.listen-address", address, "--web.enable-remote-write-receiver", "--log.level", "warn"}, flags...)
	cmd = exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("shmts: start Prometheus: %w", err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if r, err := http.Get("http://" + address + "/-/ready"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return "http://" + address, cmd, nil
			}
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			return "", nil, fmt.Errorf("shmts: Prometheus was not ready within a minute")
		}
	}
}

// RemoteWrite sends samples by remote-write 1.0, some ten thousand a request, for tests and benchmarks: it never tries twice, and is independent of what
// shmtsd sends by. It is for one goroutine.
type RemoteWrite struct {
	Samples int // that were taken

	url     string
	request []byte
	pending int
}

// NewRemoteWrite is one to a Prometheus's URL.
func NewRemoteWrite(url string) *RemoteWrite { return &RemoteWrite{url: url + "/api/v1/write"} }

// Floats adds samples of a series, oldest first, times in unix ms.
func (w *RemoteWrite) Floats(ls labels.Labels, times []int64, values []float64) error {
	return w.add(ls, len(times), func(b []byte, i int) []byte {
		return message(b, 2, varint(double(nil, 1, values[i]), 2, uint64(times[i])))
	})
}

// Histograms adds samples of a native histogram. It knows of positive buckets alone.
func (w *RemoteWrite) Histograms(ls labels.Labels, times []int64, values []*histogram.FloatHistogram) error {
	return w.add(ls, len(times), func(b []byte, i int) []byte {
		v := values[i]
		m := double(nil, 2, v.Count)
		m = double(m, 3, v.Sum)
		m = varint(m, 4, protowire.EncodeZigZag(int64(v.Schema)))
		m = double(m, 5, v.ZeroThreshold)
		m = double(m, 7, v.ZeroCount)
		for _, span := range v.PositiveSpans {
			m = message(m, 11, varint(varint(nil, 1, protowire.EncodeZigZag(int64(span.Offset))), 2, uint64(span.Length)))
		}
		var counts []byte
		for _, n := range v.PositiveBuckets {
			counts = protowire.AppendFixed64(counts, math.Float64bits(n))
		}
		m = message(m, 13, counts)
		return message(b, 4, varint(m, 15, uint64(times[i])))
	})
}

func (w *RemoteWrite) add(ls labels.Labels, n int, sample func(b []byte, i int) []byte) error {
	var series []byte
	ls.Range(func(l labels.Label) {
		series = message(series, 1, message(message(nil, 1, []byte(l.Name)), 2, []byte(l.Value)))
	})
	for i := range n {
		series = sample(series, i)
	}
	w.request = message(w.request, 1, series)
	if w.pending += n; w.pending > 50_000 {
		return w.Flush()
	}
	return nil
}

// Flush sends what was added.
func (w *RemoteWrite) Flush() error {
	post, err := http.NewRequest(http.MethodPost, w.url, bytes.NewReader(snappy.Encode(nil, w.request)))
	if err != nil {
		return fmt.Errorf("shmts: remote-write: %w", err)
	}
	post.Header.Set("Content-Encoding", "snappy")
	post.Header.Set("Content-Type", "application/x-protobuf")
	post.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	r, err := http.DefaultClient.Do(post)
	if err != nil {
		return fmt.Errorf("shmts: remote-write: %w", err)
	}
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode/100 != 2 {
		return fmt.Errorf("shmts: remote-write: want 2xx, got %s: %.300s", r.Status, text)
	}
	w.Samples += w.pending
	w.request, w.pending = w.request[:0], 0
	return nil
}

// The parts of a prometheus.WriteRequest.

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func double(b []byte, field protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
}

func varint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
