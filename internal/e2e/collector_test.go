//go:build peers

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shmts/shmts/internal/peers"
)

// collector is a real OpenTelemetry Collector that writes what it received to a file.
type collector struct {
	http, grpc string // host:port of the OTLP receivers
	file       string // one JSON request a line
}

// startCollector builds one if none is cached, and stops it with the test.
func startCollector(t *testing.T) *collector {
	t.Helper()
	binary, err := peers.Collector(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &collector{http: freeAddress(t), grpc: freeAddress(t), file: filepath.Join(dir, "metrics.json")}
	config := filepath.Join(dir, "collector.yaml")
	text := fmt.Sprintf(`
receivers:
  otlp:
    protocols:
      http: {endpoint: %q}
      grpc: {endpoint: %q, max_recv_msg_size_mib: 16}
exporters:
  file: {path: %q, flush_interval: 100ms}
service:
  telemetry:
    metrics: {level: none}
    logs: {level: warn}
  pipelines:
    metrics: {receivers: [otlp], exporters: [file]}
`, c.http, c.grpc, c.file)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	startServer(t, exec.Command(binary, "--config", config))
	waitFor(t, 30*time.Second, "the collector to listen", func() error {
		return errors.Join(dial(c.http), dial(c.grpc))
	})
	return c
}

// requests are those that the collector has written out, oldest first.
func (c *collector) requests(t *testing.T) []*collectorpb.ExportMetricsServiceRequest {
	t.Helper()
	data, err := os.ReadFile(c.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.LastIndexByte(data, '\n') // a line may be half written
	if end < 0 {
		return nil
	}
	var all []*collectorpb.ExportMetricsServiceRequest
	for i, line := range bytes.Split(data[:end], []byte{'\n'}) {
		r := new(collectorpb.ExportMetricsServiceRequest)
		if err := protojson.Unmarshal(line, r); err != nil {
			t.Fatalf("line %d of the collector's file: %v", i+1, err)
		}
		all = append(all, r)
	}
	return all
}

// stream is one series as the collector saw it: its metric, without points, and
// its points, oldest first.
type stream struct {
	resource, attributes map[string]string
	metric               *metricspb.Metric
	monotonic            bool
	temporality          metricspb.AggregationTemporality
	numbers              []*metricspb.NumberDataPoint
	histograms           []*metricspb.ExponentialHistogramDataPoint
}

// streams sorts what was received by service.name, metric name and attributes,
// such as "api/rx_packets{queue=0}".
func (c *collector) streams(t *testing.T) map[string]*stream {
	t.Helper()
	all := map[string]*stream{}
	for _, request := range c.requests(t) {
		for _, rm := range request.ResourceMetrics {
			resource := attributeMap(rm.Resource.GetAttributes())
			for _, sm := range rm.ScopeMetrics {
				for _, m := range sm.Metrics {
					add := func(attributes []*commonpb.KeyValue) *stream {
						key := resource["service.name"] + "/" + m.Name + formatAttributes(attributes)
						s := all[key]
						if s == nil {
							s = &stream{resource: resource, attributes: attributeMap(attributes), metric: m}
							all[key] = s
						}
						return s
					}
					switch d := m.Data.(type) {
					case *metricspb.Metric_Sum:
						for _, p := range d.Sum.DataPoints {
							s := add(p.Attributes)
							s.numbers = append(s.numbers, p)
							s.monotonic, s.temporality = d.Sum.IsMonotonic, d.Sum.AggregationTemporality
						}
					case *metricspb.Metric_Gauge:
						for _, p := range d.Gauge.DataPoints {
							s := add(p.Attributes)
							s.numbers = append(s.numbers, p)
						}
					case *metricspb.Metric_ExponentialHistogram:
						for _, p := range d.ExponentialHistogram.DataPoints {
							s := add(p.Attributes)
							s.histograms = append(s.histograms, p)
							s.temporality = d.ExponentialHistogram.AggregationTemporality
						}
					default:
						t.Fatalf("metric %s has data of type %T, which shmtsd does not export", m.Name, d)
					}
				}
			}
		}
	}
	return all
}

func attributeMap(attributes []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attributes {
		m[a.Key] = a.Value.GetStringValue()
	}
	return m
}

func formatAttributes(attributes []*commonpb.KeyValue) string {
	if len(attributes) == 0 {
		return ""
	}
	var pairs []string
	for _, a := range attributes {
		pairs = append(pairs, a.Key+"="+a.Value.GetStringValue())
	}
	sort.Strings(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

// startServer starts a server and ends it with the test: SIGTERM, then, if that
// does not do, SIGKILL. What it said is logged when the test failed.
func startServer(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	log := filepath.Join(t.TempDir(), filepath.Base(cmd.Path)+".log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// Even if this process dies without its clean-up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = stop(cmd)
		}
		if t.Failed() {
			said, _ := os.ReadFile(log)
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), said)
		}
	})
	return cmd
}

// stop ends a server with SIGTERM and gives what Wait says of it.
func stop(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	return cmd.Wait()
}

// waitFor polls until ok has no error, and fails with the last one after a time.
func waitFor(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func dial(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// freeAddress is a loopback address that nobody listens on just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The collector alone: what is sent is what its file says. When this fails, no
// other test here means anything.
func TestCollectorKeepsWhatItIsSent(t *testing.T) {
	c := startCollector(t)
	text := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	sent := &metricspb.ExponentialHistogramDataPoint{
		StartTimeUnixNano: 1_000_000_001, TimeUnixNano: 2_000_000_003, Attributes: []*commonpb.KeyValue{text("queue", "0")},
		Count: 6, Sum: proto.Float64(0.375), Scale: 3, ZeroCount: 1, ZeroThreshold: 1.0 / 1024,
		Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: -80, BucketCounts: []uint64{1, 0, 4}},
	}
	body, err := proto.Marshal(&collectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "harness")}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{{
			Name: "latency", Unit: "s",
			Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{
				AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
				DataPoints:             []*metricspb.ExponentialHistogramDataPoint{sent},
			}},
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http+"/v1/metrics", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if said, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		t.Fatalf("the collector answered %s: %q", response.Status, said)
	}
	waitFor(t, 10*time.Second, "the collector's file", func() error {
		if len(c.streams(t)) == 0 {
			return errors.New("no stream yet")
		}
		return nil
	})
	got := c.streams(t)["harness/latency{queue=0}"]
	if got == nil || len(got.histograms) != 1 {
		t.Fatalf("want one stream of one point, got %v", c.streams(t))
	}
	// Unset and zero counts of the negative range are one to us.
	got.histograms[0].Negative = nil
	if !proto.Equal(got.histograms[0], sent) {
		t.Errorf("sent     %v\nreceived %v", sent, got.histograms[0])
	}
}
