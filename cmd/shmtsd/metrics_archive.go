package main

import (
	"sync"

	"github.com/prometheus/common/model"

	"github.com/shmts/shmts/internal/health"
)

// archiveMetrics are what shmtsd records of its archive, taken over at each poll.
type archiveMetrics struct {
	h     *health.Health
	mu    sync.Mutex
	tiers []tierMetrics
	lost  map[string]*health.Counter

	lag, cohorts, over, unfolded                                                   *health.Gauge
	folds, foldFails, ephemeral, copied, polls, drained, failures, syncs, syncTime *health.Counter
	stopped                                                                        [len(stopReasons)]*health.Gauge
}

type tierMetrics struct {
	blocks, rows, samples, bytes, seconds, evicted, skipped *health.Counter
	size, extents, used, oldest, newest                     *health.Gauge
}

func newArchiveMetrics(h *health.Health, a *history) *archiveMetrics {
	m := &archiveMetrics{
		h:         h,
		lost:      map[string]*health.Counter{},
		lag:       h.Gauge("shmtsd_archive_lag_seconds", "Age of the oldest row that is in a ring and not yet in the archive.", "s"),
		cohorts:   h.Gauge("shmtsd_archive_cohorts", "Groups of tables whose rows are written together.", ""),
		over:      h.Gauge("shmtsd_archive_users_over_limit", "Users, a tier each, that have written more than archive.user-bytes-per-second allows.", ""),
		polls:     h.Counter("shmtsd_archive_polls_total", "Looks at all segments for rows to write.", ""),
		folds:     h.Counter("shmtsd_archive_folds_total", "Times that rows of a source were folded into a coarser tier.", ""),
		foldFails: h.Counter("shmtsd_archive_fold_failures_total", "Sources that could not be folded into a coarser tier.", ""),
		ephemeral: h.Counter("shmtsd_archive_ephemeral_sources_total", "Sources that were added to the sum of their job's, in a tier for which they lived too short.", ""),
		copied:    h.Counter("shmtsd_archive_rows_copied_total", "Rows taken from a writer's coarser ring, where finer ones were lost.", ""),
		unfolded:  h.Gauge("shmtsd_archive_unfolded_tables", "Tables of sources of which rows are not folded yet, over all tiers.", ""),
		drained:   h.Counter("shmtsd_archive_segments_drained_total", "Ended segments of which every row was written.", ""),
		failures:  h.Counter("shmtsd_archive_failures_total", "Times that archiving stopped.", ""),
		syncs:     h.Counter("shmtsd_archive_syncs_total", "Syncs of what was written.", ""),
		syncTime:  h.Counter("shmtsd_archive_sync_seconds_total", "Time that syncs took.", "s"),
	}
	for i, r := range stopReasons {
		m.stopped[i] = h.Gauge("shmtsd_archive_stopped", "1 while nothing is archived for this reason; the log and /-/ready say which error it is.", "", "reason", r.name)
	}
	for _, t := range a.archive.Tiers() {
		tier := model.Duration(t.Step).String()
		m.tiers = append(m.tiers, tierMetrics{
			blocks:  h.Counter("shmtsd_archive_blocks_written_total", "Blocks written, a cohort's rows each.", "", "tier", tier),
			rows:    h.Counter("shmtsd_archive_rows_written_total", "Rows written, of one table of one source each.", "", "tier", tier),
			samples: h.Counter("shmtsd_archive_samples_written_total", "Values written: series times rows.", "", "tier", tier),
			bytes:   h.Counter("shmtsd_archive_written_bytes_total", "Bytes of blocks written, with labels, without extents' indexes.", "By", "tier", tier),
			seconds: h.Counter("shmtsd_archive_write_seconds_total", "Time that encoding and writing took.", "s", "tier", tier),
			evicted: h.Counter("shmtsd_archive_extents_evicted_total", "Extents whose rows made room for newer ones.", "", "tier", tier),
			skipped: h.Counter("shmtsd_archive_checks_failed_total", "Parts of the archive that failed a check and are not served.", "", "tier", tier),
			size:    h.Gauge("shmtsd_archive_size_bytes", "Size of the tier's file, which never grows.", "By", "tier", tier),
			extents: h.Gauge("shmtsd_archive_extents", "Extents of the tier.", "", "tier", tier),
			used:    h.Gauge("shmtsd_archive_extents_used", "Extents that hold something.", "", "tier", tier),
			oldest:  h.Gauge("shmtsd_archive_oldest_timestamp_seconds", "Time of the tier's oldest row, 0 without one.", "s", "tier", tier),
			newest:  h.Gauge("shmtsd_archive_newest_timestamp_seconds", "Time of the tier's newest row, 0 without one.", "s", "tier", tier),
		})
	}
	return m
}

func (m *archiveMetrics) update(a *history) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := a.archiver.Stats()
	for i, t := range s.Tiers {
		to := &m.tiers[i]
		to.blocks.Total(float64(t.Blocks))
		to.rows.Total(float64(t.Rows))
		to.samples.Total(float64(t.Samples))
		to.bytes.Total(float64(t.Bytes))
		to.seconds.Total(t.Time.Seconds())
	}
	for i, t := range a.archive.Tiers() {
		to := &m.tiers[i]
		to.evicted.Total(float64(t.Evicted))
		to.skipped.Total(float64(t.Skipped))
		to.size.Set(float64(t.Size))
		to.extents.Set(float64(t.Extents))
		to.used.Set(float64(t.Used))
		to.oldest.Set(float64(t.Oldest) / 1e3)
		to.newest.Set(float64(t.Newest) / 1e3)
	}
	for reason, n := range s.Lost {
		c := m.lost[reason]
		if c == nil {
			c = m.h.Counter("shmtsd_archive_rows_lost_total", "Rows that are in no tier because of this.", "", "reason", reason)
			m.lost[reason] = c
		}
		c.Total(float64(n))
	}
	m.lag.Set(s.Oldest.Seconds())
	m.cohorts.Set(float64(s.Cohorts))
	m.over.Set(float64(s.Over))
	if f := a.swept.Load(); f != nil {
		m.folds.Total(float64(f.Folded))
		m.foldFails.Total(float64(f.Failed))
		m.ephemeral.Total(float64(f.Ephemeral))
		m.copied.Total(float64(f.Copied))
		m.unfolded.Set(float64(f.Pending))
	}
	m.polls.Total(float64(s.Polls))
	m.drained.Total(float64(s.Drained))
	m.failures.Total(float64(s.Failures))
	m.syncs.Total(float64(s.Syncs))
	m.syncTime.Total(s.SyncTime.Seconds())
	why := stopReason(a.archiver.Stopped())
	for i, g := range m.stopped {
		v := 0.0
		if i == why {
			v = 1
		}
		g.Set(v)
	}
}
