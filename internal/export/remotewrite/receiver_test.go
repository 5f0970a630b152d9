package remotewrite

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// receiver takes remote-write with Prometheus's own messages, and keeps what it is sent.
type receiver struct {
	t     testing.TB
	only1 bool // it takes 1.0 alone, and says 415 else

	// first, if it is not nil, answers the n-th request, from 1, unless it says that it did not.
	first func(n int, w http.ResponseWriter, r *http.Request, points int) bool

	mu       sync.Mutex
	n        int
	lines    []string // of all requests that were taken, in the order of their arrival
	each     [][]string
	traces   []string          // exemplars, of whatever request
	metadata map[string]string // by family
	headers  []http.Header
}

func start(t testing.TB, r *receiver) string {
	t.Helper()
	r.t, r.metadata = t, map[string]string{}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s.URL + "/api/v1/write"
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	compressed, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	body, err := snappy.Decode(nil, compressed)
	if err != nil || q.Header.Get("Content-Encoding") != "snappy" || q.Method != http.MethodPost || !strings.HasPrefix(q.Header.Get("User-Agent"), "shmtsd/") {
		r.t.Errorf("want a snappy block of shmtsd's, got %v, %s %v", err, q.Method, q.Header)
	}
	v2 := q.Header.Get("Content-Type") == "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	var lines []string
	var meta map[string]string
	if v2 {
		lines, meta = r.v2(body)
	} else {
		lines, meta = r.v1(body)
	}
	if want := map[bool]string{true: "2.0.0", false: "0.1.0"}[v2]; q.Header.Get("X-Prometheus-Remote-Write-Version") != want {
		r.t.Errorf("want version %s, got %v", want, q.Header)
	}
	metadataOnly := len(lines) == 0
	r.mu.Lock()
	if !metadataOnly {
		r.n++
	}
	n := r.n
	r.mu.Unlock()
	if r.first != nil && !metadataOnly && r.first(n, w, q, len(lines)) {
		return
	}
	if r.only1 && v2 {
		http.Error(w, "what is that?", http.StatusUnsupportedMediaType)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, lines...)
	r.each = append(r.each, lines)
	for k, v := range meta {
		r.metadata[k] = v
	}
	r.headers = append(r.headers, q.Header)
	if v2 {
		hist := 0
		for _, l := range lines {
			if strings.Contains(l, " histogram ") {
				hist++
			}
		}
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(len(lines)-hist))
		w.Header().Set("X-Prometheus-Remote-Write-Histograms-Written", fmt.Sprint(hist))
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) v1(body []byte) (lines []string, meta map[string]string) {
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		r.t.Errorf("a WriteRequest that can't be read: %v", err)
	}
	if len(m.Metadata) > 0 && len(m.Timeseries) > 0 {
		r.t.Error("want metadata in requests of their own")
	}
	meta = map[string]string{}
	for _, x := range m.Metadata {
		meta[x.MetricFamilyName] = fmt.Sprintf("%s %q %q", strings.ToLower(x.Type.String()), x.Help, x.Unit)
	}
	b := labels.NewScratchBuilder(8)
	for _, ts := range m.Timeseries {
		name := r.series(ts.ToLabels(&b, nil), ts.Labels)
		for _, s := range ts.Samples {
			lines = append(lines, line(name, s.Timestamp, 0, s.Value))
		}
		for _, h := range ts.Histograms {
			lines = append(lines, histogramLine(r.t, name, h.Timestamp, 0, h.ToIntHistogram()))
		}
		for _, x := range ts.Exemplars {
			e := x.ToExemplar(&b, nil)
			r.exemplar(name, e.Labels.String(), e.Value, e.Ts)
		}
		if len(ts.Samples) > 0 && len(ts.Histograms) > 0 {
			r.t.Errorf("%s: floats and histograms in one time series", name)
		}
	}
	return lines, meta
}

