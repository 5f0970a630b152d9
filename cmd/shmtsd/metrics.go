package main

import (
	"runtime"
	"strconv"
	"time"

	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/source"
)

// selfMetrics are what shmtsd records of itself. Totals that the organs count are taken over at each poll.
type selfMetrics struct {
	h         *health.Health
	process   *health.Process
	archive   *archiveMetrics  // nil: no archive
	exemplars *exemplarMetrics // nil: none are kept
	budgets   *budgetMetrics
	relabel   *relabelMetrics
	askers    *askerMetrics // nil until there are some

	polls, failedPolls *health.Counter
	pollTime           *health.Histogram
	segments           [4]*health.Gauge
	sources, series    *health.Gauge
	bytes, overlapped  *health.Gauge

	found, unlinked, early, unlinkFailed, unfinished, vanished *health.Counter

	shadows, shadowBytes, shadowsRefused *health.Gauge
	shadowSeriesSkipped, samplesFailed   *health.Counter

	skippedRows, skippedSeries                          *health.Counter
	droppedSeries, overflowThreads, rejected, lostForks *health.Counter
	requestTime                                         *health.Histogram
	exports                                             map[string]*exportMetrics
}

func newSelfMetrics(h *health.Health) *selfMetrics {
	m := &selfMetrics{
		h:           h,
		exports:     map[string]*exportMetrics{},
		process:     health.NewProcess(h),
		budgets:     newBudgetMetrics(h),
		polls:       h.Counter("shmtsd_polls_total", "Looks at the store.", ""),
		failedPolls: h.Counter("shmtsd_polls_failed_total", "Looks at the store that could not list it.", ""),
		pollTime:    h.Histogram("shmtsd_poll_duration_seconds", "Time that a look at the store took."),
		sources:     h.Gauge("shmtsd_sources", "Sources: owner and labels, whatever their incarnation.", ""),
		series:      h.Gauge("shmtsd_series", "Series in all segments.", ""),
		bytes:       h.Gauge("shmtsd_segments_size_bytes", "Size of all segments' files.", "By"),
		overlapped:  h.Gauge("shmtsd_series_overlapped", "Series that carry shmts_segment: a newer process of the source has the same one.", ""),

		found:        h.Counter("shmtsd_segments_found_total", "Segments ever found.", ""),
		unlinked:     h.Counter("shmtsd_segments_unlinked_total", "Segments unlinked after their time to live.", ""),
		early:        h.Counter("shmtsd_segments_unlinked_early_total", "Of those, before their time to live was over, for want of room in the store.", ""),
		unlinkFailed: h.Counter("shmtsd_segments_unlink_failures_total", "Attempts to unlink a segment that failed.", ""),
		unfinished:   h.Counter("shmtsd_segments_unfinished_total", "Segments unlinked although their last rows could not be exported or archived.", ""),
		vanished:     h.Counter("shmtsd_segments_vanished_total", "Segments that somebody else unlinked.", ""),

		shadows:             h.Gauge("shmtsd_shadows", "Segments that never tick and are sampled into a shadow.", ""),
		shadowBytes:         h.Gauge("shmtsd_shadows_size_bytes", "Size of the shadows' files.", "By"),
		shadowsRefused:      h.Gauge("shmtsd_shadows_refused", "Segments that never tick and can't be sampled, for want of room for their shadows.", ""),
		shadowSeriesSkipped: h.Counter("shmtsd_shadow_series_skipped_total", "Series of segments that never tick that are not sampled, for want of room.", ""),
		samplesFailed:       h.Counter("shmtsd_samples_failed_total", "Samples of segments that never tick that could not be taken.", ""),

		skippedRows:     h.Counter("shmtsd_rows_skipped_total", "Rows passed over: torn or broken.", ""),
		skippedSeries:   h.Counter("shmtsd_series_skipped_total", "Series passed over: broken, or over budget.", ""),
		droppedSeries:   h.Counter("shmtsd_writers_dropped_series_total", "Registrations that found no room in their segments.", ""),
		overflowThreads: h.Counter("shmtsd_writers_overflow_threads_total", "Threads that found no lane free.", ""),
		rejected:        h.Counter("shmtsd_writers_rejected_records_total", "Records that were no legal value.", ""),
		lostForks:       h.Counter("shmtsd_writers_fork_losses_total", "Forks after which the child could not have a segment.", ""),
		requestTime:     h.Histogram("shmtsd_http_request_duration_seconds", "Time that an answer of the API took."),
	}
	for i, state := range [4]string{"alive", "stalled", "closed", "dead"} {
		m.segments[i] = h.Gauge("shmtsd_segments", "Segments by the state of their writers.", "", "state", state)
	}
	h.Gauge("shmtsd_build_info", "1, with the version of shmtsd and of Go.", "", "goversion", runtime.Version(), "version", version).Set(1)
	return m
}

func (m *selfMetrics) polled(took time.Duration, r *source.Register, x *exports, a *history) {
	m.pollTime.Record(took.Seconds())
	m.update(r, x, a)
}

func (m *selfMetrics) update(r *source.Register, x *exports, a *history) {
	if a != nil {
		m.archive.update(a)
	}
	if m.exemplars != nil {
		m.exemplars.update(r.Stats(), a)
	}
	m.process.Update()
	s := r.Stats()
	for i, n := range [4]int{s.Alive, s.Stalled, s.Closed, s.Dead} {
		m.segments[i].Set(float64(n))
	}
	m.budgets.update(s)
	m.relabel.update(time.Now())
	m.askers.update()
	m.sources.Set(float64(s.Sources))
	m.series.Set(float64(s.Series))
	m.bytes.Set(float64(s.Bytes))
	m.overlapped.Set(float64(s.Overlapped))
	m.polls.Total(float64(s.Polls))
	m.failedPolls.Total(float64(s.FailedPolls))
	m.found.Total(float64(s.Found))
	m.shadows.Set(float64(s.Shadows.Shadows))
	m.shadowBytes.Set(float64(s.Shadows.Used.Bytes))
	m.shadowsRefused.Set(float64(s.Shadows.Refused))
	m.shadowSeriesSkipped.Total(float64(s.Shadows.Skipped))
	m.samplesFailed.Total(float64(s.Shadows.Failed))
	m.unlinked.Total(float64(s.Unlinked))
	m.early.Total(float64(s.Early))
	m.unlinkFailed.Total(float64(s.UnlinkFailed))
	m.unfinished.Total(float64(s.Unfinished))
	m.vanished.Total(float64(s.Vanished))
	for reason, n := range s.Refused {
		m.h.Counter("shmtsd_segments_refused_total", "Files in the store that are not read.", "", "reason", reason).Total(float64(n))
	}
	m.skippedRows.Total(float64(s.Readers.SkippedRows))
	m.skippedSeries.Total(float64(s.Readers.SkippedSeries))
	m.droppedSeries.Total(float64(s.Readers.DroppedSeries))
	m.overflowThreads.Total(float64(s.Readers.OverflowThreads))
	m.rejected.Total(float64(s.Readers.RejectedRecords))
	m.lostForks.Total(float64(s.Readers.ForkLosses))
	m.updateExports(x)
}

// answered is told of each request to the API.
func (m *selfMetrics) answered(endpoint string, code int, took time.Duration) {
	m.requestTime.Record(took.Seconds())
	m.h.Counter("shmtsd_http_requests_total", "Requests to the API.", "", "code", strconv.Itoa(code), "endpoint", endpoint).Add(1)
}
