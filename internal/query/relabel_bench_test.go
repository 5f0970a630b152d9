package query_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/relabel"
)

// twenty are rules as a host's operator may have them. The first read what all processes of a program have in common, the others
// their instance.
func twenty(instance bool) string {
	var list []string
	for i := range 12 {
		list = append(list, fmt.Sprintf(`{action: drop, source_labels: [__name__, path], regex: "debug_%d_.*;.*|.*;/internal/%d/.*"}`, i, i))
	}
	for i := range 4 {
		list = append(list, fmt.Sprintf(`{source_labels: [__name__], regex: "m_(%d.)_total", target_label: family, replacement: "f$1"}`, i))
	}
	list = append(list, `{action: labeldrop, regex: "pod_uid|container_id"}`, `{action: lowercase, source_labels: [code], target_label: code}`,
		`{action: keep, source_labels: [job], regex: "[a-z]+"}`)
	if instance {
		list = append(list, `{source_labels: [instance], regex: "(.*):[0-9]+", target_label: host}`)
	} else {
		list = append(list, `{source_labels: [job], regex: "(.*)", target_label: team}`)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func manyProcesses(segments, series int) (out querytest.Segments) {
	for i := range segments {
		g := querytest.New(t0, from(fmt.Sprintf("host-%d:9100", i)), querytest.Scalars())
		for k := range series {
			querytest.Set(g.Counter(fmt.Sprintf("m_%d", k), "path", fmt.Sprintf("/api/%d", k%7), "code", "OK"), float64(k))
		}
		for s := int64(1); s <= 12; s++ {
			g.Tick(t0 + s*1000)
		}
		out = append(out, g)
	}
	return out
}

// spent has b say what its loop computed, by cpu.
func spent(b *testing.B, loop func()) {
	before := cpu()
	loop()
	b.ReportMetric(float64(cpu()-before)/float64(max(1, b.N)), "cpu-ns/op")
}

// What rules cost a query of 1,000 processes with 100 series each, in the same run as none: nothing that grows with the number of rules, once
// each set of labels was looked at. First is that look, census what a poll does after which there is another process, and heap what is
// held for all of them.
func BenchmarkRelabel(b *testing.B) {
	segments := manyProcesses(1000, 100)
	now := t0 + 12_000
	for _, c := range []struct{ name, rules string }{{"none", "[]"}, {"twenty", twenty(false)}, {"twenty with instance", twenty(true)}} {
		r := rulesOf(b, c.rules)
		rules := query.NewRules(func() *relabel.Rules { return r })
		e := query.New(query.Options{Sources: segments, Rules: rules, Now: func() time.Time { return time.UnixMilli(now) }})
		ask := func(q string) {
			pq, err := e.Instant(b.Context(), q, time.UnixMilli(now), query.QueryOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if res := pq.Exec(b.Context()); res.Err != nil {
				b.Fatal(res.Err)
			}
			pq.Close()
		}
		for _, q := range []string{`sum(rate(m_7_total[10s]))`, `m_7_total{instance="host-500:9100"}`, `count by (job) ({job="fwd"})`} {
			ask(q)
			b.Run(c.name+"/"+q, func(b *testing.B) {
				spent(b, func() {
					for b.Loop() {
						ask(q)
					}
				})
			})
		}
		all := slices.Clone([]query.Segment(segments))
		for _, collisions := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/census, collisions %v", c.name, collisions), func(b *testing.B) {
				spent(b, func() {
					for b.Loop() {
						rules.Census(all, collisions)
					}
				})
			})
		}
		b.Run(c.name+"/first", func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var fresh *query.Rules
			spent(b, func() {
				for b.Loop() {
					fresh = query.NewRules(func() *relabel.Rules { return r })
					if _, err := query.New(query.Options{Sources: segments, Rules: fresh}).Metadata(b.Context(), "m_7_total"); err != nil {
						b.Fatal(err)
					}
				}
			})
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc)-float64(before.HeapAlloc), "heap-B")
			runtime.KeepAlive(fresh)
		})
	}
}
