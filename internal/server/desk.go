package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/query"
)

// A Tenant is one of those who ask.
type Tenant struct {
	Name   string
	Engine *query.Engine // of what the tenant may see
	// All says that it sees everything: the daemon's own settings and metrics as well.
	All     bool
	Timeout time.Duration // of a request; 0: Options.Timeout
}

// A desk is a tenant's place in the server: what its requests take while they are answered, and while their clients take the answers. So
// clients that are slow, or many, are in the way of their own tenant.
type desk struct {
	*Tenant
	places share
	large  share // of bodies of more than smallBody
	held   share // of samples
	reads  chan struct{}
	counts chan struct{} // of series, for status/tsdb
}

func (s *server) newDesk(t *Tenant) *desk {
	return &desk{Tenant: t, places: share{pool: &s.places}, large: share{pool: &s.large}, held: share{pool: &s.held},
		reads: make(chan struct{}, maxReads), counts: make(chan struct{}, 1)}
}

// pool is what all desks have together. Where there are several, each gets no more of it than it leaves free: whoever comes next finds room.
type pool struct {
	mu          sync.Mutex
	limit, used int64
	fair        bool
}

// share is a desk's part of a pool.
type share struct {
	pool *pool
	used int64
}

// take takes n, if there is room, or in any case.
func (s *share) take(n int64, anyway bool) bool {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.limit - p.used - n
	if !anyway && (free < 0 || p.fair && s.used+n > max(free, 1)) {
		return false
	}
	p.used += n
	s.used += n
	return true
}

func (s *share) give(n int64) {
	s.pool.mu.Lock()
	s.pool.used -= n
	s.used -= n
	s.pool.mu.Unlock()
}

type deskKey struct{}

// desk is that of a request which was let in.
func (s *server) desk(r *http.Request) *desk { return r.Context().Value(deskKey{}).(*desk) }

// Engine is the one that answers a request. There is no other way to one: the options' sees everything.
func (s *server) Engine(r *http.Request) *query.Engine { return s.desk(r).Engine }

// enter finds the desk of a request, or says why there is none. ours says that what is asked for is the daemon's, and no tenant's.
func (s *server) enter(r *http.Request, ours bool) (*http.Request, *apiError) {
	d := s.only
	if s.Who != nil {
		t, err := s.Who(r)
		if err != nil {
			e := &apiError{forbidden, err}
			if refused := (interface{ Unauthorized() bool })(nil); errors.As(err, &refused) && refused.Unauthorized() {
				e.errorType = unauthorized
			}
			return nil, e
		}
		if d = s.desks[t]; d == nil {
			return nil, &apiError{internal, errors.New("shmts: a tenant that the server does not know")}
		}
	}
	if ours && !d.All {
		return nil, &apiError{forbidden, fmt.Errorf("shmts: want a tenant that sees everything for %s, got another", r.URL.Path)}
	}
	return r.WithContext(context.WithValue(r.Context(), deskKey{}, d)), nil
}

// refuse answers who has no desk.
func (s *server) refuse(w http.ResponseWriter, e *apiError) int {
	if e.errorType == unauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="shmtsd", charset="UTF-8"`)
	}
	return s.fail(w, e)
}

// ours is a handler for tenants that see everything.
func (s *server) ours(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, e := s.enter(r, true)
		if e != nil {
			s.refuse(w, e)
			return
		}
		h.ServeHTTP(w, r)
	})
}
