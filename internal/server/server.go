// Package server is Prometheus's HTTP API over internal/query: what Grafana, Perses, promtool and
// curl ask for, in Prometheus's envelope, with its error types and status codes.
//
// Limits are on by default: body and query length, points of a range, time, requests at once, and a
// deadline for clients that do not take their answer. The engine has its own (samples, queue).
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/shmts/shmts/internal/query"
)

// Options of New. Engine is required; the zero value of all others is a default fit for a daemon.
type Options struct {
	Engine *query.Engine

	// Metrics answers /metrics; nil: 404.
	Metrics http.Handler
	// Ready says why the daemon is not ready; nil, or a nil error: it is.
	Ready func() error
	// Degraded says what does not work of a daemon that is ready all the same; empty: nothing. It is shown by /-/ready.
	Degraded func() string
	Logger   *slog.Logger
	// Observe is told of each request to the API when it has been answered.
	Observe func(endpoint string, code int, took time.Duration)

	// Version, Revision and BuildDate are this program's, for status/buildinfo.
	Version, Revision, BuildDate string

	Timeout     time.Duration // of a request, whatever it asks for; 0: 2 min
	MaxBody     int64         // bytes of a POST; 0: 1 MiB
	MaxPoints   int           // of a series in a range query; 0: 11,000, as Prometheus
	MaxRequests int           // at once; 0: 128
	WriteWait   time.Duration // for a client to take the next part of an answer; 0: 30 s

	Now func() time.Time
}

// server holds the options with their defaults.
type server struct {
	Options
	places chan struct{}
}

// New is the handler of everything that the daemon answers. It is safe for concurrent use.
func New(o Options) http.Handler {
	def(&o.Timeout, 2*time.Minute)
	def(&o.MaxBody, 1<<20)
	def(&o.MaxPoints, 11_000)
	def(&o.MaxRequests, 128)
	def(&o.WriteWait, 30*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &server{Options: o, places: make(chan struct{}, o.MaxRequests)}

	mux := http.NewServeMux()
	for _, e := range []struct {
		path, methods string
		answer        answerer
	}{
		{"query", "GET POST", s.query},
		{"query_range", "GET POST", s.queryRange},
		{"query_exemplars", "GET POST", s.queryExemplars},
		{"format_query", "GET POST", s.formatQuery},
		{"parse_query", "GET POST", s.parseQuery},
		{"labels", "GET POST", s.labelNames},
		{"label/{name}/values", "GET", s.labelValues},
		{"series", "GET POST", s.series},
		{"metadata", "GET", s.metadata},
		{"rules", "GET", s.rules},
		{"alerts", "GET", s.alerts},
		{"status/buildinfo", "GET", s.buildInfo},
	} {
		mux.Handle("/api/v1/"+e.path, s.endpoint(e.path, e.methods, e.answer))
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, &apiError{notFound, fmt.Errorf("shmts: no such endpoint: %s", r.URL.Path)})
	})
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "shmtsd is healthy.\n") })
	mux.HandleFunc("GET /-/ready", s.ready)
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, "shmtsd "+o.Version+"\n\nPrometheus's HTTP API: /api/v1/query?query=...\nits own metrics: /metrics\n")
	})
	return mux
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func text(w http.ResponseWriter, code int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, s)
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.Ready != nil {
		if err := s.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, "shmtsd is not ready: "+err.Error()+"\n")
			return
		}
	}
	answer := "shmtsd is ready.\n"
	if s.Degraded != nil {
		if what := s.Degraded(); what != "" {
			answer += "But " + what + "\n"
		}
	}
	text(w, http.StatusOK, answer)
}

// An answerer says what to answer to a request whose form is parsed.
type answerer func(r *http.Request) answer

// endpoint wraps an answerer with everything that all of them need.
func (s *server) endpoint(path, methods string, f answerer) http.Handler {
	post := methods != "GET"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin, code := s.Now(), 0
		if s.Observe != nil {
			defer func() { s.Observe(path, code, s.Now().Sub(begin)) }()
		}
		if m := r.Method; m != http.MethodGet && m != http.MethodHead && !(m == http.MethodPost && post) {
			w.Header().Set("Allow", allow(post))
			code = s.fail(w, &apiError{badMethod, fmt.Errorf("shmts: want %s, got %s", allow(post), m)})
			return
		}
		select {
		case s.places <- struct{}{}:
			defer func() { <-s.places }()
		default:
			w.Header().Set("Retry-After", "1")
			code = s.fail(w, &apiError{unavailable, fmt.Errorf("shmts: %d requests are being answered already", s.MaxRequests)})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, s.MaxBody)
		if err := r.ParseForm(); err != nil {
			var big *http.MaxBytesError
			if errors.As(err, &big) {
				err = fmt.Errorf("shmts: want a body of at most %d bytes", big.Limit)
			}
			code = s.fail(w, &apiError{badData, fmt.Errorf("error parsing form values: %w", err)})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), s.Timeout)
		defer cancel()
		code = s.respond(w, r, s.call(f, r.WithContext(ctx)))
	})
}

func allow(post bool) string {
	if post {
		return "GET, HEAD, POST"
	}
	return "GET, HEAD"
}

// call answers, and turns a panic into an internal error: one bad query is no reason to drop others.
func (s *server) call(f answerer, r *http.Request) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			s.Logger.Error("panic in a request", "path", r.URL.Path, "query", r.Form.Get("query"), "panic", p, "stack", string(debug.Stack()))
			a = failed(internal, errors.New("shmts: internal error, see the log"))
		}
	}()
	return f(r)
}
