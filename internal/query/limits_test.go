package query

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// What a query may be, and what it may just be.
func TestLimits(t *testing.T) {
	e := New(Options{Sources: Snapshot(func() []Segment { return nil })})
	list := make([]string, 1500)
	for i := range list {
		list[i] = fmt.Sprintf("host-%d.example.org:9100", i)
	}
	for _, c := range []struct{ name, q, want string }{
		{"a dashboard's list of hosts", `up{instance=~"` + strings.Join(list, "|") + `"}`, ""},
		{"a usual pattern", `up{job=~"a.*|b[0-9]{3}", path!~"(?i)/health.*"}`, ""},
		{"brackets", strings.Repeat("(", 399) + "1" + strings.Repeat(")", 399), ""},
		{"more brackets", strings.Repeat("(", 401) + "1" + strings.Repeat(")", 401), "brackets inside each other"},
		{"functions", strings.Repeat("abs(", 401) + "x" + strings.Repeat(")", 401), "inside each other"},
		{"a chain", strings.Repeat("1+", 300) + "1", ""},
		{"a longer chain", strings.Repeat("1+", 5000) + "1", "want at most 10000 words"},
		{"repeats", `up{a=~"(?:x{100}){100}"}`, ""},
		{"more repeats", `up{a=~"(?:\\d{900}){900}"}`, ""}, // the regexp package refuses it itself, and says so
		{"classes", `up{a=~"` + strings.Repeat(`\\pL`, 200) + `"}`, "regular expressions"},
		{"together", `up{a=~"\\pL{60}", b=~"\\pL{60}", c=~"\\pL{60}"}`, "regular expressions"},
		{"of label_replace", `label_replace(up, "a", "$1", "b", ("\\pL{200}"))`, "regular expressions"},
		{"a label of two", `label_join(label_replace(up, "a", "$1-$2", "b", "(.*):(.*)"), "c", "/", "a", "b", "job")`, ""},
		{"a label that doubles", strings.Repeat("label_join(", 7) + "up" + strings.Repeat(`, "a", "", "a", "a")`, 7), "grow at most"},
		{"a label of its copies", `label_replace(up, "a", "` + strings.Repeat("$1", 100) + `", "a", "(.*)")`, "grow at most"},
		{"a string with a regular expression's sign", `up{a="=~(((((("} == 1`, ""},
	} {
		_, err := e.Parse(c.q)
		switch {
		case c.want == "" && err != nil && !strings.Contains(err.Error(), "error parsing regexp"):
			t.Errorf("%s: %.200v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: want an error of %q, got %.200v", c.name, c.want, err)
		}
	}
	now := time.Now()
	for q, ok := range map[string]bool{
		"max_over_time(x[30d:1m])":                               true,
		"max_over_time(x[1d:1s])":                                true,
		"max_over_time(x[1y:1ms])":                               false,
		"max_over_time(x[1y])":                                   true,
		"max_over_time(max_over_time(x[1d:1s])[1y:])":            false,
		"max_over_time(sum_over_time(rate(x[1m])[10m:1m])[1d:])": true,
	} {
		p, err := e.Instant(context.Background(), q, now, QueryOptions{})
		if (err == nil) != ok {
			t.Errorf("%s: want it refused: %v, got %v", q, !ok, err)
		}
		if err == nil {
			p.Close()
		}
	}
	if _, err := e.Range(context.Background(), "max_over_time(x[5m:1s])", now.Add(-60*24*time.Hour), now, time.Hour, QueryOptions{}); err == nil {
		t.Error("want a subquery of 60 days of seconds refused")
	}
	if _, err := e.Selectors(make([]string, MaxSelectors+1)); err == nil || !strings.Contains(err.Error(), "1000 selectors") {
		t.Errorf("selectors: %v", err)
	}
	if _, err := Matcher(labels.MatchRegexp, "a", strings.Repeat(`\pL`, 200)); err == nil {
		t.Error("want a matcher as large as that refused")
	}
}

// Light queries have places of their own: heavy ones that take all others do not keep them waiting.
func TestLightQueriesDoNotWait(t *testing.T) {
	now := time.Now()
	for q, want := range map[string]bool{"x": true, "sum(rate(x[5m]))": true, "rate(x[1h])": false, "max_over_time(x[5m:1s])": false} {
		e := New(Options{Sources: Snapshot(func() []Segment { return nil }), Concurrency: 1, Queue: 1})
		leave, done := e.share.enter(context.Background(), heavy)
		if done != nil {
			t.Fatal(done)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if !want {
			cancel() // it would wait
		}
		p, err := e.Instant(ctx, q, now, QueryOptions{})
		if err == nil {
			err = p.Exec(ctx).Err
			p.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: want it to run beside a heavy one: %v, got %v", q, want, err)
		}
		cancel()
		leave()
	}
}
