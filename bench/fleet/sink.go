package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
)

// sink is an OTLP receiver, http/protobuf, that counts and forgets.
type sink struct {
	address string
	server  *http.Server
	mu      sync.Mutex
	total   received
}

type received struct{ requests, bytes, points int64 }

func newSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{address: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", s.receive)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *sink) close() { _ = s.server.Close() }

// seen is what came so far; of no sink, nothing.
func (s *sink) seen() received {
	if s == nil {
		return received{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (s *sink) receive(w http.ResponseWriter, r *http.Request) {
	wire, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, err := otlpPoints(wire, r.Header.Get("Content-Encoding"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.total.requests++
	s.total.bytes += int64(len(wire))
	s.total.points += n
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty answer: all accepted
}

// otlpPoints counts the data points of a request.
func otlpPoints(body []byte, encoding string) (int64, error) {
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(z)
		}
		if err != nil {
			return 0, err
		}
	}
	var request collectorpb.ExportMetricsServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return 0, err
	}
	return points(&request), nil
}

func points(request *collectorpb.ExportMetricsServiceRequest) int64 {
	n := 0
	for _, rm := range request.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				switch d := m.Data.(type) {
				case *metricspb.Metric_Sum:
					n += len(d.Sum.DataPoints)
				case *metricspb.Metric_Gauge:
					n += len(d.Gauge.DataPoints)
				case *metricspb.Metric_ExponentialHistogram:
					n += len(d.ExponentialHistogram.DataPoints)
				}
			}
		}
	}
	return int64(n)
}

// answers checks with a query that a server has every segment's rows, and new ones.
func answers(address string, segments int) error {
	n, err := scalar(address, `count(fleet_c00_total > 0)`)
	if err != nil {
		return err
	}
	if int(n) != segments {
		return fmt.Errorf("want fleet_c00_total of %d instances, got %v", segments, n)
	}
	moving, err := scalar(address, `count(increase(fleet_c00_total[10s]) > 0)`)
	if err != nil {
		return err
	}
	if int(moving) != segments {
		return fmt.Errorf("want fleet_c00_total of %d instances to have moved, got %v", segments, moving)
	}
	return nil
}

// scalar is the one value that an instant query answers.
func scalar(address, query string) (float64, error) {
	client := http.Client{Timeout: 30 * time.Second}
	r, err := client.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	if answer.Error != "" || len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("%s: want one value, got %d: %s", query, len(answer.Data.Result), answer.Error)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// freeAddress is a loopback address that nobody listens on just now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
