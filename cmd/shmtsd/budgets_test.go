package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
)

func usage(uid, segments, refused int, limit int) reader.Usage {
	return reader.Usage{UID: uid, Used: reader.Budget{Segments: segments, Bytes: int64(1000 * segments)}, Refused: refused,
		Limit: reader.Budget{Segments: limit, Bytes: 1 << 30, Series: 1000, LabelBytes: 1 << 20}}
}

func has(t *testing.T, h *health.Health, lines ...string) {
	t.Helper()
	text := "\n" + string(h.Text())
	for _, l := range lines {
		if !strings.Contains(text, "\n"+l+"\n") {
			t.Errorf("want %q in /metrics, got:%s", l, text)
		}
	}
}

// Each user's use is there, of users without number the sum; who has gone uses nothing.
func TestBudgetMetrics(t *testing.T) {
	h := health.New(nil)
	m := newBudgetMetrics(h)
	s := source.Stats{Budget: usage(-1, 12, 3, 100), Users: []reader.Usage{usage(1000, 10, 3, 10), usage(1001, 2, 0, 10)}}
	s.Users[0].SkippedSeries = 4
	m.update(s)
	has(t, h, `shmtsd_budget_used{budget="segments"} 12`, `shmtsd_budget_limit{budget="segments"} 100`, `shmtsd_budget_limit{budget="label-bytes"} 1.048576e+06`,
		`shmtsd_budget_waiting 3`, `shmtsd_user_budget_used{budget="segments",uid="1000"} 10`, `shmtsd_user_budget_limit{budget="segments",uid="1000"} 10`,
		`shmtsd_user_budget_waiting{uid="1000"} 3`, `shmtsd_user_series_skipped_total{uid="1000"} 4`, `shmtsd_user_budget_used{budget="bytes",uid="1001"} 2000`)

	m.update(source.Stats{Budget: usage(-1, 0, 0, 100)})
	has(t, h, `shmtsd_user_budget_used{budget="segments",uid="1000"} 0`, `shmtsd_user_budget_waiting{uid="1000"} 0`, `shmtsd_budget_used{budget="segments"} 0`,
		`shmtsd_user_series_skipped_total{uid="1000"} 4`)

	s.Users = nil
	for i := range 500 {
		s.Users = append(s.Users, usage(5000+i, 1, 0, 10))
	}
	s.Users = append(s.Users, usage(9000, 7, 0, 10)) // the largest has its own series
	m.update(s)
	text := string(h.Text())
	if n := strings.Count(text, "shmtsd_user_budget_waiting{"); n != maxUsers+1 {
		t.Errorf("501 users: want series of %d and the others', got of %d", maxUsers, n)
	}
	has(t, h, `shmtsd_user_budget_used{budget="segments",uid="9000"} 7`,
		fmt.Sprintf(`shmtsd_user_budget_used{budget="segments",uid="other"} %d`, 501-(maxUsers-2)))
	if strings.Contains(text, `shmtsd_user_budget_limit{budget="segments",uid="other"}`) {
		t.Error("want no limit of the others together, got one")
	}
}

// A segment over budget is in /metrics, and is read when another one's time is over.
func TestOverBudget(t *testing.T) {
	dir := newStore(t)
	d := startDaemon(t, []string{"SHMTS_DIR=" + dir}, "--dead-ttl", "5s", "--poll-interval", "100ms", "--budget.user.segments", "2") // its own is the first
	metrics := func(lines ...string) func() error {
		return func() error {
			text, err := d.get("/metrics")
			for _, l := range lines {
				if err == nil && !strings.Contains(text, l+"\n") {
					err = fmt.Errorf("want %q, got %s", l, text)
				}
			}
			return err
		}
	}
	uid := fmt.Sprint(os.Geteuid())
	one := startWriter(t, dir, "one")
	one.add(1)
	waitFor(t, "the first writer's segment", metrics(`shmtsd_user_budget_used{budget="segments",uid="`+uid+`"} 2`))
	two := startWriter(t, dir, "two")
	two.add(2)
	waitFor(t, "the second refused", metrics(`shmtsd_segments_refused_total{reason="budget"} 1`, `shmtsd_user_budget_waiting{uid="`+uid+`"} 1`,
		`shmtsd_user_budget_limit{budget="segments",uid="`+uid+`"} 2`, `shmtsd_budget_waiting 1`))
	waitFor(t, "the first's value", func() error {
		got, err := d.query("work_done_total")
		if err == nil && (len(got) != 1 || got["__name__=work_done_total,instance=i,job=one,kind=x"] != "1") {
			err = fmt.Errorf("want the first writer's series and no other, got %v", got)
		}
		return err
	})
	one.kill()
	waitFor(t, "the second's value", func() error {
		got, err := d.query("work_done_total")
		if err == nil && got["__name__=work_done_total,instance=i,job=two,kind=x"] != "2" {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	waitFor(t, "nothing to wait", metrics(`shmtsd_user_budget_waiting{uid="`+uid+`"} 0`, `shmtsd_segments_refused_total{reason="budget"} 1`))
}
