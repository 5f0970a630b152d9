//go:build peers

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/peers"
)

// startWithConfig runs shmtsd on a store with a file.
func startWithConfig(t *testing.T, store, text string) (address string, cmd *exec.Cmd) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shmtsd.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, store, "SHMTS_CONFIG="+file)
}

func startPrometheus(t *testing.T, flags ...string) (address string) {
	t.Helper()
	binary, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	address = freeAddress(t)
	startServer(t, exec.Command(binary, append([]string{"--config.file=/dev/null", "--storage.tsdb.path=" + t.TempDir(), "--web.listen-address=" + address,
		"--web.enable-remote-write-receiver", "--log.level=warn"}, flags...)...))
	waitFor(t, 60*time.Second, "Prometheus to be ready", func() error { return get("http://" + address + "/-/ready") })
	return address
}

// A receiver that is killed and away, and a shmtsd that is killed meanwhile: afterwards the receiver holds every sample once, as if nothing
// had been.
func TestRemoteWriteOutlivesKills(t *testing.T) {
	binary, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"io.prometheus.write.v2.Request", "prometheus.WriteRequest"} {
		t.Run(message, func(t *testing.T) {
			t.Parallel()
			data, address := t.TempDir(), freeAddress(t)
			receiver := func() *exec.Cmd {
				return startServer(t, exec.Command(binary, "--config.file=/dev/null", "--storage.tsdb.path="+data, "--web.listen-address="+address,
					"--web.enable-remote-write-receiver", "--log.level=warn"))
			}
			ready := func() error { return get("http://" + address + "/-/ready") }
			kill := func(c *exec.Cmd) {
				_ = c.Process.Kill()
				_ = c.Wait()
			}
			prometheus := receiver()
			waitFor(t, 60*time.Second, "Prometheus to be ready", ready)
			store := newStore(t)
			config := fmt.Sprintf("remote_write: [{url: %q, protobuf_message: %s, step: 1s}]\nexport: {dir: %q}\narchive: {dir: %q}\n",
				"http://"+address+"/api/v1/write", message, t.TempDir(), t.TempDir())
			_, daemon := startWithConfig(t, store, config)
			startWriter(t, "api", store)
			const q = `{job="api",__name__!~"target_info|batch_min|batch_max"}[2m]`
			some := func() error {
				if m, err := matrix(address, q); err != nil || len(m) < 8 {
					return fmt.Errorf("want the series of api, got %d: %w", len(m), errors.Join(err))
				}
				return nil
			}
			waitFor(t, 60*time.Second, "api at Prometheus", some)
			kill(prometheus)
			time.Sleep(4 * time.Second)
			kill(daemon)
			startWriter(t, "batch", store) // lives and dies while nobody looks
			time.Sleep(2 * time.Second)
			_, daemon = startWithConfig(t, store, config)
			time.Sleep(3 * time.Second)
			receiver()
			waitFor(t, 60*time.Second, "Prometheus to be ready again", ready)
			caught := time.Now()
			waitFor(t, 60*time.Second, "what came since, and batch", func() error {
				m, err := matrix(address, `rx_packets_total{job=~"api|batch"}[2m]`)
				if err != nil || len(m) != 2 {
					return fmt.Errorf("want both, got %d: %w", len(m), errors.Join(err))
				}
				for name, samples := range m {
					at, _, _ := strings.Cut(samples[len(samples)-1], " ")
					if f, _ := strconv.ParseFloat(at, 64); strings.Contains(name, `"api"`) && f < float64(caught.Unix()) {
						return fmt.Errorf("%s: want samples after %d, got %v", name, caught.Unix(), f)
					}
				}
				return nil
			})
			if err := stop(daemon); err != nil {
				t.Errorf("shmtsd after SIGTERM: %v", err)
			}
			theirs, err := matrix(address, q)
			if err != nil {
				t.Fatal(err)
			}
			// Rows of 1 s and of 10 s are a step apart, but for the two in front: no gap, nothing twice.
			for name, samples := range theirs {
				step := 1.0
				if strings.Contains(name, "duration") || strings.Contains(name, "rx_size") {
					step = 10
				}
				if step == 1 && len(samples) < 10 {
					t.Errorf("%s: want the samples of some 15 s, got %q", name, samples)
				}
				last := 0.0
				for i, s := range samples {
					at, _, _ := strings.Cut(s, " ")
					f, _ := strconv.ParseFloat(at, 64)
					if i > 1 && (f <= last || f-last > 1.6*step) && i < len(samples)-1 {
						t.Errorf("%s: want a sample each %v s, got %v and then %v", name, step, last, f)
					}
					last = f
				}
			}
			if m, err := matrix(address, `rx_packets_total{job="batch"}[2m]`); err != nil || len(m) != 1 {
				t.Errorf("want batch, got %v, %v", m, err)
			}
		})
	}
}

