//go:build peers

package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/internal/server"
)

// What a real Prometheus makes of metric_relabel_configs when it scrapes, is what they make here of the same series: each of its
// actions, and series that become one, of which both keep the first.
func TestRelabelAgainstPrometheus(t *testing.T) {
	lists := []string{
		`[]`,
		`[{action: keep, source_labels: [__name__, queue], regex: "hits_total;[01]"}]`,
		`[{action: drop, source_labels: [queue, kind], separator: "/", regex: ".*/(A|B)"}]`,
		`[{source_labels: [instance], regex: "(.*):.*", target_label: host}, {source_labels: [job, queue], target_label: both}]`,
		`[{source_labels: [__name__], regex: "(.*)_total", target_label: __name__, replacement: "${1}_sum"}]`,
		`[{target_label: dc, replacement: east}, {source_labels: [nothing], target_label: queue, replacement: ""}]`,
		`[{source_labels: [kind], regex: "(.)", target_label: "kind_${1}", replacement: "yes"}]`,
		`[{action: labelmap, regex: "qu(.*)", replacement: "m_$1"}]`,
		`[{action: labeldrop, regex: "kind|instance"}]`,
		`[{action: labelkeep, regex: "__name__|case|queue|kind"}]`,
		`[{action: hashmod, source_labels: [queue, kind], modulus: 7, target_label: shard}, {action: drop, source_labels: [shard], regex: "[0-2]"}]`,
		`[{action: lowercase, source_labels: [kind], target_label: kind}, {action: uppercase, source_labels: [job], target_label: JOB}]`,
		`[{action: keepequal, source_labels: [kind], target_label: twin}]`,
		`[{action: dropequal, source_labels: [kind], target_label: twin}]`,
		`[{action: labeldrop, regex: "queue|kind|twin"}]`, // series that become one
		`[{action: replace, source_labels: [job], regex: "(.*)", target_label: job, replacement: "new-$1"}, {action: labelmap, regex: job}]`,
		`[{source_labels: [queue], regex: "1", target_label: __name__, replacement: "with.dots é"}]`,
	}
	type sample struct {
		name   string
		labels []string
		value  float64
	}
	var samples []sample
	for i := range 4 {
		samples = append(samples, sample{"hits_total", []string{"kind", string(rune('A' + i)), "queue", fmt.Sprint(i), "twin", string("ABBB"[i])}, float64(10 + i)})
	}
	samples = append(samples, sample{"level", []string{"kind", "x"}, 5}, sample{"level", []string{"kind", "X"}, 6})

	exposed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		for _, s := range samples {
			fmt.Fprintf(w, "%s{case=%q", s.name, strings.TrimPrefix(r.URL.Path, "/"))
			for i := 0; i < len(s.labels); i += 2 {
				fmt.Fprintf(w, ",%s=%q", s.labels[i], s.labels[i+1])
			}
			fmt.Fprintf(w, "} %g\n", s.value)
		}
	}))
	defer exposed.Close()
	address := strings.TrimPrefix(exposed.URL, "http://")
	config := "global: {scrape_interval: 1s}\nscrape_configs:\n"
	for i, rules := range lists {
		config += fmt.Sprintf("- {job_name: job%d, metrics_path: /%d, static_configs: [{targets: [%q]}], metric_relabel_configs: %s}\n", i, i, address, rules)
	}
	theirs := prometheus(t, t.TempDir(), config)

	answer := func(base string, i int) (out []string) {
		t.Helper()
		r, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(fmt.Sprintf(`{case="%d"}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var got struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		for _, s := range got.Data.Result {
			text, err := json.Marshal(s.Metric)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s %v", text, s.Value[1]))
		}
		slices.Sort(out)
		return out
	}
	for end := time.Now().Add(30 * time.Second); len(answer(theirs, 0)) == 0 || len(answer(theirs, len(lists)-1)) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Prometheus has scraped nothing in 30 s")
		}
	}
	compared := 0
	for i, text := range lists {
		g := querytest.New(t0, querytest.Pairs("job", fmt.Sprint("job", i), "instance", address), querytest.Scalars())
		for _, s := range samples {
			labels := append([]string{"case", fmt.Sprint(i)}, s.labels...)
			if strings.HasSuffix(s.name, "_total") {
				querytest.Set(g.Counter(s.name, labels...), s.value)
			} else {
				querytest.Set(g.Gauge(s.name, labels...), s.value)
			}
		}
		g.Tick(t0 + 1000)
		rules, err := relabel.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		now := func() time.Time { return time.UnixMilli(t0 + 1500) }
		ours := httptest.NewServer(server.New(server.Options{Now: now, Engine: query.New(query.Options{Sources: querytest.Segments{g}, Now: now,
			Rules: query.NewRules(func() *relabel.Rules { return rules })})}))
		var want, got []string
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) { // all jobs have been scraped by then
			if want, got = answer(theirs, i), answer(ours.URL, i); slices.Equal(want, got) || time.Now().After(end) {
				break
			}
		}
		ours.Close()
		if !slices.Equal(want, got) {
			t.Errorf("%s: want as Prometheus\n%s\ngot\n%s", text, strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
		compared += len(got)
	}
	if compared < 4*len(lists)/2 {
		t.Errorf("want more to be compared, got %d series", compared)
	}
	t.Logf("%d lists of rules, %d series", len(lists), compared)
}
