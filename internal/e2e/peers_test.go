//go:build peers

// Package e2e runs shmtsd next to real servers: what was recorded is compared with
// what an OpenTelemetry Collector received, what promtool reads, and what
// Prometheus answers. `make peers` builds them and runs this.
package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"

	"github.com/shmts/shmts/internal/peers"
)

// shmtsd exports by both protocols of OTLP to a real collector; what its file exporter
// wrote equals what a living process, and one killed by SIGKILL, recorded.
func TestCollectorReceivesWhatWasRecorded(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(strings.ReplaceAll(protocol, "/", "-"), func(t *testing.T) {
			t.Parallel()
			c := startCollector(t)
			endpoint := "http://" + c.http
			if protocol == "grpc" {
				endpoint = "http://" + c.grpc
			}
			store := newStore(t)
			times := map[string]recorded{"api": startWriter(t, "api", store), "batch": startWriter(t, "batch", store)}
			_, daemon := startDaemon(t, store, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_METRIC_EXPORT_INTERVAL=1000")

			// Rows of the histograms' table come each 10 s; those of the dead writer at once.
			waitFor(t, 60*time.Second, "every series and the end of the dead ones", func() error {
				all := c.streams(t)
				for _, job := range []string{"api", "batch"} {
					for _, w := range expected(job) {
						s := all[w.key]
						if s == nil {
							return fmt.Errorf("no %s yet, of %d streams", w.key, len(all))
						}
						if job == "batch" && !s.ended() {
							return fmt.Errorf("%s has no end yet", w.key)
						}
					}
				}
				return nil
			})
			if err := stop(daemon); err != nil {
				t.Errorf("shmtsd after SIGTERM: %v", err)
			}
			all := c.streams(t)
			for _, job := range []string{"api", "batch"} {
				want := expected(job)
				for _, w := range want {
					w.check(t, job, times[job], all[w.key])
					delete(all, w.key)
				}
			}
			for key := range all {
				// shmtsd's own health has a job of its own.
				if strings.HasPrefix(key, "api/") || strings.HasPrefix(key, "batch/") {
					t.Errorf("%s was received, and is nothing that was recorded", key)
				}
			}
		})
	}
}

// want is one stream that must arrive.
type want struct {
	key       string
	unit      string
	gauge     bool
	monotonic bool
	integer   bool
	value     float64
	int       int64
	// of windows: a minimum or maximum is right over all points together
	fold func(a, b float64) float64

	histogram bool
	sum       float64
	zero      uint64
	threshold float64
	buckets   map[int]uint64
}

func expected(job string) []want {
	zero, buckets := bucketCounts(latencies, -80, -1)
	sizeZero, sizeBuckets := bucketCounts(sizes, 48, 127)
	all := []want{
		{key: "rx_packets{queue=0,zone=a}", unit: "{packet}", monotonic: true, integer: true, int: packets},
		{key: "process.cpu.time{zone=a}", unit: "s", monotonic: true, value: seconds},
		{key: "connections{zone=a}", integer: true, int: -3},
		{key: "temperature{zone=a}", unit: "Cel", gauge: true, value: 21.5},
		{key: "queue.depth{zone=a}", gauge: true, integer: true, int: -7},
		{key: "batch{zone=a}", gauge: true, value: 32},
		{key: "batch_min{zone=a}", gauge: true, value: 1.5, fold: math.Min},
		{key: "batch_max{zone=a}", gauge: true, value: 32, fold: math.Max},
		{key: "batch_sum{zone=a}", monotonic: true, value: total(batches)},
		{key: "batch_count{zone=a}", unit: "{record}", monotonic: true, integer: true, int: int64(len(batches))},
		{key: "http.server.request.duration{method=GET,zone=a}", unit: "s", histogram: true,
			sum: total(latencies), zero: zero, threshold: math.Exp2(-10), buckets: buckets},
		{key: "rx.size{zone=a}", unit: "By", histogram: true, sum: float64(total(sizes)), zero: sizeZero, threshold: 64, buckets: sizeBuckets},
	}
	for i := range all {
		all[i].key = job + "/" + all[i].key
	}
	return all
}

const noRecordedValue = uint32(metricspb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)

// ended tells whether the last point says that there is no value any more.
func (s *stream) ended() bool {
	if n := len(s.numbers); n > 0 {
		return s.numbers[n-1].Flags&noRecordedValue != 0
	}
	n := len(s.histograms)
	return n > 0 && s.histograms[n-1].Flags&noRecordedValue != 0
}

