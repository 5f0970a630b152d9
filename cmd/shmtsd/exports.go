package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/otlp"
	"github.com/shmts/shmts/internal/export/remotewrite"
	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/internal/source"
)

// mostInterval is how far apart exporters look for new rows at most, however far apart are those that they send: it is what they lag.
const mostInterval = 10 * time.Second

// exports are the destinations, each at its own pace.
type exports struct {
	all      []*export.Exporter
	d        []config.Destination
	recorded *recorded
	rates    rates
}

// openExports opens all destinations. An error says which one can't be, and why.
func openExports(c *config.Config, d *daemon) (*exports, error) {
	x := &exports{d: c.Destinations, recorded: &recorded{segments: &view[export.Segment]{register: d.register}, heads: map[recordedKey]uint64{}}}
	for i := range c.Destinations {
		e, err := openExport(c, &c.Destinations[i], d)
		if err != nil {
			return nil, errors.Join(err, x.close())
		}
		x.all = append(x.all, e)
	}
	if len(x.all) > 0 && c.PositionsDir() == "" {
		d.log.Info("how far destinations are is kept in memory: after a restart they are sent what the rings hold once more (export.dir or archive.dir says where to keep it)")
	}
	if len(x.all) > 0 && d.history == nil {
		d.register.Hold("export", x.finished)
	}
	return x, nil
}

func openExport(c *config.Config, o *config.Destination, d *daemon) (*export.Exporter, error) {
	enc, err := encoder(o, d)
	if err != nil {
		return nil, err
	}
	e := export.Options{
		Name: o.Name, Step: o.Step, Interval: min(o.Step, mostInterval), Delta: o.Delta, Backoff: o.MinBackoff, MaxBackoff: o.MaxBackoff,
		CatchUpRate: o.CatchUpRate, SourceKey: source.Key, SyncInterval: c.Archive.SyncInterval, Logger: d.log, Sent: d.metrics.exported(o.Name),
	}
	if d.exemplars != nil {
		e.Exemplars = d.exemplars
	}
	if d.history != nil {
		a, ok := d.history.archive.(export.Archive)
		if !ok {
			return nil, fmt.Errorf("shmts: export: want an archive that can be gone through, got %T", d.history.archive)
		}
		e.Archive = a
	}
	if dir := c.PositionsDir(); dir != "" {
		e.Positions = filepath.Join(dir, config.FileName(o.Name)+".positions")
	}
	x, err := export.New(e, enc, (&view[export.Segment]{register: d.register}).Segments)
	if err != nil {
		return nil, err
	}
	d.log.Info("exporting", "destination", o.Name, "protocol", o.Protocol, "url", redacted(o.HTTP.URL), "step", o.Step)
	return x, nil
}

// encoder is a destination's protocol.
func encoder(o *config.Destination, d *daemon) (export.Encoder, error) {
	switch o.Protocol {
	case config.OTLPHTTP, config.OTLPGRPC:
		return otlp.New(otlp.Options{HTTP: o.HTTP, Protocol: o.Protocol, Compression: o.Compression, Delta: o.Delta, BatchBytes: o.BatchBytes, BatchPoints: o.BatchPoints,
			Version: version, Rules: joined(d.settings, o.Rules)})
	case config.RemoteWrite:
		return remotewrite.New(remotewrite.Options{HTTP: o.HTTP, Message: o.Message, MaxSamples: o.MaxSamples, MaxShards: o.MaxShards, NoRetryOn429: o.NoRetryOn429,
			Exemplars: o.Exemplars, Classic: o.Classic, NoMetadata: o.NoMetadata, MetadataInterval: o.MetadataInterval, Step: o.Step,
			Rules: joined(d.settings, o.Rules), Version: version, Logger: d.log.With("destination", o.Name)})
	}
	return nil, fmt.Errorf("shmts: %s: want a protocol that is there, got %s", o.Name, o.Protocol)
}

// joined are the rules for all series, which may change, and behind them a destination's own.
func joined(settings *reloadable, own *relabel.Rules) func() *relabel.Rules {
	var of, out *relabel.Rules
	return func() *relabel.Rules {
		if now := settings.rules(); out == nil || now != of {
			of, out = now, relabel.Join(now, own)
		}
		return out
	}
}

// finished tells whether no destination needs an ended segment any more.
func (x *exports) finished(s *source.Segment) bool {
	for _, e := range x.all {
		if !e.Finished(s.ID()) {
			return false
		}
	}
	return true
}

// run exports until the context ends, each destination by itself: one that is slow makes no other one wait.
func (x *exports) run(ctx context.Context) {
	var work sync.WaitGroup
	for _, e := range x.all {
		work.Go(func() { e.Run(ctx) })
	}
	work.Wait()
}

