//go:build peers

package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/server"
)

// A Prometheus that scraped the same exemplars by OpenMetrics answers what we answer, to the last label.
func TestExemplarsAgainstPrometheus(t *testing.T) {
	at := time.Now().UnixMilli() - 5000
	var text string
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		fmt.Fprint(w, text)
	}))
	defer target.Close()
	instance := strings.TrimPrefix(target.URL, "http://")
	s := tracedAt(at, "job", "fwd", "instance", instance)
	exemplar := func(i int) string {
		e := s.list[i]
		labels := fmt.Sprintf(`trace_id="%x"`, e.TraceID)
		if e.SpanID != [8]byte{} {
			labels += fmt.Sprintf(`,span_id="%x"`, e.SpanID)
		}
		return fmt.Sprintf(" # {%s} %s %s", labels, strconv.FormatFloat(e.Value, 'g', -1, 64), strconv.FormatFloat(float64(e.Time/1e6)/1000, 'f', 3, 64))
	}
	var b strings.Builder
	b.WriteString("# TYPE requests counter\nrequests_total{code=\"200\"} 7" + exemplar(0) + "\n# TYPE latency_seconds histogram\n")
	for i, le := range []string{"0.25", "0.5", "1.0", "2.0", "4.0", "+Inf"} {
		fmt.Fprintf(&b, "latency_seconds_bucket{le=%q} %d%s\n", le, i+1, exemplar(i+1))
	}
	b.WriteString("latency_seconds_count 6\nlatency_seconds_sum 12\n# EOF\n")
	text = b.String()
	config := "global: {scrape_interval: 1s, scrape_protocols: [OpenMetricsText1.0.0]}\nstorage: {exemplars: {max_exemplars: 1000}}\n" +
		"scrape_configs: [{job_name: fwd, static_configs: [{targets: ['" + instance + "']}]}]\n"
	theirs := prometheus(t, t.TempDir(), config, "--enable-feature=exemplar-storage")
	ours := httptest.NewServer(server.New(*tracedServer(at+20_000, s, 0)))
	defer ours.Close()
	span := fmt.Sprintf("&start=%d&end=%d", at/1000-10, at/1000+30)
	for end := time.Now().Add(30 * time.Second); !strings.Contains(string(ask(t, theirs, "GET", "/api/v1/query_exemplars?query=requests_total"+span, "").body), "trace_id"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Prometheus has no exemplars")
		}
	}
	for _, q := range []string{
		"requests_total", "rate(requests_total[1m])/sum(rate(requests_total[1m]))", `requests_total{code!="200"}`, "latency_seconds_bucket", `latency_seconds_bucket{le="1.0"}`,
		"histogram_quantile(0.99,sum by(le)(rate(latency_seconds_bucket[5m])))", "latency_seconds_count", "nothing", `{job="fwd",code="200"}`,
	} {
		params := "query=" + strings.NewReplacer("+", "%2B", " ", "%20", `"`, "%22").Replace(q) + span
		for _, r := range [][2]string{{"/api/v1/query_exemplars?" + params, ""}, {"/api/v1/query_exemplars", params}} {
			method := "GET"
			if r[1] != "" {
				method = "POST"
			}
			a, b := ask(t, ours.URL, method, r[0], r[1]), ask(t, theirs, method, r[0], r[1])
			if a.code != b.code || a.kind != b.kind || string(a.body) != string(b.body) {
				t.Errorf("%s %s:\nours:   %d %s %s\ntheirs: %d %s %s", method, q, a.code, a.kind, a.body, b.code, b.kind, b.body)
			}
		}
	}
}