// check holds every point of a stream against what was recorded. Rows from
// when everything was recorded on must all say the same.
func (w *want) check(t *testing.T, job string, times recorded, s *stream) {
	t.Helper()
	for name, value := range map[string]string{"service.name": job, "service.instance.id": job + "-1", "service.version": "1.2.3"} {
		if s.resource[name] != value {
			t.Errorf("%s: resource attribute %s: want %q, got %q", w.key, name, value, s.resource[name])
		}
	}
	if s.metric.Unit != w.unit {
		t.Errorf("%s: unit: want %q, got %q", w.key, w.unit, s.metric.Unit)
	}
	if !w.gauge && s.temporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		t.Errorf("%s: want cumulative, got %v", w.key, s.temporality)
	}
	if _, is := s.metric.Data.(*metricspb.Metric_Gauge); is != w.gauge || s.monotonic != w.monotonic {
		t.Errorf("%s: want gauge %v, monotonic %v, got %T, monotonic %v", w.key, w.gauge, w.monotonic, s.metric.Data, s.monotonic)
	}
	// when checks a point's times, and tells whether it has a value.
	previous, values := uint64(0), 0
	const ms = int64(time.Millisecond) // times are whole ones
	when := func(start, at uint64, flags uint32, last bool) bool {
		if !w.gauge && (int64(start) < times.Before/ms*ms || int64(start) > times.After) {
			t.Errorf("%s: start: want %d to %d, got %d", w.key, times.Before, times.After, start)
		}
		if at <= previous {
			t.Errorf("%s: time: want more than the one before, %d, got %d", w.key, previous, at)
		}
		if previous = at; int64(at) < times.After/ms*ms {
			t.Errorf("%s: time: want a row after registration at %d, got %d", w.key, times.After, at)
		}
		if flags&noRecordedValue == 0 {
			if int64(at) < times.Done {
				return false
			}
			values++
			return true
		}
		if job != "batch" || !last {
			t.Errorf("%s: an end in the midst, at %d", w.key, at)
		}
		return false
	}
	folded := math.NaN()
	for i, p := range s.numbers {
		if !when(p.StartTimeUnixNano, p.TimeUnixNano, p.Flags, i == len(s.numbers)-1) {
			continue
		}
		switch v := p.Value.(type) {
		case *metricspb.NumberDataPoint_AsInt:
			if !w.integer || v.AsInt != w.int {
				t.Errorf("%s: want %v (integer %v), got the integer %d", w.key, w.value, w.integer, v.AsInt)
			}
		case *metricspb.NumberDataPoint_AsDouble:
			switch {
			case w.fold == nil && (w.integer || v.AsDouble != w.value):
				t.Errorf("%s: want %v (integer %v), got the double %v", w.key, w.value, w.integer, v.AsDouble)
			case w.fold != nil && math.IsNaN(folded):
				folded = v.AsDouble
			case w.fold != nil:
				folded = w.fold(folded, v.AsDouble)
			}
		}
	}
	if w.fold != nil && folded != w.value {
		t.Errorf("%s: over all windows: want %v, got %v", w.key, w.value, folded)
	}
	for i, p := range s.histograms {
		if !when(p.StartTimeUnixNano, p.TimeUnixNano, p.Flags, i == len(s.histograms)-1) {
			continue
		}
		count := w.zero
		for _, n := range w.buckets {
			count += n
		}
		got := map[int]uint64{}
		for j, n := range p.Positive.GetBucketCounts() {
			if n > 0 {
				got[int(p.Positive.Offset)+j] = n
			}
		}
		if p.Scale != 3 || p.Count != count || p.GetSum() != w.sum || p.ZeroCount != w.zero || p.ZeroThreshold != w.threshold || !maps.Equal(got, w.buckets) {
			t.Errorf("%s:\nwant scale 3, count %d, sum %v, zero %d to %v, buckets %v\ngot  scale %d, count %d, sum %v, zero %d to %v, buckets %v", w.key,
				count, w.sum, w.zero, w.threshold, w.buckets, p.Scale, p.Count, p.GetSum(), p.ZeroCount, p.ZeroThreshold, got)
		}
		if n := len(p.Negative.GetBucketCounts()); n != 0 {
			t.Errorf("%s: want no negative buckets, got %d", w.key, n)
		}
	}
	if values == 0 {
		t.Errorf("%s: no point with a value", w.key)
	}
}

