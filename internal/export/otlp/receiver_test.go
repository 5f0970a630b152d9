package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"
)

// receiver is a collector that keeps what it is sent, over HTTP and over gRPC's own server.
type receiver struct {
	t     testing.TB
	delta bool // of what is monotonic, and of histograms
	mu    sync.Mutex
	all   []*collector.ExportMetricsServiceRequest
	seen  []http.Header // of HTTP requests

	// answer says what to do with the n-th request, from 1; nil: take it.
	http func(n int, w http.ResponseWriter, r *http.Request) (handled bool)
	grpc func(n int, ctx context.Context) (*collector.ExportMetricsServiceResponse, error)
	n    int
}

func (r *receiver) take(m *collector.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, m)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	return r.n
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	n := r.count()
	if r.http != nil && r.http(n, w, q) {
		return
	}
	if q.URL.Path != "/v1/metrics" || q.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "no such thing", http.StatusNotFound)
		return
	}
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(z)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	m := &collector.ExportMetricsServiceRequest{}
	if err := proto.Unmarshal(body, m); err != nil {
		r.t.Errorf("a request that can't be read: %v", err)
	}
	r.mu.Lock()
	r.seen = append(r.seen, q.Header)
	r.mu.Unlock()
	r.take(m)
}

// startHTTP serves the receiver on loopback and answers its endpoint.
func startHTTP(t testing.TB, r *receiver) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.t = t
	s := &http.Server{Handler: r}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String() + "/v1/metrics"
}

func startGRPC(t testing.TB, r *receiver) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.t = t
	s := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.metrics.v1.MetricsService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := &collector.ExportMetricsServiceRequest{}
			if err := decode(m); err != nil {
				t.Errorf("a request that can't be read: %v", err)
				return nil, err
			}
			n := r.count()
			if r.grpc != nil {
				if resp, err := r.grpc(n, ctx); resp != nil || err != nil {
					if err == nil {
						r.take(m)
					}
					return resp, err
				}
			}
			r.take(m)
			return &collector.ExportMetricsServiceResponse{}, nil
		}}},
	}, struct{}{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return "http://" + l.Addr().String()
}

// lines are all points received, one a line, in the order of their arrival:
//
//	service.name/name{attributes} unit kind start..time value
func (r *receiver) lines() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.all {
		for _, rm := range m.ResourceMetrics {
			if len(rm.ScopeMetrics) == 0 {
				r.t.Error("a ResourceMetrics without metrics")
			}
			for _, sm := range rm.ScopeMetrics {
				for _, m := range sm.Metrics {
					out = append(out, metricLines(r.t, r.delta, attributes(rm.Resource.GetAttributes())["service.name"], m)...)
				}
			}
		}
	}
	return out
}

func metricLines(t testing.TB, delta bool, service string, m *metrics.Metric) (out []string) {
	line := func(attrs []*common.KeyValue, kind string, start, time uint64, value string) {
		var kv []string
		for k, v := range attributes(attrs) {
			kv = append(kv, k+"="+v)
		}
		if len(kv) != len(attrs) {
			t.Errorf("%s: an attribute twice: %v", m.Name, attrs)
		}
		slices.Sort(kv)
		out = append(out, fmt.Sprintf("%s/%s{%s} %q %s %s..%s %s", service, m.Name, strings.Join(kv, ","), m.Unit, kind, since(start), since(time), value))
	}
	number := func(p *metrics.NumberDataPoint) string {
		switch v := p.Value.(type) {
		case *metrics.NumberDataPoint_AsInt:
			return fmt.Sprintf("int %d", v.AsInt)
		case *metrics.NumberDataPoint_AsDouble:
			return fmt.Sprintf("double %v", v.AsDouble)
		}
		if p.Flags == uint32(metrics.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) {
			return "stale"
		}
		return "nothing"
	}
	switch d := m.Data.(type) {
	case *metrics.Metric_Gauge:
		for _, p := range d.Gauge.DataPoints {
			line(p.Attributes, "gauge", p.StartTimeUnixNano, p.TimeUnixNano, number(p))
		}
	case *metrics.Metric_Sum:
		kind := "updown"
		if d.Sum.IsMonotonic {
			kind = "counter"
		}
		if want := temporalityOf(delta && d.Sum.IsMonotonic); d.Sum.AggregationTemporality != want {
			t.Errorf("%s: temporality %v", m.Name, d.Sum.AggregationTemporality)
		}
		for _, p := range d.Sum.DataPoints {
			line(p.Attributes, kind, p.StartTimeUnixNano, p.TimeUnixNano, number(p))
		}
	case *metrics.Metric_ExponentialHistogram:
		if want := temporalityOf(delta); d.ExponentialHistogram.AggregationTemporality != want {
			t.Errorf("%s: temporality %v", m.Name, d.ExponentialHistogram.AggregationTemporality)
		}
		for _, p := range d.ExponentialHistogram.DataPoints {
			v := fmt.Sprintf("count %d sum %v scale %d zero %d <=%v", p.Count, p.GetSum(), p.Scale, p.ZeroCount, p.ZeroThreshold)
			n := p.ZeroCount
			for i, c := range p.GetPositive().GetBucketCounts() {
				n += c
				if c > 0 {
					v += fmt.Sprintf(" %d:%d", int(p.Positive.Offset)+i, c)
				}
			}
			if n != p.Count {
				t.Errorf("%s: the buckets hold %d, the count says %d", m.Name, n, p.Count)
			}
			if p.Flags != 0 {
				v = "stale"
			}
			line(p.Attributes, "histogram", p.StartTimeUnixNano, p.TimeUnixNano, v)
		}
	default:
		t.Errorf("%s: data of type %T", m.Name, d)
	}
	return out
}

func attributes(kv []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range kv {
		m[a.Key] = a.Value.GetStringValue()
	}
	return m
}

// since writes a time as seconds since the tests' beginning of time, none as "-".
func since(ns uint64) string {
	if ns == 0 {
		return "-"
	}
	return fmt.Sprint(math.Round(float64(int64(ns)-epoch)/1e6) / 1e3)
}

// epoch is the tests' beginning of time.
const epoch int64 = 1_800_000_000_000_000_000

func temporalityOf(delta bool) metrics.AggregationTemporality {
	if delta {
		return metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	}
	return metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
}