// flush exports what there is, until the context ends.
func (x *exports) flush(ctx context.Context) error {
	errs := make([]error, len(x.all))
	var work sync.WaitGroup
	for i, e := range x.all {
		work.Go(func() {
			if err := e.Flush(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", e.Name(), err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

func (x *exports) close() error {
	var errs []error
	for _, e := range x.all {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}

// recorded counts the samples that writers record: series times rows of the finest tier. It is what exports save of.
type recorded struct {
	segments *view[export.Segment]
	mu       sync.Mutex
	looked   time.Time
	heads    map[recordedKey]uint64
	total    uint64
}

type recordedKey struct {
	id    string
	table int
}

// recordedEvery is how often all heads are looked at.
const recordedEvery = 10 * time.Second

// samples is how many were recorded since the start.
func (r *recorded) samples(now time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(now)
	return r.total
}

func (r *recorded) look(now time.Time) {
	if now.Sub(r.looked) < recordedEvery {
		return
	}
	first := r.looked.IsZero()
	r.looked = now
	heads := make(map[recordedKey]uint64, len(r.heads))
	for _, g := range r.segments.Segments() {
		series := g.Series()
		for t := range g.Tables() {
			k := recordedKey{g.ID(), t}
			head := g.Head(t, 0)
			heads[k] = head
			was, known := r.heads[k]
			if !known && first { // what was recorded before this process
				was = head
			}
			if head <= was {
				continue
			}
			n := uint64(0)
			for _, s := range series {
				if s.Table == t && !s.Retired {
					n++
				}
			}
			r.total += n * (head - was)
		}
	}
	r.heads = heads
}

// exportMetrics are one destination's, in /metrics.
type exportMetrics struct {
	points, rowsAhead, sent, extents, failures *health.Counter
	lag, behind, waiting, lastSent, positions  *health.Gauge
}

func (m *selfMetrics) ofDestination(name string) *exportMetrics {
	if x := m.exports[name]; x != nil {
		return x
	}
	h, by := m.h, []string{"destination", name}
	x := &exportMetrics{
		points:    h.Counter("shmtsd_export_points_total", "Data points, or samples, that a receiver accepted.", "", by...),
		rowsAhead: h.Counter("shmtsd_export_rows_ahead_total", "Rows of a time that was still to come, as the clock was stepped back: passed over.", "", by...),
		sent:      h.Counter("shmtsd_export_sent_bytes_total", "Bytes of export requests, compressed.", "By", by...),
		extents:   h.Counter("shmtsd_export_extents_lost_total", "Extents of the archive that were evicted before a destination had gone through them.", "", by...),
		failures:  h.Counter("shmtsd_export_positions_failures_total", "Times that how far a destination is could not be written to the disk.", "", by...),
		lag:       h.Gauge("shmtsd_export_lag_seconds", "By how much what was sent lies behind what is there.", "s", by...),
		behind:    h.Gauge("shmtsd_export_behind", "1 while rows out of the archive are sent, after an outage.", "", by...),
		waiting:   h.Gauge("shmtsd_export_waiting_tables", "Tables whose rings go on only once what the archive has of them was sent.", "", by...),
		lastSent:  h.Gauge("shmtsd_export_last_success_timestamp_seconds", "Unix time of the last export that was accepted.", "s", by...),
		positions: h.Gauge("shmtsd_export_positions", "Tables of segments of which it is kept how far they were sent.", "", by...),
	}
	m.exports[name] = x
	return x
}

// exported is told of each attempt of an export request to a destination.
func (m *selfMetrics) exported(name string) func(time.Duration) {
	h := m.h.Histogram("shmtsd_export_request_duration_seconds", "Time that an export request took.", "destination", name)
	return func(took time.Duration) { h.Record(took.Seconds()) }
}

func (m *selfMetrics) updateExports(x *exports) {
	if x == nil || len(x.all) == 0 {
		return
	}
	if now := time.Now(); x.rates.due(now) {
		x.rates.look(now, x)
	}
	m.h.Counter("shmtsd_recorded_samples_total", "Samples that writers recorded: series times rows of the finest tier.", "").Total(float64(x.recorded.samples(time.Now())))
	for _, e := range x.all {
		s, of := e.Stats(), m.ofDestination(e.Name())
		for outcome, n := range s.Requests {
			m.h.Counter("shmtsd_export_requests_total", "Attempts of export requests.", "", "destination", e.Name(), "outcome", outcome).Total(float64(n))
		}
		for reason, n := range s.Refused {
			m.h.Counter("shmtsd_export_points_refused_total", "Data points, or samples, that a receiver did not take: they are not sent again.", "", "destination", e.Name(), "reason", reason).Total(float64(n))
		}
		for reason, n := range s.Lost {
			m.h.Counter("shmtsd_export_rows_lost_total", "Rows that were gone before they could be sent.", "", "destination", e.Name(), "reason", reason).Total(float64(n))
		}
		of.points.Total(float64(s.Points))
		of.rowsAhead.Total(float64(s.RowsAhead))
		of.sent.Total(float64(s.Bytes))
		of.extents.Total(float64(s.Extents))
		of.failures.Total(float64(s.Failures))
		of.lag.Set(s.Lag.Seconds())
		of.behind.Set(0)
		if s.Behind {
			of.behind.Set(1)
		}
		of.waiting.Set(float64(s.Waiting))
		of.positions.Set(float64(s.Positions))
		if !s.LastSent.IsZero() {
			of.lastSent.Set(float64(s.LastSent.UnixMilli()) / 1000)
		}
	}
}