// promtool reads shmtsd as it reads a Prometheus, and finds nothing wrong with its /metrics.
func TestPromtool(t *testing.T) {
	promtool, err := peers.Promtool(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	startWriter(t, "api", store)
	address, _ := startDaemon(t, store)
	server := "http://" + address
	tool := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command(promtool, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The first row comes within a second of the writer's birth, histograms' within ten.
	waitFor(t, 30*time.Second, "the first rows", func() error {
		out, err := tool("", "query", "instant", server, `histogram_count(http_server_request_duration_seconds{job="api"})`)
		if want := fmt.Sprintf("=> %d @[", len(latencies)); err == nil && !strings.Contains(out, want) {
			return fmt.Errorf("want %q, got %q", want, out)
		} else if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	begin := strconv.FormatInt(time.Now().Add(-30*time.Second).Unix(), 10)
	for _, c := range []struct {
		name  string
		args  []string
		wants []string
	}{
		{"instant", []string{"query", "instant", server, `rx_packets_total{job="api"}`},
			[]string{`rx_packets_total{instance="api-1", job="api", queue="0", zone="a"} => 9007199254741992`}},
		{"a function", []string{"query", "instant", server, `sum by (zone) (process_cpu_time_seconds_total)`}, []string{`{zone="a"} => 12.375 @[`}},
		{"quantile", []string{"query", "instant", server, `histogram_quantile(0, http_server_request_duration_seconds) >= 0`}, []string{`=> 0 @[`}},
		{"range", []string{"query", "range", "--start=" + begin, "--step=1s", server, `temperature_celsius`},
			[]string{`temperature_celsius{instance="api-1", job="api", zone="a"} =>`, "21.5 @["}},
		{"labels", []string{"query", "labels", server, "queue"}, []string{"0"}},
		{"series", []string{"query", "series", "--match=queue_depth", server}, []string{`__name__="queue_depth"`, `zone="a"`}},
		{"ready", []string{"check", "ready", "--url=" + server}, []string{"SUCCESS"}},
		{"healthy", []string{"check", "healthy", "--url=" + server}, []string{"SUCCESS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := tool("", c.args...)
			if err != nil {
				t.Fatalf("promtool %s: %v\n%s", strings.Join(c.args, " "), err, out)
			}
			for _, want := range c.wants {
				if !strings.Contains(out, want) {
					t.Errorf("promtool %s:\nwant %q\ngot  %s", strings.Join(c.args, " "), want, out)
				}
			}
		})
	}
	t.Run("an error", func(t *testing.T) {
		out, err := tool("", "query", "instant", server, "rate(rx_packets_total)")
		if err == nil || !strings.Contains(out, "bad_data") {
			t.Errorf("want promtool to fail with bad_data, got %v: %s", err, out)
		}
	})
	t.Run("check metrics", func(t *testing.T) {
		page, err := body(server + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := tool(page, "check", "metrics"); err != nil {
			t.Errorf("promtool check metrics: %v\n%s\nof\n%s", err, out, page)
		}
	})
}

// A real Prometheus receives shmtsd's OTLP; it and shmtsd then give the same names, labels and
// values to the same queries.
func TestPrometheusAnswersTheSame(t *testing.T) {
	binary, err := peers.Prometheus(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	prometheus := freeAddress(t)
	startServer(t, exec.Command(binary, "--config.file=/dev/null", "--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+prometheus,
		"--web.enable-otlp-receiver", "--log.level=warn"))
	waitFor(t, 60*time.Second, "Prometheus to be ready", func() error { return get("http://" + prometheus + "/-/ready") })
	store := newStore(t)
	startWriter(t, "api", store)
	shmtsd, _ := startDaemon(t, store, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://"+prometheus+"/api/v1/otlp/v1/metrics",
		"OTEL_METRIC_EXPORT_INTERVAL=1000")
	for _, query := range []string{
		`rx_packets_total{job="api"}`,
		`process_cpu_time_seconds_total{job="api"}`,
		`connections{job="api"}`,
		`temperature_celsius{job="api"}`,
		`queue_depth{job="api"}`,
		`batch{job="api"}`,
		`histogram_count(http_server_request_duration_seconds{job="api"})`,
		`histogram_sum(http_server_request_duration_seconds{job="api"})`,
		`histogram_quantile(0.5, http_server_request_duration_seconds{job="api"})`,
		`histogram_quantile(0.99, http_server_request_duration_seconds{job="api"})`,
		`histogram_fraction(0, 0.3, http_server_request_duration_seconds{job="api"})`,
		`histogram_quantile(0.5, rx_size_bytes{job="api"})`,
		// Of the source's labels (zone) only job and instance belong to OTLP's resource, and so to the
		// target_info that Prometheus makes of it.
		`sum by (job, instance, service_version) (target_info{job="api"})`,
	} {
		t.Run(query, func(t *testing.T) {
			waitFor(t, 60*time.Second, "the same answer", func() error {
				ours, err := vector(shmtsd, query)
				if err != nil {
					return err
				}
				theirs, err := vector(prometheus, query)
				if err != nil {
					return err
				}
				if len(ours) != 1 || !slices.Equal(ours, theirs) {
					return fmt.Errorf("want one series, the same of both, got\nshmtsd     %q\nPrometheus %q", ours, theirs)
				}
				return nil
			})
		})
	}
}

// vector is what an instant query answers, as sorted lines of labels and value. Labels that an
// OTLP receiver adds for the instrumentation scope are left out.
func vector(address, query string) ([]string, error) {
	text, err := body("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", query, err, text)
	}
	var lines []string
	for _, r := range answer.Data.Result {
		maps.DeleteFunc(r.Metric, func(name, _ string) bool { return strings.HasPrefix(name, "otel_scope_") })
		labels, err := json.Marshal(r.Metric) // sorts
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s %v", labels, r.Value[1]))
	}
	slices.Sort(lines)
	return lines, nil
}

func get(url string) error {
	_, err := body(url)
	return err
}

// body is what a server answers, if that is a success.
func body(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode/100 != 2 {
		err = errors.New(r.Status)
	}
	return string(text), err
}
