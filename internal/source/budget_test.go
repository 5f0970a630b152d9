package source

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// What is over budget is counted, said once, and read when there is room.
func TestOverBudget(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, Options{Store: reader.Options{PerUser: reader.Budget{Segments: 2}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var all []*writer.Writer
	for i := range 5 {
		w := f.writer("j", fmt.Sprint(i))
		w.Counter("c").Add(1)
		all = append(all, w)
	}
	if n := len(f.poll()); n != 2 {
		t.Fatalf("want 2 segments, got %d", n)
	}
	for range 3 {
		f.poll()
	}
	s := f.r.Stats()
	equal(t, "refused", s.Refused[ReasonBudget], 3)
	equal(t, "refused for other reasons", len(s.Refused), 1)
	if len(s.Users) != 1 {
		t.Fatalf("want one user, got %+v", s.Users)
	}
	u := s.Users[0]
	if u.UID != os.Geteuid() || u.Used.Segments != 2 || u.Limit.Segments != 2 || u.Refused != 3 || u.Used.Series != 2 || s.Budget.Refused != 3 || s.Budget.Used != u.Used {
		t.Errorf("want 2 of 2 segments used and 3 refused, got %+v, all %+v", u, s.Budget)
	}
	lines := func(of string) int { return strings.Count(log.String(), of) }
	equal(t, "lines", lines("over budget"), 1)
	for _, part := range []string{"budget=segments", "of_all=false", "limit=2", fmt.Sprintf("uid=%d", os.Geteuid()), "level=WARN"} {
		if lines(part) == 0 {
			t.Errorf("want %q in the log, got:\n%s", part, log.String())
		}
	}
	// Another is not said again before its time, and is then.
	f.writer("j", "5")
	f.poll()
	equal(t, "lines", lines("over budget"), 1)
	f.now = f.now.Add(remindOver)
	f.writer("j", "6")
	f.poll()
	equal(t, "lines after an hour", lines("over budget"), 2)

	// Five end, two of which were read. They are unlinked, and the five that wait are read in turn.
	for _, w := range all {
		w.Close()
	}
	f.poll()
	f.now = f.now.Add(2 * time.Minute)
	seen := map[string]bool{}
	deadline := time.Now().Add(20 * time.Second)
	for len(seen) < 5 { // a refused file is tried again after a second of the reader's own clock
		f.now = f.now.Add(2 * time.Minute)
		for _, s := range f.poll() {
			seen[s.ID()] = true
		}
		if time.Now().After(deadline) {
			t.Fatalf("want all 5 read in turn, got %d; the others are %+v", len(seen), f.r.Stats().Budget)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Series that a segment registers beyond the budget are counted and said once.
func TestGrowthOverBudget(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, Options{Store: reader.Options{PerUser: reader.Budget{Series: 4}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := f.writer("j", "i")
	w.Counter("c")
	f.poll()
	for i := range 10 {
		w.Counter(fmt.Sprintf("more_%d", i))
		f.poll()
	}
	s := f.r.Stats()
	equal(t, "series", s.Series, 4)
	equal(t, "skipped", s.Readers.SkippedSeries, 7)
	equal(t, "skipped of the user", s.Users[0].SkippedSeries, 7)
	equal(t, "refused", len(s.Refused), 0)
	if n := strings.Count(log.String(), "series over budget"); n != 1 || !strings.Contains(log.String(), "series_limit=4") {
		t.Errorf("want it said once, got %d times:\n%s", n, log.String())
	}
}

// What was said is remembered for a bounded number of users.
func TestTold(t *testing.T) {
	f := newFixture(t, Options{})
	now := time.Now()
	told := 0
	for uid := range 3 * maxTold {
		if f.r.tell(overKey{uid: uid}, now) {
			told++
		}
	}
	equal(t, "told", told, maxTold)
	equal(t, "told after an hour", f.r.tell(overKey{uid: 2 * maxTold}, now.Add(remindOver)), true)
	equal(t, "remembered", len(f.r.told), 1)
}
