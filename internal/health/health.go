// Package health is what the daemon says of itself: each metric is recorded through the writer, into the
// daemon's own segment, and kept beside it for /metrics, which works without a store.
package health

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shmts/shmts/writer"
)

// Health is a set of metrics. All methods are safe for concurrent use. A metric asked for again, by name and
// labels, is the same one.
type Health struct {
	w *writer.Writer

	mu      sync.Mutex
	metrics []*metric // in the order of their names, then labels
}

// New makes an empty set that records into w. w may be nil: then only /metrics has it.
func New(w *writer.Writer) *Health { return &Health{w: w} }

type metric struct {
	name, help, kind string
	labels           string // as in the text format, without braces
	value            any    // *Counter, *Gauge, *Histogram
}

// Counter is a total. Set it to what somebody else counted, or add.
type Counter struct {
	bits atomic.Uint64 // of a float64
	w    *writer.FloatCounter
	mu   sync.Mutex
}

// Add adds v, not negative.
func (c *Counter) Add(v float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(v)
}

// Total says what the total is now. One that is less than before changes nothing.
func (c *Counter) Total(v float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(v - c.Value())
}

func (c *Counter) add(v float64) {
	if v > 0 {
		c.bits.Store(math.Float64bits(c.Value() + v))
		c.w.Add(v)
	}
}

// Value of the counter.
func (c *Counter) Value() float64 { return math.Float64frombits(c.bits.Load()) }

// Gauge is a value that is set.
type Gauge struct {
	bits atomic.Uint64
	w    *writer.Gauge
}

// Set sets it.
func (g *Gauge) Set(v float64) {
	g.bits.Store(math.Float64bits(v))
	g.w.Set(v)
}

// Value of the gauge.
func (g *Gauge) Value() float64 { return math.Float64frombits(g.bits.Load()) }

// bounds are the classic buckets in which /metrics shows a histogram of seconds. The segment has exponential ones.
var bounds = [...]float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Histogram is a distribution of seconds.
type Histogram struct {
	mu      sync.Mutex
	buckets [len(bounds) + 1]uint64
	sum     float64
	w       *writer.Histogram
}

// Record records v seconds.
func (h *Histogram) Record(v float64) {
	i, _ := slices.BinarySearch(bounds[:], v)
	h.mu.Lock()
	h.buckets[i]++
	h.sum += v
	h.mu.Unlock()
	h.w.Record(v)
}

// Counter registers a counter: a name that ends in _total, and labels as name, value, name, value.
func (h *Health) Counter(name, help, unit string, labels ...string) *Counter {
	return get(h, name, help, "counter", labels, func() *Counter {
		return &Counter{w: h.w.FloatCounter(name, writer.Unit(unit), writer.Help(help), writer.Labels(labels...))}
	})
}

// Gauge registers a gauge.
func (h *Health) Gauge(name, help, unit string, labels ...string) *Gauge {
	return get(h, name, help, "gauge", labels, func() *Gauge {
		return &Gauge{w: h.w.Gauge(name, writer.Unit(unit), writer.Help(help), writer.Labels(labels...))}
	})
}

// Histogram registers a histogram of seconds, from 50 us to 50 s in the segment.
func (h *Health) Histogram(name, help string, labels ...string) *Histogram {
	return get(h, name, help, "histogram", labels, func() *Histogram {
		return &Histogram{w: h.w.Histogram(name, writer.Unit("s"), writer.Help(help), writer.Labels(labels...), writer.Scale(2), writer.Buckets(50e-6, 50))}
	})
}

func get[T any](h *Health, name, help, kind string, labels []string, make func() *T) *T {
	text := labelText(labels)
	h.mu.Lock()
	defer h.mu.Unlock()
	i, found := slices.BinarySearchFunc(h.metrics, name, func(m *metric, name string) int {
		if c := strings.Compare(m.name, name); c != 0 {
			return c
		}
		return strings.Compare(m.labels, text)
	})
	if found {
		return h.metrics[i].value.(*T)
	}
	v := make()
	h.metrics = slices.Insert(h.metrics, i, &metric{name, help, kind, text, v})
	return v
}

func labelText(labels []string) string {
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i] + `="` + strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(labels[i+1]) + `"`)
	}
	return b.String()
}

// Text is everything in Prometheus's text format.
func (h *Health) Text() []byte {
	h.mu.Lock()
	metrics := slices.Clone(h.metrics)
	h.mu.Unlock()
	var b bytes.Buffer
	last := ""
	for _, m := range metrics {
		if m.name != last {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.name, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(m.help), m.name, m.kind)
			last = m.name
		}
		switch v := m.value.(type) {
		case *Counter:
			line(&b, m.name, "", m.labels, "", v.Value())
		case *Gauge:
			line(&b, m.name, "", m.labels, "", v.Value())
		case *Histogram:
			v.text(&b, m)
		}
	}
	return b.Bytes()
}

func (h *Histogram) text(b *bytes.Buffer, m *metric) {
	h.mu.Lock()
	buckets, sum := h.buckets, h.sum
	h.mu.Unlock()
	var n uint64
	for i, c := range buckets {
		n += c
		le := "+Inf"
		if i < len(bounds) {
			le = number(bounds[i])
		}
		line(b, m.name, "_bucket", m.labels, le, float64(n))
	}
	line(b, m.name, "_sum", m.labels, "", sum)
	line(b, m.name, "_count", m.labels, "", float64(n))
}

func line(b *bytes.Buffer, name, suffix, labels, le string, v float64) {
	b.WriteString(name + suffix)
	if le != "" {
		if labels != "" {
			labels += ","
		}
		labels += `le="` + le + `"`
	}
	if labels != "" {
		b.WriteString("{" + labels + "}")
	}
	b.WriteString(" " + number(v) + "\n")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// ServeHTTP answers /metrics.
func (h *Health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(h.Text())
}
