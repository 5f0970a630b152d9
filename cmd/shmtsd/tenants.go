package main

import (
	"net/http"
	"strings"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/health"
	past "github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/internal/tenant"
)

// openTenants holds the tenants of the configuration to the rules; nil: there are none.
func openTenants(c *config.Config) (*tenant.Tenants, error) {
	if c.Tenants == nil {
		return nil, nil
	}
	return tenant.New(c.Tenants, tenant.Defaults{
		Concurrency: c.QueryConcurrency, MaxSamples: c.QueryMaxSamples, Timeout: c.QueryTimeout, MaxMemory: c.QueryMaxMemory, MaxMemoryTotal: c.QueryMemoryTotal,
	}, tenant.Listener{Unix: strings.HasPrefix(c.Listen, "unix:"), Web: c.WebConfig != ""})
}

// askers are those who ask: all as one, or tenants, each with an engine over what it may see.
type askers struct {
	engine  *query.Engine // nil: there are tenants
	tenants []*server.Tenant
	who     func(*http.Request) (*server.Tenant, error)
	metrics *askerMetrics
}

func (d *daemon) openAskers(c *config.Config, t *tenant.Tenants, h *health.Health) *askers {
	gate, pace := query.NewGate(c.QueryConcurrency), query.NewPace()
	all := query.NewMemory(c.QueryMemoryTotal, "all queries", nil)
	o := query.Options{Experimental: c.QueryExperimental, Rules: d.rules, Pace: pace, Logger: d.log}
	a := &askers{metrics: newAskerMetrics(h)}
	if t == nil {
		o.Sources = querySources(d.register, d.history, d.exemplars, c.QueryMaxSources, nil)
		o.Timeout, o.MaxSamples, o.MaxMemory, o.Memory = c.QueryTimeout, c.QueryMaxSamples, c.QueryMaxMemory, all
		o.Share = gate.Share(query.ShareOptions{})
		a.engine = query.New(o)
		a.metrics.add("", a.engine)
		return a
	}
	of := make(map[*tenant.Tenant]*server.Tenant, len(t.List()))
	for _, one := range t.List() {
		o := o
		o.Sources, o.Scope = querySources(d.register, d.history, d.exemplars, c.QueryMaxSources, one), one.Scope
		o.Timeout, o.MaxSamples, o.MaxMemory = one.Timeout, one.MaxSamples, one.MaxMemory
		o.Memory = query.NewMemory(one.MaxMemoryTotal, "all queries of a tenant", all)
		o.Share = gate.Share(query.ShareOptions{Concurrency: one.Concurrency, Queue: one.Queue, Weight: one.Weight})
		s := &server.Tenant{Name: one.Name, Engine: query.New(o), All: one.All, Timeout: one.Timeout}
		a.tenants, of[one] = append(a.tenants, s), s
		a.metrics.add(one.Name, s.Engine)
	}
	a.who = func(r *http.Request) (*server.Tenant, error) {
		one, err := t.Of(r)
		if err != nil {
			a.metrics.refused(err)
			return nil, err
		}
		return of[one], nil
	}
	a.metrics.reasons()
	return a
}

// querySources is what PromQL is about: the register's segments and, if there is one, the archive; of a tenant, what it may see of them.
func querySources(r *source.Register, h *history, x *exemplars.Store, maxSources int, t *tenant.Tenant) query.Sources {
	o := past.Options{Living: (&view[past.Living]{register: r, keep: seen(t)}).Segments, Left: func() int64 { return r.Left() / 1e6 }, MaxSources: maxSources}
	if h != nil {
		o.Archive = h.archive
	}
	if x != nil {
		o.Recent = x
	}
	if t != nil {
		o.UID, o.Scope = t.SeesUID, t.Scope
	}
	return past.New(o)
}

// seen keeps the segments of which a tenant sees anything; nil: all.
func seen(t *tenant.Tenant) func([]*source.Segment) []*source.Segment {
	if t == nil || t.All {
		return nil
	}
	var sieve *query.Sieve
	if t.Scope != nil {
		sieve = query.NewSieve(t.Scope)
	}
	return func(all []*source.Segment) []*source.Segment {
		var kept []*source.Segment
		for _, s := range all {
			if t.SeesUID(s.UID()) {
				kept = append(kept, s)
			}
		}
		if sieve == nil {
			return kept
		}
		segments := make([]query.Segment, len(kept))
		for i, s := range kept {
			segments[i] = s
		}
		var out []*source.Segment
		for i, keep := range sieve.Keep(segments) {
			if keep {
				out = append(out, kept[i])
			}
		}
		return out
	}
}
