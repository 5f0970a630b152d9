package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"strings"
	"sync"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is a small OTLP receiver, http/protobuf: it keeps the newest point
// of every stream, by service, metric and attributes, and counts what came.
type receiver struct {
	mu       sync.Mutex
	requests int
	bytes    int64
	points   int64
	newest   map[string]point
	srv      *http.Server
	addr     string
}

// point is the newest data point of a stream.
type point struct {
	start, time uint64
	value       float64 // sum or gauge
	count       uint64  // histogram
	buckets     int
	ended       bool // a NoRecordedValue point came after it
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{newest: map[string]point{}, addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", r.receive)
	r.srv = &http.Server{Handler: mux}
	go func() { _ = r.srv.Serve(l) }()
	return r, nil
}

func (r *receiver) receive(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(io.LimitReader(body, 64<<20))
	var m collector.ExportMetricsServiceRequest
	if err == nil {
		err = proto.Unmarshal(b, &m)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.take(&m, req.ContentLength)
	out, _ := proto.Marshal(&collector.ExportMetricsServiceResponse{})
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(out)
}

const noRecordedValue = uint32(metrics.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)

func (r *receiver) take(m *collector.ExportMetricsServiceRequest, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	r.bytes += bytes
	for _, rm := range m.ResourceMetrics {
		service := attribute(rm.GetResource().GetAttributes(), "service.name")
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				keep := func(attrs []*common.KeyValue, flags uint32, p point) {
					r.points++
					key := streamKey(service, metric.Name, attrs)
					if old := r.newest[key]; flags&noRecordedValue != 0 {
						old.ended = true
						r.newest[key] = old
					} else if p.time >= old.time {
						r.newest[key] = p
					}
				}
				numbers := func(points []*metrics.NumberDataPoint) {
					for _, p := range points {
						v := p.GetAsDouble()
						if i, ok := p.Value.(*metrics.NumberDataPoint_AsInt); ok {
							v = float64(i.AsInt)
						}
						keep(p.Attributes, p.Flags, point{start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: v})
					}
				}
				numbers(metric.GetSum().GetDataPoints())
				numbers(metric.GetGauge().GetDataPoints())
				for _, p := range metric.GetExponentialHistogram().GetDataPoints() {
					keep(p.Attributes, p.Flags, point{start: p.StartTimeUnixNano, time: p.TimeUnixNano,
						value: p.GetSum(), count: p.Count, buckets: len(p.GetPositive().GetBucketCounts())})
				}
			}
		}
	}
}

func attribute(kvs []*common.KeyValue, key string) string {
	for _, kv := range kvs {
		if kv.Key == key {
			return kv.GetValue().GetStringValue()
		}
	}
	return ""
}

func streamKey(service, name string, attrs []*common.KeyValue) string {
	var labels []string
	for _, kv := range attrs {
		labels = append(labels, fmt.Sprintf("%s=%q", kv.Key, kv.GetValue().GetStringValue()))
	}
	sort.Strings(labels)
	return service + " " + name + "{" + strings.Join(labels, ",") + "}"
}

// ended tells whether every stream of a metric of a service has ended, and how many records its histograms count.
func (r *receiver) ended(service, name string) (count uint64, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	streams := 0
	ended = true
	for k, p := range r.newest {
		if strings.HasPrefix(k, service+" "+name+"{") {
			count, streams, ended = count+p.count, streams+1, ended && p.ended
		}
	}
	return count, ended && streams > 0
}

func (r *receiver) totals() (requests int, bytes, points int64, streams int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests, r.bytes, r.points, len(r.newest)
}

// value is the newest point of one stream.
func (r *receiver) value(service, name, labels string) point {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest[service+" "+name+"{"+labels+"}"]
}
