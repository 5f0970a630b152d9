package server_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/reader"
)

// traced is a segment with exemplars.
type traced struct {
	*querytest.Segment
	list []query.Exemplar
}

func (s *traced) Exemplars() []query.Exemplar { return s.list }

// Select implements query.Sources.
func (s *traced) Select(_ context.Context, want query.Selection) ([]query.Segment, []error, error) {
	found := &traced{Segment: s.Segment}
	for _, e := range s.list {
		if ms := e.Time / 1e6; ms >= want.From && ms <= want.To {
			found.list = append(found.list, e)
		}
	}
	if len(found.list) > want.Exemplars {
		return nil, nil, query.ErrTooManyExemplars
	}
	return []query.Segment{found}, nil, nil
}

// Coarsest implements query.Sources.
func (s *traced) Coarsest() time.Duration { return time.Second }

// tracedAt is a counter and a histogram with exemplars, the histogram's one in each bucket, and one of two that PromQL has for a request.
func tracedAt(t0 int64, labels ...string) *traced {
	s := &traced{Segment: querytest.New(t0, querytest.Pairs(labels...), querytest.Scalars(), querytest.Histograms())}
	s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "requests", Kind: reader.Counter, Number: reader.U64, Labels: querytest.Pairs("code", "200")}})
	s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "latency_seconds", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 0, Min: -2, Count: 4}}})
	s.list = append(s.list, query.Exemplar{Series: 0, Value: 1, Time: (t0 + 1000) * 1e6, TraceID: [16]byte{1, 2, 3}, SpanID: [8]byte{4, 5}})
	for i, v := range []float64{0.125, 0.3, 0.5000001, 2, 4, 1e6} { // of le 0.25, 0.5, 1, 2, 4 and above
		s.list = append(s.list, query.Exemplar{Series: 1, Value: v, Time: (t0+int64(i)*100+1001)*1e6 + 7, TraceID: [16]byte{0xa0 + byte(i), 15: 1}})
	}
	return s
}

func tracedServer(now int64, s *traced, maxSamples int) *server.Options {
	clock := func() time.Time { return time.UnixMilli(now) }
	return &server.Options{Engine: query.New(query.Options{Sources: s, Now: clock, MaxSamples: maxSamples}), Now: clock}
}

// What Prometheus would say, to the byte.
func TestExemplars(t *testing.T) {
	c := client{t, server.New(*tracedServer(t0+20_000, tracedAt(t0, "job", "fwd", "instance", "h:1"), 0))}
	trace := func(i int) string { return "a" + string(rune('0'+i)) + strings.Repeat("0", 28) + "01" }
	bucket := func(i int, le, value, at string) string {
		return `{"seriesLabels":{"__name__":"latency_seconds_bucket","instance":"h:1","job":"fwd","le":"` + le + `"},"exemplars":[{"labels":{"trace_id":"` + trace(i) + `"},"value":"` + value + `","timestamp":` + at + `}]}`
	}
	counter := `{"seriesLabels":{"__name__":"requests_total","code":"200","instance":"h:1","job":"fwd"},"exemplars":[{"labels":{"span_id":"0405000000000000","trace_id":"01020300000000000000000000000000"},"value":"1","timestamp":1700000001}]}`
	for _, q := range []struct{ query, start, end, want string }{
		{`rate(requests_total{code="200"}[1m])`, "1700000000", "1700000020", counter},
		{`sum(rate(requests_total[1m])) / count(requests_total)`, "1700000000", "1700000020", counter},
		{`requests_total{code="500"}`, "1700000000", "1700000020", ""},
		{`requests_total`, "1700000001.001", "1700000020", ""},
		{`requests_total`, "1700000000000", "1700000020000", ""}, // Grafana's probe: ms
		{`latency_seconds{job="fwd"}`, "1700000001.1", "1700000001.3", `{"seriesLabels":{"__name__":"latency_seconds","instance":"h:1","job":"fwd"},"exemplars":[` +
			`{"labels":{"trace_id":"` + trace(1) + `"},"value":"0.3","timestamp":1700000001.101},{"labels":{"trace_id":"` + trace(2) + `"},"value":"0.5000001","timestamp":1700000001.201}]}`},
		{`histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[1m])))`, "1700000000", "1700000020", strings.Join([]string{
			bucket(5, "+Inf", "1000000", "1700000001.501"), bucket(0, "0.25", "0.125", "1700000001.001"), bucket(1, "0.5", "0.3", "1700000001.101"),
			bucket(2, "1.0", "0.5000001", "1700000001.201"), bucket(3, "2.0", "2", "1700000001.301"), bucket(4, "4.0", "4", "1700000001.401")}, ",")},
		{`latency_seconds_bucket{le="2.0"} or latency_seconds_count or latency_seconds_sum`, "1700000000", "1700000020", bucket(3, "2.0", "2", "1700000001.301")},
	} {
		for _, method := range []string{"GET", "POST"} {
			p := params("query", q.query, "start", q.start, "end", q.end)
			w := c.get("/api/v1/query_exemplars?" + p)
			if method == "POST" {
				r := httptest.NewRequest("POST", "/api/v1/query_exemplars", strings.NewReader(p))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				w = c.do(r)
			}
			if want := `{"status":"success","data":[` + q.want + `]}`; w.Body.String() != want || w.Code != 200 {
				t.Errorf("%s %s from %s to %s: want\n%s\ngot %d\n%s", method, q.query, q.start, q.end, want, w.Code, w.Body)
			}
		}
	}
	few := client{t, server.New(*tracedServer(t0+20_000, tracedAt(t0, "job", "fwd", "instance", "h:1"), 5*query.ExemplarSamples))}
	w := few.get("/api/v1/query_exemplars?" + params("query", "latency_seconds", "start", "1700000000", "end", "1700000020"))
	if w.Code != 422 || !strings.Contains(w.Body.String(), `"errorType":"execution"`) || !strings.Contains(w.Body.String(), "want at most 5 exemplars") {
		t.Errorf("more than may be: want 422, got %d %s", w.Code, w.Body)
	}
}