func (r *receiver) v2(body []byte) (lines []string, meta map[string]string) {
	var m writev2.Request
	if err := m.Unmarshal(body); err != nil {
		r.t.Errorf("a Request that can't be read: %v", err)
	}
	if len(m.Symbols) == 0 || m.Symbols[0] != "" {
		r.t.Errorf("want an empty first symbol, got %.40q", m.Symbols)
	}
	if sorted := slices.Sorted(slices.Values(m.Symbols)); len(slices.Compact(sorted)) != len(m.Symbols) {
		r.t.Errorf("want every symbol once, got %q", m.Symbols)
	}
	meta = map[string]string{}
	b := labels.NewScratchBuilder(8)
	for _, ts := range m.Timeseries {
		ls, err := ts.ToLabels(&b, m.Symbols)
		if err != nil {
			r.t.Errorf("labels: %v", err)
		}
		var spelled []prompb.Label
		for i := 0; i < len(ts.LabelsRefs); i += 2 {
			spelled = append(spelled, prompb.Label{Name: m.Symbols[ts.LabelsRefs[i]], Value: m.Symbols[ts.LabelsRefs[i+1]]})
		}
		name := r.series(ls, spelled)
		md, err := ts.ToMetadata(m.Symbols)
		if err != nil {
			r.t.Errorf("%s: metadata: %v", name, err)
		}
		meta[ls.Get("__name__")] = fmt.Sprintf("%s %q %q", md.Type, md.Help, md.Unit)
		for _, s := range ts.Samples {
			lines = append(lines, line(name, s.Timestamp, s.StartTimestamp, s.Value))
		}
		for _, h := range ts.Histograms {
			lines = append(lines, histogramLine(r.t, name, h.Timestamp, h.StartTimestamp, h.ToIntHistogram()))
		}
		for _, x := range ts.Exemplars {
			e, err := x.ToExemplar(&b, m.Symbols)
			if err != nil {
				r.t.Errorf("%s: exemplar: %v", name, err)
			}
			r.exemplar(name, e.Labels.String(), e.Value, e.Ts)
		}
		if len(ts.Samples) > 0 && len(ts.Histograms) > 0 {
			r.t.Errorf("%s: floats and histograms in one time series", name)
		}
	}
	return lines, meta
}

func (r *receiver) exemplar(name, labels string, value float64, ms int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.traces = append(r.traces, name+" "+labels+fmt.Sprint(" ", value)+when(ms, 0))
}

// series is a series' name; its labels must be sorted, none twice, none empty.
func (r *receiver) series(ls labels.Labels, sent []prompb.Label) string {
	if !slices.IsSortedFunc(sent, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) }) {
		r.t.Errorf("want sorted labels, got %v", sent)
	}
	if name, twice := ls.HasDuplicateLabelNames(); twice || ls.Len() != len(sent) {
		r.t.Errorf("%v: a label twice or empty: %q", sent, name)
	}
	var b strings.Builder
	b.WriteString(ls.Get("__name__") + "{")
	ls.Range(func(l labels.Label) {
		if l.Name != "__name__" {
			fmt.Fprintf(&b, "%s=%s,", l.Name, l.Value)
		}
	})
	return strings.TrimSuffix(b.String(), ",") + "}"
}

// line is NAME{LABELS} VALUE @TIME, with " since START" behind it if the sample says so; times are seconds since epoch.
func line(name string, time, start int64, v float64) string {
	value := fmt.Sprint(v)
	if math.Float64bits(v) == staleNaN {
		value = "stale"
	}
	return name + " " + value + when(time, start)
}

func when(time, start int64) string {
	since := func(ms int64) string { return strconv.FormatFloat(float64(ms-epoch/1e6)/1e3, 'f', -1, 64) }
	s := " @" + since(time)
	if start != 0 {
		s += " since " + since(start)
	}
	return s
}

func histogramLine(t testing.TB, name string, time, start int64, h *histogram.Histogram) string {
	if math.Float64bits(h.Sum) == staleNaN {
		return name + " histogram stale" + when(time, start)
	}
	if err := h.Validate(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	s := fmt.Sprintf("%s histogram count %d sum %v schema %d zero %d <=%v", name, h.Count, h.Sum, h.Schema, h.ZeroCount, h.ZeroThreshold)
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Count > 0 {
			s += fmt.Sprintf(" (%v,%v]:%d", b.Lower, b.Upper, b.Count)
		}
	}
	if h.CounterResetHint != histogram.UnknownCounterReset {
		s += fmt.Sprintf(" hint %d", h.CounterResetHint)
	}
	return s + when(time, start)
}

// epoch is the tests' beginning of time.
const epoch int64 = 1_800_000_000_000_000_000
