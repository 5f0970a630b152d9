package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
)

// reloadable is what SIGHUP can change: metric_relabel_configs. All else of the settings holds from the start to the end.
type reloadable struct {
	log    *slog.Logger
	load   func() (*config.Config, error) // as at the start
	first  *config.Config
	latest atomic.Pointer[reloaded]
}

// reloaded is what holds.
type reloaded struct {
	rules *relabel.Rules // not nil
	yaml  string
	at    time.Time
	ok    bool // false: the last attempt failed, and this is of the one before
}

func newReloadable(c *config.Config, load func() (*config.Config, error), log *slog.Logger) *reloadable {
	r := &reloadable{log: log, load: load, first: c}
	r.latest.Store(&reloaded{rules: relabel.Join(c.MetricRelabel), yaml: c.YAML(), at: time.Now(), ok: true})
	if n := c.MetricRelabel.Len(); n > 0 {
		log.Info("metric_relabel_configs", "rules", n)
	}
	return r
}

// rules are those that hold now: the same pointer until they change.
func (r *reloadable) rules() *relabel.Rules { return r.latest.Load().rules }

// shown is all of the settings as a file, for status/config.
func (r *reloadable) shown() (yaml string, at time.Time, ok bool) {
	l := r.latest.Load()
	return l.yaml, l.at, l.ok
}

// run reads the settings again at each signal, until the context ends.
func (r *reloadable) run(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			r.reload()
		}
	}
}

// reload takes new rules over. Where the settings are wrong the old ones stay.
func (r *reloadable) reload() {
	before := r.latest.Load()
	c, err := r.load()
	if err != nil {
		failed := *before
		failed.ok = false
		r.latest.Store(&failed)
		r.log.Error("the settings can't be read anew: the old ones hold", "err", err)
		return
	}
	now := &reloaded{rules: before.rules, yaml: c.YAML(), at: time.Now(), ok: true}
	if !before.rules.Equal(c.MetricRelabel) {
		now.rules = relabel.Join(c.MetricRelabel)
	}
	if names := r.first.Differs(c); len(names) > 0 {
		r.log.Warn("settings were changed that hold from the next start on", "settings", strings.Join(names, ", "))
		now.yaml = before.yaml
	}
	r.latest.Store(now)
	r.log.Info("the settings were read anew", "metric_relabel_configs", now.rules.Len(), "changed", now.rules != before.rules)
}

// shown is a segment without the series of which metric_relabel_configs keep nothing: what the archive is to have of it.
type shown struct {
	*source.Segment
	rules *query.Rules
}

var _ archiver.Segment = shown{}

// Series implements archiver.Segment.
func (s shown) Series() []*reader.Series { return s.rules.Shown(s.Segment, s.Segment.Series()) }

// Take implements archiver.Segment.
func (s shown) Take(table, tier int, begin func(series []*reader.Series, head uint64, epoch uint32) (from uint64, ok bool), yield func(*reader.Row) bool) bool {
	return s.Segment.Take(table, tier, func(series []*reader.Series, head uint64, epoch uint32) (uint64, bool) {
		return begin(s.rules.Shown(s.Segment, series), head, epoch)
	}, yield)
}

// Dropped tells the archiver of a series that is not in Series, but is the segment's.
func (s shown) Dropped(sr *reader.Series) bool {
	all := s.Segment.Series()
	return slices.Contains(all, sr) && !slices.Contains(s.rules.Shown(s.Segment, all), sr)
}

// archived is what the archiver is told of: the register's newest snapshot.
func archived(r *source.Register, rules *query.Rules) func() []archiver.Segment {
	v := &view[archiver.Segment]{register: r, as: func(s *source.Segment) archiver.Segment { return shown{s, rules} }}
	return v.Segments
}

// collisionsEvery is how often all series are compared, where rules may make some equal: it takes milliseconds.
const collisionsEvery = time.Minute

// ruleMetrics bounds the rules that have a series of their own in /metrics: those beyond are summed up under otherRules.
const (
	ruleMetrics = 64
	otherRules  = "other"
)

// relabelMetrics are how many series the rules leave out.
type relabelMetrics struct {
	h        *health.Health
	settings *reloadable
	counter  *query.Rules
	segments *view[query.Segment]

	of       []query.Segment // what was counted last
	rules    *relabel.Rules
	compared time.Time
	behind   bool // there are segments that were not compared yet

	reloaded, success *health.Gauge
	dropped           map[[2]string]*health.Gauge
	nameless, invalid *health.Gauge
	collisions        *health.Gauge
}

func newRelabelMetrics(h *health.Health, settings *reloadable, counter *query.Rules, r *source.Register) *relabelMetrics {
	return &relabelMetrics{h: h, settings: settings, counter: counter, segments: &view[query.Segment]{register: r}, dropped: map[[2]string]*health.Gauge{},
		reloaded: h.Gauge("shmtsd_config_last_reload_success_timestamp_seconds", "Unix time of when the settings were last read and found good.", "s"),
		success:  h.Gauge("shmtsd_config_last_reload_successful", "1, or 0 if the settings were wrong when they were last read.", ""),
	}
}

// update is called after each poll.
func (m *relabelMetrics) update(now time.Time) {
	last := m.settings.latest.Load()
	m.success.Set(0)
	if last.ok {
		m.success.Set(1)
	}
	m.reloaded.Set(float64(last.at.UnixMilli()) / 1000)
	segments := m.segments.Segments()
	changed := len(segments) != len(m.of) || len(segments) > 0 && &segments[0] != &m.of[0] || last.rules != m.rules
	if last.rules.Len() == 0 && len(m.dropped) == 0 || !changed && !m.behind {
		return
	}
	compare := last.rules.Rewrites() && (last.rules != m.rules || now.Sub(m.compared) >= collisionsEvery)
	if !changed && !compare {
		return
	}
	m.of, m.rules, m.behind = segments, last.rules, !compare && last.rules.Rewrites()
	m.set(m.counter.Census(segments, compare), last.rules, compare)
	if compare {
		m.compared = now
	}
}

func (m *relabelMetrics) set(c query.Census, rules *relabel.Rules, compared bool) {
	const help = "Series of the segments that metric_relabel_configs leave out, by the rule."
	counts := map[[2]string]uint64{}
	for i, n := range c.Rules {
		key := [2]string{strconv.Itoa(i + 1), rules.Action(i)}
		if i >= ruleMetrics {
			key = [2]string{otherRules, otherRules}
		}
		counts[key] += n
	}
	for key, n := range counts {
		if m.dropped[key] == nil {
			m.dropped[key] = m.h.Gauge("shmtsd_relabel_dropped_series", help, "", "action", key[1], "rule", key[0])
		}
		m.dropped[key].Set(float64(n))
	}
	for key, g := range m.dropped {
		if _, ok := counts[key]; !ok {
			g.Set(0)
		}
	}
	if m.collisions == nil {
		m.nameless = m.h.Gauge("shmtsd_relabel_nameless_series", "Series that metric_relabel_configs left without a name, and that are therefore left out.", "")
		m.invalid = m.h.Gauge("shmtsd_relabel_invalid_series", "Series that metric_relabel_configs gave a label that none can have, and that are therefore left out.", "")
		m.collisions = m.h.Gauge("shmtsd_relabel_collided_series", "Series that metric_relabel_configs gave the labels of another: one of them is shown at a time.", "")
	}
	m.nameless.Set(float64(c.Nameless))
	m.invalid.Set(float64(c.Invalid))
	if compared || !rules.Rewrites() {
		m.collisions.Set(float64(c.Collisions))
	}
}
