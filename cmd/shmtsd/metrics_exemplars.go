package main

import (
	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/source"
)

// exemplarMetrics are what shmtsd records of exemplars, taken over at each poll.
type exemplarMetrics struct {
	store *exemplars.Store

	kept                                    *health.Gauge
	seen, missed, evicted, dropped, skipped *health.Counter
	archived, blocks, lost, archivedEvicted *health.Counter // nil: no archive
}

func newExemplarMetrics(h *health.Health, s *exemplars.Store, archive bool) *exemplarMetrics {
	m := &exemplarMetrics{
		store:   s,
		kept:    h.Gauge("shmtsd_exemplars_kept", "Exemplars of living processes in memory.", ""),
		seen:    h.Counter("shmtsd_exemplars_seen_total", "Exemplars read from segments.", ""),
		missed:  h.Counter("shmtsd_exemplars_missed_total", "Exemplars that writers numbered and that could not be read: dropped by them, broken, or written over between two polls.", ""),
		evicted: h.Counter("shmtsd_exemplars_evicted_total", "Exemplars let go of memory for newer ones.", ""),
		dropped: h.Counter("shmtsd_writers_dropped_exemplars_total", "Exemplars that writers dropped, as their slot was held.", ""),
		skipped: h.Counter("shmtsd_exemplars_skipped_total", "Exemplars passed over: broken, or of a series that can have none.", ""),
	}
	if archive {
		m.archived = h.Counter("shmtsd_archive_exemplars_total", "Exemplars written to the archive.", "")
		m.blocks = h.Counter("shmtsd_archive_exemplar_blocks_total", "Blocks of exemplars written to the archive.", "")
		m.lost = h.Counter("shmtsd_archive_exemplars_lost_total", "Exemplars that were not archived: let go of memory before, over archive.user-bytes-per-second when their process ended, or of series that are gone.", "")
		m.archivedEvicted = h.Counter("shmtsd_archive_exemplars_evicted_total", "Exemplars in extents that were used again.", "")
	}
	return m
}

func (m *exemplarMetrics) update(r source.Stats, a *history) {
	s := m.store.Stats()
	m.kept.Set(float64(s.Held))
	m.seen.Total(float64(s.Seen))
	m.missed.Total(float64(s.Missed))
	m.evicted.Total(float64(s.Evicted))
	m.dropped.Total(float64(r.Readers.ExemplarsDropped))
	m.skipped.Total(float64(r.Readers.SkippedExemplars))
	if a == nil || m.archived == nil {
		return
	}
	w := a.archiver.Stats()
	m.archived.Total(float64(w.Exemplars))
	m.blocks.Total(float64(w.ExemplarBlocks))
	m.lost.Total(float64(w.ExemplarsLost + s.Unkept))
	if tiers := a.archive.Tiers(); len(tiers) > 0 {
		m.archivedEvicted.Total(float64(tiers[0].EvictedExemplars))
	}
}
