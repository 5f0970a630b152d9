package main

import (
	"errors"

	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/tenant"
)

// maxTenants bounds those who have series of their own, the first of the configuration; the others are summed up under tenant.Other.
const maxTenants = 32

// askerMetrics show what is asked, by tenant. Its names are those of the configuration, never what a request says.
type askerMetrics struct {
	h     *health.Health
	list  []*askerSeries
	other *askerSeries
}

// askerSeries are those of one tenant, or of several.
type askerSeries struct {
	engines                         []*query.Engine
	running, waiting, memory        *health.Gauge
	queries, refused, left, samples *health.Counter
	seconds, waited                 *health.Counter
}

func newAskerMetrics(h *health.Health) *askerMetrics { return &askerMetrics{h: h} }

// add adds one; without a name there are no tenants.
func (m *askerMetrics) add(name string, e *query.Engine) {
	if len(m.list) >= maxTenants {
		if m.other == nil {
			m.other = m.series(tenant.Other)
			m.list = append(m.list, m.other)
		}
		m.other.engines = append(m.other.engines, e)
		return
	}
	s := m.series(name)
	s.engines = []*query.Engine{e}
	m.list = append(m.list, s)
}

func (m *askerMetrics) series(name string) *askerSeries {
	var labels []string
	if name != "" {
		labels = []string{"tenant", name}
	}
	return &askerSeries{
		running: m.h.Gauge("shmtsd_queries_running", "Queries that run.", "", labels...),
		waiting: m.h.Gauge("shmtsd_queries_waiting", "Queries that wait for a place.", "", labels...),
		memory:  m.h.Gauge("shmtsd_queries_memory_bytes", "What queries and answers that are not taken yet hold, as it is counted.", "By", labels...),
		queries: m.h.Counter("shmtsd_queries_total", "Queries that got a place.", "", labels...),
		refused: m.h.Counter("shmtsd_queries_refused_total", "Queries that were refused, as many waited as may.", "", labels...),
		left:    m.h.Counter("shmtsd_queries_left_total", "Queries whose client went away, or whose time was over, while they waited.", "", labels...),
		samples: m.h.Counter("shmtsd_queries_samples_total", "Numbers that queries read.", "", labels...),
		seconds: m.h.Counter("shmtsd_queries_seconds_total", "Time for which queries had their places.", "s", labels...),
		waited:  m.h.Counter("shmtsd_queries_waited_seconds_total", "Time for which queries waited for them.", "s", labels...),
	}
}

// reasons registers what refused counts.
func (m *askerMetrics) reasons() {
	for _, r := range tenant.Reasons {
		m.turnedAway(r)
	}
}

func (m *askerMetrics) turnedAway(reason string) *health.Counter {
	return m.h.Counter("shmtsd_requests_refused_total", "Requests that are of no tenant.", "", "reason", reason)
}

func (m *askerMetrics) refused(err error) {
	var r *tenant.Refused
	if errors.As(err, &r) {
		m.turnedAway(r.Reason).Add(1)
	}
}

func (m *askerMetrics) update() {
	if m == nil {
		return
	}
	for _, s := range m.list {
		var all query.Stats
		for _, e := range s.engines {
			st := e.Stats()
			all.Running += st.Running
			all.Waiting += st.Waiting
			all.Admitted += st.Admitted
			all.Refused += st.Refused
			all.Left += st.Left
			all.Ran += st.Ran
			all.Waited += st.Waited
			all.Samples += st.Samples
			all.Memory += st.Memory
		}
		s.running.Set(float64(all.Running))
		s.waiting.Set(float64(all.Waiting))
		s.memory.Set(float64(all.Memory))
		s.queries.Total(float64(all.Admitted))
		s.refused.Total(float64(all.Refused))
		s.left.Total(float64(all.Left))
		s.samples.Total(float64(all.Samples))
		s.seconds.Total(all.Ran.Seconds())
		s.waited.Total(all.Waited.Seconds())
	}
}
