package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export/pbwire"
)

// writeSink receives remote-write 1.0 and 2.0, and OTLP, from several senders: it counts, by the path's last part, and forgets.
type writeSink struct {
	address string
	server  *http.Server
	mu      sync.Mutex
	total   map[string]received
}

func newWriteSink() (*writeSink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &writeSink{address: l.Addr().String(), total: map[string]received{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /write/{name}", s.receive)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *writeSink) close()                 { _ = s.server.Close() }
func (s *writeSink) url(name string) string { return "http://" + s.address + "/write/" + name }

func (s *writeSink) seen() map[string]received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.total)
}

func (s *writeSink) receive(w http.ResponseWriter, r *http.Request) {
	wire, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var n int64
	if r.Header.Get("Content-Encoding") == "snappy" {
		var body []byte
		if body, err = snappy.Decode(nil, wire); err == nil {
			v2 := strings.Contains(r.Header.Get("Content-Type"), "v2")
			n = writtenSamples(body, v2)
			w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(n))
		}
	} else {
		n, err = otlpPoints(wire, r.Header.Get("Content-Encoding"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("name")
	s.mu.Lock()
	t := s.total[name]
	s.total[name] = received{t.requests + 1, t.bytes + int64(len(wire)), t.points + n}
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK)
}

// writtenSamples counts the samples and histograms of a request.
func writtenSamples(body []byte, v2 bool) (n int64) {
	timeseries, samples, histograms := protowire.Number(1), protowire.Number(2), protowire.Number(4)
	if v2 {
		timeseries, histograms = 5, 3
	}
	pbwire.Each(body, func(f protowire.Number, _ protowire.Type, ts []byte, _ uint64) {
		if f != timeseries {
			return
		}
		pbwire.Each(ts, func(f protowire.Number, _ protowire.Type, _ []byte, _ uint64) {
			if f == samples || f == histograms {
				n++
			}
		})
	})
	return n
}
