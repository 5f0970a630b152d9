package main

import (
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/shmts/shmts/internal/status"
)

var started = time.Now()

// status is what the daemon says of itself: /api/v1/status/shmtsd.
func (d *daemon) status() any {
	now := time.Now()
	s := d.register.Stats()
	out := status.Daemon{Version: version, Started: rfc3339(started), Degraded: d.degraded(),
		Store: status.Store{Alive: s.Alive, Stalled: s.Stalled, Ended: s.Closed + s.Dead, Sources: s.Sources, Series: s.Series, Bytes: s.Bytes}}
	if err := d.isReady(); err != nil {
		out.Ready = err.Error()
	}
	if d.history != nil {
		out.Archive = d.history.status()
	}
	out.Export = d.exports.status(now)
	return out
}

func (h *history) status() *status.Archive {
	stats := h.archiver.Stats()
	a := &status.Archive{Stopped: stats.Stopped, Lag: stats.Oldest.Seconds()}
	for _, t := range h.archive.Tiers() {
		tier := status.Tier{Step: model.Duration(t.Step).String(), Size: t.Size, Used: t.Bytes}
		if t.Oldest != 0 {
			tier.Oldest = rfc3339(time.UnixMilli(t.Oldest))
		}
		a.Tiers = append(a.Tiers, tier)
	}
	return a
}

func (x *exports) status(now time.Time) status.Export {
	out := status.Export{Recorded: x.recorded.samples(now), Destinations: []status.Destination{}}
	rates := x.rates.look(now, x)
	out.RecordedRate = rates[0]
	for i, e := range x.all {
		s, o := e.Stats(), &x.d[i]
		d := status.Destination{Name: o.Name, Protocol: o.Protocol, URL: redacted(o.HTTP.URL), Step: model.Duration(o.Step).String(), Sent: s.Points, SentRate: rates[i+1], Bytes: s.Bytes,
			Requests: s.Requests, Refused: s.Refused, LostRows: s.Lost, LostExtents: s.Extents, Lag: s.Lag.Seconds(), Behind: s.Behind, LastError: s.LastError}
		if !s.LastSent.IsZero() {
			d.LastSent = rfc3339(s.LastSent)
		}
		out.Destinations = append(out.Destinations, d)
	}
	return out
}

// redacted is a URL without a password that it may hold.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// rates are how much counters went up in a second, over about a minute.
type rates struct {
	mu  sync.Mutex
	old []reading // oldest first
}

type reading struct {
	at     time.Time
	counts []uint64
}

const (
	rateOver  = time.Minute
	rateEvery = 10 * time.Second
)

// due tells whether it is time for a reading.
func (r *rates) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.old) == 0 || now.Sub(r.old[len(r.old)-1].at) >= rateEvery
}

// look takes a reading, and answers the rate of what was recorded, and then of what each destination took.
func (r *rates) look(now time.Time, x *exports) []float64 {
	counts := []uint64{x.recorded.samples(now)}
	for _, e := range x.all {
		counts = append(counts, e.Stats().Points)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]float64, len(counts))
	if len(r.old) > 0 {
		if took := now.Sub(r.old[0].at).Seconds(); took > 0 {
			for i, n := range counts {
				out[i] = float64(n-r.old[0].counts[i]) / took
			}
		}
	}
	if n := len(r.old); n == 0 || now.Sub(r.old[n-1].at) >= rateEvery {
		r.old = append(r.old, reading{now, counts})
	}
	for len(r.old) > 2 && now.Sub(r.old[1].at) >= rateOver {
		r.old = r.old[1:]
	}
	return out
}