// A receiver that is away for longer than the rings reach back, with lives in between that leave the store as well: all of it comes out of
// the archive, series by series as shmtsd itself answers.
func TestRemoteWriteOutOfTheArchive(t *testing.T) {
	binary, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"io.prometheus.write.v2.Request", "prometheus.WriteRequest"} {
		t.Run(message, func(t *testing.T) {
			t.Parallel()
			address, store := freeAddress(t), newStore(t)
			shmtsd, daemon := startWithConfig(t, store, fmt.Sprintf("remote_write: [{url: %q, protobuf_message: %s, step: 1s}]\narchive: {dir: %q}\ndead-ttl: 5s\n",
				"http://"+address+"/api/v1/write", message, t.TempDir()))
			const ring = ringEnv + "=20"
			startWriter(t, "api", store, ring)
			startWriter(t, "batch", store, ring)
			time.Sleep(45 * time.Second)
			startServer(t, exec.Command(binary, "--config.file=/dev/null", "--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+address,
				"--web.enable-remote-write-receiver", "--log.level=warn"))
			waitFor(t, 60*time.Second, "Prometheus to be ready", func() error { return get("http://" + address + "/-/ready") })
			const batch = `{job="batch"}[5m]`
			waitFor(t, 60*time.Second, "batch as shmtsd has it", func() error { return sameNow(shmtsd, address, batch) })
			const api = `{job="api"}[5m]`
			waitFor(t, 60*time.Second, "api up to now", func() error {
				m, err := matrix(address, `rx_packets_total{job="api"}[5m]`)
				for _, samples := range m {
					if len(samples) >= 46 {
						return nil
					}
					err = fmt.Errorf("want the samples of 45 s, got %d", len(samples))
				}
				return fmt.Errorf("nothing yet: %w", errors.Join(err))
			})
			sameUpTo(t, daemon, shmtsd, address, api)
		})
	}
}

// matrix is what a range selector answers: by series, "time value" or "time histogram" of each sample, in order. Series that a
// query of the other side does not name alike are left out by keep.
func matrix(address, query string) (map[string][]string, error) {
	text, err := body("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric             map[string]string
				Values, Histograms [][2]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", query, err, text)
	}
	out := map[string][]string{}
	for _, r := range answer.Data.Result {
		name, err := json.Marshal(r.Metric) // sorts
		if err != nil {
			return nil, err
		}
		for _, v := range append(r.Values, r.Histograms...) {
			out[string(name)] = append(out[string(name)], string(v[0])+" "+string(v[1]))
		}
	}
	return out, nil
}

// shmtsd writes a living process, and one that was killed, to a real Prometheus by remote-write: series by series, sample by sample,
// bucket by bucket it holds what shmtsd itself answers, and in front of what goes up its 0 at the start.
func TestPrometheusReceivesRemoteWrite(t *testing.T) {
	for _, message := range []string{"io.prometheus.write.v2.Request", "prometheus.WriteRequest"} {
		t.Run(message, func(t *testing.T) {
			t.Parallel()
			prometheus := startPrometheus(t)
			store := newStore(t)
			startWriter(t, "api", store)
			startWriter(t, "batch", store)
			shmtsd, daemon := startWithConfig(t, store, fmt.Sprintf(`
remote_write:
  - url: http://%s/api/v1/write
    protobuf_message: %s
    step: 1s
export: {dir: %q}
`, prometheus, message, t.TempDir()))
			const api, batch = `{job="api"}[5m]`, `{job="batch"}[5m]`
			waitFor(t, 60*time.Second, "both at Prometheus, histograms too", func() error {
				for _, q := range []string{`rx_size_bytes{job="api"}[5m]`, `rx_size_bytes{job="batch"}[5m]`} {
					if m, err := matrix(prometheus, q); err != nil || len(m) == 0 {
						return fmt.Errorf("nothing of %s yet: %w", q, errors.Join(err))
					}
				}
				return nil
			})
			waitFor(t, 20*time.Second, "the same of both", func() error { return sameNow(shmtsd, prometheus, batch) })
			for _, q := range []string{`count({job="batch"})`} { // staleness: it is dead, and no series of it is there any more
				if v, err := vector(prometheus, q); err != nil || len(v) != 0 {
					t.Errorf("%s: want nothing after the end, got %q, %v", q, v, err)
				}
			}
			sameUpTo(t, daemon, shmtsd, prometheus, api)
		})
	}
}

