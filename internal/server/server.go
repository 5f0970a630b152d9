// Package server is Prometheus's HTTP API over internal/query: what Grafana, Perses, promtool and
// curl ask for, in Prometheus's envelope, with its error types and status codes.
//
// Limits are on by default: body and query length, points of a range, time, requests at once, and a
// deadline for clients that do not take their answer. The engine has its own (samples, queue).
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/query"
)

// Options of New. Engine, or Tenants and Who, are required; the zero value of all others is a default fit for a daemon.
type Options struct {
	// Engine answers everybody, where there are no tenants.
	Engine *query.Engine
	// Tenants are those who ask, and Who finds that of a request. Its error is answered: as 401 where it has a method Unauthorized that
	// says so, else as 403.
	Tenants []*Tenant
	Who     func(*http.Request) (*Tenant, error)

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

	Flags map[string]string // settings, for status/flags; no secrets
	// Config is the same as YAML, for status/config; when it was last read, and whether it was good when that was last tried. It may be nil.
	Config    func() (yaml string, at time.Time, ok bool)
	Retention string // for status/runtimeinfo: what is kept, and for how long
	// Status is what the daemon says of itself, for status/shmtsd; nil: 404.
	Status func() any
	// Corruptions counts what was found to be broken; nil: nothing ever is.
	Corruptions func() int64

	Timeout     time.Duration // of a request, whatever it asks for; 0: 2 min
	MaxBody     int64         // bytes of a POST; 0: 1 MiB
	MaxPoints   int           // of a series in a range query; 0: 11,000, as Prometheus
	MaxRequests int           // at once; 0: 128
	MaxHeld     int           // samples of answers that wait for their clients, all together; 0: 10,000,000
	// MaxReadSamples is how many samples an answer of remote read has that is not streamed; 0: 2,000,000.
	MaxReadSamples int
	WriteWait      time.Duration // for a client to take the next part of an answer; 0: 30 s

	Now func() time.Time
}

// server holds the options with their defaults.
type server struct {
	Options
	places  pool // requests
	large   pool // bodies of more than smallBody
	held    pool // samples of answers that are made and not taken yet
	only    *desk
	desks   map[*Tenant]*desk
	started time.Time
}

// Places beside MaxRequests, for what takes memory while it waits for a client. Those of reads are each tenant's.
const (
	smallBody   = 64 << 10
	largeBodies = 16
	maxReads    = 2
)

