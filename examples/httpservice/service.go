package main

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/shmts/shmts/writer"
)

// maxValue is the largest value that is stored, in bytes.
const maxValue = 1 << 20

// service is the key-value store.
type service struct {
	mu     sync.RWMutex
	values map[string][]byte
	size   int

	keys, bytes *writer.IntGauge
}

func newService(w *writer.Writer) http.Handler {
	s := &service{
		values: map[string][]byte{},
		keys:   w.IntGauge("kv_keys", writer.Unit("{key}"), writer.Help("Keys stored.")),
		bytes:  w.IntGauge("kv_stored_bytes", writer.Unit("By"), writer.Help("Bytes of all values stored.")),
	}
	s.keys.Set(0)
	s.bytes.Set(0)
	mux := http.NewServeMux()
	in := w.UpDownCounter("http_server_active_requests", writer.Unit("{request}"), writer.Help("Requests in flight."))
	handle := func(method, route string, h http.HandlerFunc) {
		mux.Handle(method+" "+route, newRoute(w, in, method, route, h))
	}
	handle("GET", "/kv/{key}", s.get)
	handle("PUT", "/kv/{key}", s.put)
	handle("DELETE", "/kv/{key}", s.remove)
	handle("GET", "/healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	return mux
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	value, ok := s.values[r.PathValue("key")]
	s.mu.RUnlock()
	if !ok {
		http.Error(w, "no such key", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(value)
}

func (s *service) put(w http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxValue))
	if err != nil {
		code := http.StatusBadRequest
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), code)
		return
	}
	s.store(r.PathValue("key"), value)
	w.WriteHeader(http.StatusNoContent)
}

func (s *service) remove(w http.ResponseWriter, r *http.Request) {
	s.store(r.PathValue("key"), nil)
	w.WriteHeader(http.StatusNoContent)
}

// store puts a value in place; nil removes the key.
func (s *service) store(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size += len(value) - len(s.values[key])
	if value == nil {
		delete(s.values, key)
	} else {
		s.values[key] = value
	}
	s.keys.Set(int64(len(s.values)))
	s.bytes.Set(int64(s.size))
}

// route is one handler and its series. All of them are registered at the start, so that a request
// registers nothing: it only records.
type route struct {
	next    http.Handler
	active  *writer.UpDownCounter
	classes [6]*writer.Counter // by the status code's first digit
	latency *writer.Histogram
	bytes   *writer.Counter
}

func newRoute(w *writer.Writer, active *writer.UpDownCounter, method, path string, next http.Handler) *route {
	labels := writer.Labels("method", method, "route", path)
	r := &route{
		next:   next,
		active: active,
		latency: w.Histogram("http_server_request_duration_seconds", labels, writer.Buckets(0.00001, 0.01),
			writer.Unit("s"), writer.Help("Time to answer a request.")),
		bytes: w.Counter("http_server_response_bytes_total", labels, writer.Unit("By"), writer.Help("Bytes of response bodies.")),
	}
	for class := 2; class <= 5; class++ {
		r.classes[class] = w.Counter("http_server_requests_total", labels, writer.Label("code", strconv.Itoa(class)+"xx"),
			writer.Unit("{request}"), writer.Help("Requests answered."))
	}
	return r
}

func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	r.active.Inc()
	answer := &answer{ResponseWriter: w, code: http.StatusOK}
	defer func() { // also when the handler panics: net/http recovers
		ex := traceOf(req.Header)
		ex.Time = start
		r.latency.RecordExemplar(time.Since(start).Seconds(), ex)
		r.bytes.Add(answer.bytes)
		r.classes[min(answer.code/100, 5)].Inc() // a nil counter, for 1xx, records nowhere
		r.active.Dec()
	}()
	r.next.ServeHTTP(answer, req)
}

// answer sees the status and the bytes that go by.
type answer struct {
	http.ResponseWriter
	code  int
	bytes uint64
}

func (a *answer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	n, err := a.ResponseWriter.Write(b)
	a.bytes += uint64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the real one.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
