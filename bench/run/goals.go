package main

import (
	"fmt"
	"os"

	"github.com/shmts/shmts/writer"
)

// A goal is a number to be reached, and where it is found.
type goal struct {
	what, reach string
	// from are the results that it takes; the goal is not judged where one is missing.
	from []string
	// judge gives the number as shown, and whether it is good enough.
	judge func(v []float64) (string, bool)
}

// atMost is of one result.
func atMost(limit float64, format string) func([]float64) (string, bool) {
	return func(v []float64) (string, bool) { return fmt.Sprintf(format, v[0]), v[0] <= limit }
}

// ratioAtMost is the first over the second.
func ratioAtMost(limit float64) func([]float64) (string, bool) {
	return func(v []float64) (string, bool) { return fmt.Sprintf("%.2f x", v[0]/v[1]), v[0]/v[1] <= limit }
}

// cheaper is how many times the second takes what the first takes.
func cheaper(limit float64) func([]float64) (string, bool) {
	return func(v []float64) (string, bool) { return fmt.Sprintf("%.1f x", v[1]/v[0]), v[1]/v[0] >= limit }
}

// tickWithin holds ticks of one table shape against 0.2 ns a lane-cell and 0.3 ns a cell.
func tickWithin(cells, lanes float64) func([]float64) (string, bool) {
	limit := 0.2*cells*lanes + 0.3*cells
	return func(v []float64) (string, bool) {
		return fmt.Sprintf("%.1f us (limit %.1f)", v[0]/1000, limit/1000), v[0] <= limit
	}
}

const (
	ns   = "%.2f ns"
	ms   = "%.1f ms"
	size = "%.2f B"
)

