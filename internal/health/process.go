package health

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is what the operating system and the runtime say of this process, under the names that
// Prometheus's own clients use.
type Process struct {
	cpu, faults     *Counter
	rss, fds, start *Gauge
	goroutines      *Gauge
	heap            *Gauge
	gc              *Counter
	samples         []metrics.Sample
	page            float64
	nextFds         time.Time
}

// NewProcess registers the metrics; Update fills them in.
func NewProcess(h *Health) *Process {
	p := &Process{
		cpu:        h.Counter("process_cpu_seconds_total", "Processor time used, user and system.", "s"),
		faults:     h.Counter("process_major_page_faults_total", "Page faults that needed a device.", ""),
		rss:        h.Gauge("process_resident_memory_bytes", "Resident memory, mapped segments included.", "By"),
		fds:        h.Gauge("process_open_fds", "Open file descriptors.", ""),
		start:      h.Gauge("process_start_time_seconds", "Start of the process, unix time.", "s"),
		goroutines: h.Gauge("go_goroutines", "Goroutines.", ""),
		heap:       h.Gauge("go_memory_used_bytes", "Memory that the Go runtime holds.", "By"),
		gc:         h.Counter("go_gc_cycles_total", "Completed garbage collections.", ""),
		samples:    []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}},
		page:       float64(os.Getpagesize()),
	}
	p.start.Set(float64(time.Now().UnixMilli()) / 1000)
	return p
}

// Update reads anew. What can't be read stays as it is.
func (p *Process) Update() {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		p.cpu.Total(float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9)
		p.faults.Total(float64(u.Majflt))
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if pages, err := strconv.ParseFloat(f[1], 64); err == nil {
				p.rss.Set(pages * p.page)
			}
		}
	}
	p.openFds()
	metrics.Read(p.samples)
	p.heap.Set(float64(p.samples[0].Value.Uint64() - p.samples[1].Value.Uint64()))
	p.gc.Total(float64(p.samples[2].Value.Uint64()))
	p.goroutines.Set(float64(runtime.NumGoroutine()))
}

// openFds counts open descriptors. From Linux 6.2 on the directory's size says how many there are; before, it is 0, and with thousands of
// segments open the list is long.
func (p *Process) openFds() {
	var st unix.Stat_t
	if unix.Stat("/proc/self/fd", &st) == nil && st.Size > 0 {
		p.fds.Set(float64(st.Size))
		return
	}
	now := time.Now()
	if now.Before(p.nextFds) {
		return
	}
	p.nextFds = now.Add(10 * time.Second)
	if d, err := os.Open("/proc/self/fd"); err == nil {
		if names, err := d.Readdirnames(-1); err == nil {
			p.fds.Set(float64(len(names) - 1))
		}
		d.Close()
	}
}