// sameNow compares what both answer of a selector of which nothing new comes.
func sameNow(shmtsd, receiver, selector string) error {
	ours, err := matrix(shmtsd, selector)
	if err != nil {
		return err
	}
	theirs, err := matrix(receiver, selector)
	if err != nil {
		return err
	}
	return same(ours, theirs)
}

// sameUpTo compares them where rows come all the time: what the receiver has while the daemon stands still is held against what shmtsd
// answers up to then.
func sameUpTo(t *testing.T, daemon *exec.Cmd, shmtsd, receiver, selector string) {
	t.Helper()
	if err := daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	theirs, err := matrix(receiver, selector)
	if err != nil {
		t.Error(err)
	}
	if err := daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	ours, err := matrix(shmtsd, selector)
	if err != nil {
		t.Error(err)
	}
	for name, samples := range theirs {
		if k := slices.Index(ours[name], samples[len(samples)-1]); k >= 0 {
			ours[name] = ours[name][:k+1]
		}
	}
	if err := same(ours, theirs); err != nil {
		t.Error(err)
	}
}

// same compares what shmtsd answers with what a receiver does, which has a 0 in front of what goes up.
func same(ours, theirs map[string][]string) error {
	if !slices.Equal(slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(theirs))) {
		return fmt.Errorf("series: want\n%q\ngot\n%q", slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(theirs)))
	}
	zeros := 0
	for name, got := range theirs {
		if _, first, _ := strings.Cut(got[0], " "); first == `"0"` || strings.Contains(first, `"count":"0"`) {
			if len(ours[name]) < len(got) {
				got, zeros = got[1:], zeros+1
			}
		}
		if !slices.Equal(ours[name], got) {
			return fmt.Errorf("%s: want %q, got %q", name, ours[name], got)
		}
	}
	if zeros < 4 {
		return fmt.Errorf("want counters, a stat's count and histograms to begin at 0, got %d that do", zeros)
	}
	return nil
}

// VictoriaMetrics, which takes 1.0 alone and no native histograms, gets classic ones.
func TestVictoriaMetricsReceivesRemoteWrite(t *testing.T) {
	binary, err := exec.LookPath("victoria-metrics")
	if err != nil {
		t.Skip("VictoriaMetrics is not installed: apt-get install victoria-metrics")
	}
	vm := freeAddress(t)
	startServer(t, exec.Command(binary, "-storageDataPath="+t.TempDir(), "-httpListenAddr="+vm, "-retentionPeriod=1y", "-search.latencyOffset=0s"))
	waitFor(t, 60*time.Second, "VictoriaMetrics to be ready", func() error { return get("http://" + vm + "/health") })
	store := newStore(t)
	startWriter(t, "api", store)
	shmtsd, _ := startWithConfig(t, store, fmt.Sprintf("remote_write: [{url: %q, send_native_histograms: false, step: 1s}]\n", "http://"+vm+"/api/v1/write"))
	for _, query := range []string{
		`rx_packets_total{job="api"}`,
		`temperature_celsius{job="api"}`,
		`batch_max{job="api"}`,
		`http_server_request_duration_seconds_count{job="api"}`,
		`http_server_request_duration_seconds_sum{job="api"}`,
		`http_server_request_duration_seconds_bucket{job="api",le="0.5"}`,
		`rx_size_bytes_bucket{job="api",le="+Inf"}`,
		`target_info{job="api"}`,
	} {
		waitFor(t, 60*time.Second, "the same answer to "+query, func() error {
			ours, err := vector(shmtsd, query)
			if err != nil {
				return err
			}
			theirs, err := vector(vm, query)
			if err != nil {
				return err
			}
			if strings.HasPrefix(query, "batch_max") { // of one second
				if len(theirs) == 0 && len(ours) == 0 {
					return nil // nothing was recorded in it
				}
			}
			return near(ours, theirs) // its decimals have some 14 digits
		})
	}
}

// near compares two vectors of one value to 12 digits.
func near(a, b []string) error {
	if len(a) != 1 || len(b) != 1 {
		return fmt.Errorf("want one series, got %q and %q", a, b)
	}
	value := func(s string) string {
		f, _ := strconv.ParseFloat(s[strings.LastIndex(s, " ")+1:], 64)
		return strconv.FormatFloat(f, 'g', 12, 64)
	}
	if value(a[0]) != value(b[0]) {
		return fmt.Errorf("want %q, got %q", a[0], b[0])
	}
	return nil
}