// New is the handler of everything that the daemon answers. It is safe for concurrent use.
func New(o Options) http.Handler {
	def(&o.Timeout, 2*time.Minute)
	def(&o.MaxBody, 1<<20)
	def(&o.MaxPoints, 11_000)
	def(&o.MaxRequests, 128)
	def(&o.MaxHeld, 10_000_000)
	def(&o.MaxReadSamples, 2_000_000)
	def(&o.WriteWait, 30*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Config == nil {
		at := o.Now()
		o.Config = func() (string, time.Time, bool) { return "", at, true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &server{Options: o, desks: map[*Tenant]*desk{}, started: o.Now()}
	fair := len(o.Tenants) > 1
	s.places, s.large, s.held = pool{limit: int64(o.MaxRequests), fair: fair}, pool{limit: largeBodies, fair: fair}, pool{limit: int64(o.MaxHeld), fair: fair}
	s.only = s.newDesk(&Tenant{Engine: o.Engine, All: true})
	for _, t := range o.Tenants {
		s.desks[t] = s.newDesk(t)
	}

	mux := http.NewServeMux()
	for _, e := range []struct {
		path, methods string
		answer        answerer
		ours          bool // for tenants that see everything alone
	}{
		{"query", "GET POST", s.query, false},
		{"query_range", "GET POST", s.queryRange, false},
		{"query_exemplars", "GET POST", s.queryExemplars, false},
		{"format_query", "GET POST", s.formatQuery, false},
		{"parse_query", "GET POST", s.parseQuery, false},
		{"labels", "GET POST", s.labelNames, false},
		{"label/{name}/values", "GET", s.labelValues, false},
		{"series", "GET POST", s.series, false},
		{"metadata", "GET", s.metadata, false},
		{"rules", "GET", s.rules, false},
		{"alerts", "GET", s.alerts, false},
		{"targets", "GET", s.targets, false},
		{"targets/metadata", "GET", s.targetMetadata, false},
		{"scrape_pools", "GET", s.scrapePools, false},
		{"alertmanagers", "GET", s.alertmanagers, false},
		{"notifications", "GET", s.notifications, false},
		{"notifications/live", "GET", s.notificationsLive, false},
		{"status/buildinfo", "GET", s.buildInfo, false},
		{"status/runtimeinfo", "GET", s.runtimeInfo, true},
		{"status/config", "GET", s.statusConfig, true},
		{"status/flags", "GET", s.statusFlags, true},
		{"status/tsdb", "GET", s.statusTSDB, false},
		{"status/tsdb/blocks", "GET", s.statusBlocks, false},
		{"status/walreplay", "GET", s.walReplay, false},
		{"status/shmtsd", "GET", s.statusOwn, true},
	} {
		mux.Handle("/api/v1/"+e.path, s.endpoint(e.path, e.methods, e.ours, e.answer))
	}
	mux.Handle("/api/v1/read", s.guarded("read", "POST", false, s.remoteRead))
	mux.Handle("/federate", s.guarded("federate", "GET", false, s.form(s.federate)))
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, &apiError{notFound, fmt.Errorf("shmts: no such endpoint: %s", r.URL.Path)})
	})
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "shmtsd is healthy.\n") })
	mux.HandleFunc("GET /-/ready", s.ready)
	if o.Metrics != nil {
		mux.Handle("GET /metrics", s.ours(o.Metrics))
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
func (s *server) endpoint(path, methods string, ours bool, f answerer) http.Handler {
	return s.guarded(path, methods, ours, s.form(func(w http.ResponseWriter, r *http.Request) int {
		return s.respond(w, r, s.call(f, r))
	}))
}

// A handler answers, and says with which status code.
type handler func(w http.ResponseWriter, r *http.Request) int

// guarded is a handler behind its methods, the tenant who asks, the limits of what comes in, and a deadline.
func (s *server) guarded(path, methods string, ours bool, f handler) http.Handler {
	allow := "OPTIONS"
	for _, m := range strings.Fields(methods) {
		if m == http.MethodGet {
			m += ", HEAD"
		}
		allow = m + ", " + allow
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin, code := s.Now(), canceled.code // what it is if the connection is cut inside an answer
		if s.Observe != nil {
			defer func() { s.Observe(path, code, s.Now().Sub(begin)) }()
		}
		switch m := r.Method; {
		case m == http.MethodOptions: // nothing about other origins: what runs here is not for every web page that is open beside
			w.Header().Set("Allow", allow)
			code = http.StatusNoContent
			w.WriteHeader(code)
			return
		case m == http.MethodHead && strings.Contains(methods, http.MethodGet):
		case !slices.Contains(strings.Fields(methods), m):
			w.Header().Set("Allow", allow)
			code = s.fail(w, &apiError{badMethod, fmt.Errorf("shmts: want %s, got %s", allow, m)})
			return
		}
		r, refused := s.enter(r, ours)
		if refused != nil {
			code = s.refuse(w, refused)
			return
		}
		d := s.desk(r)
		// A body may come slowly, so it takes no place among the requests; large ones have few of their own.
		r.Body = http.MaxBytesReader(w, r.Body, s.MaxBody)
		if n := r.ContentLength; n < 0 || n > smallBody {
			if !d.large.take(1, false) {
				code = s.busy(w, fmt.Errorf("shmts: as many requests with bodies of more than %d bytes are being read already as may, %d in all", smallBody, largeBodies))
				return
			}
			defer d.large.give(1)
		}
		ctx, cancel := context.WithTimeout(r.Context(), cmp.Or(d.Timeout, s.Timeout))
		defer cancel()
		code = f(w, r.WithContext(ctx))
	})
}

func (s *server) busy(w http.ResponseWriter, err error) int {
	return s.fail(w, &apiError{unavailable, err})
}

// placed is a handler that takes a place while it works.
func (s *server) placed(f handler) handler {
	return func(w http.ResponseWriter, r *http.Request) int {
		d := s.desk(r)
		if !d.places.take(1, false) {
			return s.busy(w, fmt.Errorf("shmts: as many requests are being answered already as may, %d in all", s.MaxRequests))
		}
		defer d.places.give(1)
		return f(w, r)
	}
}

// form is a handler whose form is parsed.
func (s *server) form(f handler) handler {
	f = s.placed(f)
	return func(w http.ResponseWriter, r *http.Request) int {
		if err := r.ParseForm(); err != nil {
			return s.fail(w, &apiError{badData, fmt.Errorf("error parsing form values: %w", s.tooLarge(err))})
		}
		return f(w, r)
	}
}

// tooLarge says of a body that was cut off what it may be.
func (s *server) tooLarge(err error) error {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return fmt.Errorf("shmts: want a body of at most %d bytes", big.Limit)
	}
	return err
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