// goals are those of the design.
var goals = []goal{
	{"C counter add, one writer", "<= 1.05 x a private volatile op", []string{"c/shmts_add", "c/private ++"}, ratioAtMost(1.05)},
	{"C gauge set", "<= 1.05 x a private volatile store", []string{"c/shmts_set", "c/private store"}, ratioAtMost(1.05)},
	{"C counter add, a lane a thread", "<= 0.5 ns", []string{"c/shmts_lane_add"}, atMost(0.5, ns)},
	{"the same to a private volatile op", "(not in the design) <= 1.05 x", []string{"c/shmts_lane_add", "c/private ++"}, ratioAtMost(1.05)},
	{"C counter add, lane by thread-local storage, 2 threads to 1", "<= 1.15 x", []string{"c/shmts_tls_add, 2 threads", "c/shmts_tls_add"}, ratioAtMost(1.15)},
	{"C histogram, index and bucket", "<= 1.3 ns", []string{"c/histogram index and bucket"}, atMost(1.3, ns)},
	{"C histogram with its f64 sum", "<= 2.4 ns", []string{"c/shmts_observe"}, atMost(2.4, ns)},
	{"C counter add", "(not in the design) cheaper than libpcp_mmv's mmv_inc", []string{"c/shmts_add", "c/mmv_inc"}, cheaper(1)},
	{"C tick, 1,000 cells, 1 lane and overflow, a cell", "0.2 ns a lane-cell + 0.3 ns a cell", []string{"c/tick, 1 lanes and overflow x 1000 cells, ns a cell"}, atMost(0.7, "%.2f ns (limit 0.70)")},
	{"C tick, 1,000 cells, 8 lanes and overflow, a cell", "the same", []string{"c/tick, 8 lanes and overflow x 1000 cells, ns a cell"}, atMost(2.1, "%.2f ns (limit 2.10)")},
	{"C tick, 10,000 cells, 8 lanes and overflow, a cell", "the same", []string{"c/tick, 8 lanes and overflow x 10000 cells, ns a cell"}, atMost(2.1, "%.2f ns (limit 2.10)")},

	{"Go single-writer handle", "<= 0.3 ns", []string{"shmts/owned/Counter.Add/g1"}, atMost(0.3, ns)},
	{"Go single-writer handle", ">= 15 x client_golang Counter.Inc", []string{"shmts/owned/Counter.Add/g1", "client_golang/Counter.Inc/g1"}, cheaper(15)},
	{"Go single-writer handle to a private add", "(not in the design) <= 1.05 x", []string{"shmts/owned/Counter.Add/g1", "floor/private_add/g1"}, ratioAtMost(1.05)},
	{"Go single-writer handles, 100 in turn", "(not in the design) >= 15 x client_golang", []string{"shmts/owned/Counter.Add/in_turn/g1", "client_golang/Counter.Inc/in_turn/g1"}, cheaper(15)},
	{"Go goroutine-safe add", "<= 3 ns", []string{"shmts/Counter.Add/g1"}, atMost(3, ns)},
	{"Go goroutine-safe add, 2 goroutines", ">= 5 x client_golang", []string{"shmts/Counter.Add/g2", "client_golang/Counter.Inc/g2"}, cheaper(5)},
	{"Go histogram, goroutine-safe", "<= 5 ns", []string{"shmts/Histogram.Record/g1"}, atMost(5, ns)},
	{"Go histogram, goroutine-safe", ">= 4 x client_golang classic", []string{"shmts/Histogram.Record/g1", "client_golang/Histogram.Observe/classic/g1"}, cheaper(4)},
	{"Go histogram, goroutine-safe", ">= 6 x client_golang native", []string{"shmts/Histogram.Record/g1", "client_golang/Histogram.Observe/native/g1"}, cheaper(6)},

	{"Go tick, 1,000 cells, 1 lane", "0.2 ns a lane-cell + 0.3 ns a cell", []string{"shmts/Tick/1000_cells_1_lanes"}, tickWithin(1000, 1)},
	{"Go tick, 1,000 cells, 8 lanes", "the same", []string{"shmts/Tick/1000_cells_8_lanes"}, tickWithin(1000, 8)},
	{"Go tick, 10,000 cells, 1 lane", "the same", []string{"shmts/Tick/10000_cells_1_lanes"}, tickWithin(10_000, 1)},
	{"Go tick, 10,000 cells, 8 lanes", "the same", []string{"shmts/Tick/10000_cells_8_lanes"}, tickWithin(10_000, 8)},

	{"segment, 100 series with 10 histograms, default tiers", "<= 512 kB", []string{"planned_kB"}, atMost(512, "%.1f kB")},
	{"the same, sampled", "<= 64 kB", []string{"planned_sampled_kB"}, atMost(64, "%.1f kB")},
	{"shmtsd, stripped", "<= 16 MB", []string{"shmtsd_MB"}, atMost(16, "%.1f MB")},

	{"archive: a host's own metrics, the repository's recording", "<= 0.6 B a sample all-in", []string{"size/host/archive"}, atMost(0.6, size)},
	{"archive: this host's own metrics", "the same", []string{"size/host_now/archive"}, atMost(0.6, size)},
	{"archive: an application mix", "<= 1.6 B a sample all-in", []string{"size/app/archive"}, atMost(1.6, size)},
	{"archive: 45 s VMs", "the same", []string{"size/vms/archive"}, atMost(1.6, size)},
	{"archive: an application mix", "(not in the design) half of Prometheus's TSDB", []string{"size/app/archive", "size/app/prometheus"}, cheaper(2)},
	{"archive: 45 s VMs", "(not in the design) half of Prometheus's TSDB", []string{"size/vms/archive", "size/vms/prometheus"}, cheaper(2)},
	{"archive: histograms of 160 buckets, 5 observations a second", "<= 40 B a row", []string{"size/histogram_5/archive"}, atMost(40, "%.1f B")},
	{"the same, 50 a second", "the same", []string{"size/histogram_50/archive"}, atMost(40, "%.1f B")},
	{"the same, 1,000 a second", "the same", []string{"size/histogram_1000/archive"}, atMost(40, "%.1f B")},
	{"flush", "<= 30 ns CPU a sample", []string{"flush/ns_a_sample"}, atMost(30, ns)},
	{"flush, and folding into 10 s and 5 m", "(the design says flush) the same", []string{"flush_folding/ns_a_sample"}, atMost(30, ns)},
	{"flush: handed to files", "<= 1.1 x payload", []string{"flush_folding/written_to_payload"}, atMost(1.1, "%.3f x")},
	{"flush: written to the disk", "<= 1.1 x payload", []string{"flush_folding/device_to_payload"}, atMost(1.1, "%.3f x")},
	{"exemplars in the archive", "(not in the design) smaller than in Prometheus's log", []string{"exemplars/bytes_each", "exemplars/prometheus_log_bytes_each"}, cheaper(1)},
	{"select among 10 M dead series, about 1,000 sources", "p50 <= 5 ms", []string{"select/thousand_p50_ms"}, atMost(5, ms)},
	{"the same, one source", "p50 <= 5 ms", []string{"select/one_p50_ms"}, atMost(5, ms)},
	{"the same, resident", "<= 4 MB", []string{"select/resident_kB"}, atMost(4000, "%.0f kB")},
	{"query: one series, 1 h at 1 s, warm", "p50 < 1 ms", []string{"query/one_warm_ms"}, atMost(1, ms)},
	{"the same, cold", "p50 < 10 ms", []string{"query/one_cold_ms"}, atMost(10, ms)},
	{"query: sum(rate[1m]) of 1,000 series, 1 h, step 15 s, warm", "< 150 ms", []string{"query/sum_10s_warm_ms"}, atMost(150, ms)},
	{"the same, cold", "< 300 ms", []string{"query/sum_10s_cold_ms"}, atMost(300, ms)},
	{"the same with rate[30s], which reads rows of 1 s, warm", "< 150 ms", []string{"query/sum_1s_warm_ms"}, atMost(150, ms)},
	{"the same, cold", "< 300 ms", []string{"query/sum_1s_cold_ms"}, atMost(300, ms)},
	{"query: histogram_quantile over 100 histograms, 1 h, rows of 10 s, warm", "< 100 ms", []string{"query/quantile_warm_ms"}, atMost(100, ms)},
	{"query: one series, 1 h at 1 s, over HTTP", "(not in the design) as fast as Prometheus", []string{"query/one_http_ms", "query/one_prometheus_ms"}, cheaper(1)},
	{"query: sum(rate[30s]) of 1,000 series, over HTTP", "the same", []string{"query/sum_1s_http_ms", "query/sum_1s_prometheus_ms"}, cheaper(1)},
	{"query: sum(rate[1m]) of 1,000 series, over HTTP", "the same", []string{"query/sum_10s_http_ms", "query/sum_10s_prometheus_ms"}, cheaper(1)},
	{"query: histogram_quantile over 100 histograms, over HTTP", "the same", []string{"query/quantile_http_ms", "query/quantile_prometheus_ms"}, cheaper(1)},
	{"dashboard of 20 panels over 1,000 segments each second: panel p50", "the same", []string{"dashboard_shmtsd_panel_p50_ms", "dashboard_prometheus_panel_p50_ms"}, cheaper(1)},
	{"the same: panel p99", "the same", []string{"dashboard_shmtsd_panel_p99_ms", "dashboard_prometheus_panel_p99_ms"}, cheaper(1)},
	{"the same: memory", "(not in the design) a fifth of Prometheus's", []string{"dashboard_shmtsd_rss", "dashboard_prometheus_rss"}, cheaper(5)},
	{"restart with 1,000 live segments and a full archive: first answer", "< 200 ms", []string{"restart_first_ms"}, atMost(200, ms)},
	{"the same: an answer of all segments", "(not in the design) < 200 ms", []string{"restart_all_ms"}, atMost(200, ms)},

	{"shmtsd, 1,000 segments x 100 series at 1 s, polling and archiving", "<= 0.5 % of a core", []string{"daemon_archive_cpu"}, atMost(0.5, "%.2f %%")},
	{"the same", "<= 48 MB RSS", []string{"daemon_archive_rss"}, atMost(48_000, "%.0f kB")},
	{"the same, OTLP of all each 10 s", "<= 1 % of a core", []string{"daemon_otlp_cpu"}, atMost(1, "%.2f %%")},
	{"remote-write 1.0, 1,000 sources at 10 s: processor time a sample, all in", "(not in the design) a third of vmagent's", []string{"export_rw1_whole_ms_100k", "vmagent_whole_ms_100k"}, cheaper(3)},
	{"the same", "(not in the design) a third of Prometheus's agent's", []string{"export_rw1_whole_ms_100k", "agent_rw1_whole_ms_100k"}, cheaper(3)},
}

// sizes are what needs no clock: segments as planned, and the daemon's binary.
func (b *bench) sizes() error {
	plan, err := writer.Plan(writer.Options{Job: "plan", Instance: "plan"})
	if err != nil {
		return err
	}
	b.results["planned_kB"] = float64(plan.TotalSize) / 1000
	if plan, err = writer.Plan(writer.Options{Job: "plan", Instance: "plan", Sampled: true}); err != nil {
		return err
	}
	b.results["planned_sampled_kB"] = float64(plan.TotalSize) / 1000
	info, err := os.Stat(b.path("shmtsd"))
	if err != nil {
		return err
	}
	b.results["shmtsd_MB"] = float64(info.Size()) / 1e6
	return nil
}
