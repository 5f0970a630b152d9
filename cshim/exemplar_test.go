package cshim_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exemplarsOf are what the text says of them, with the name of the series instead of its number.
func (s *segment) exemplarsOf() (lines []string) {
	names := map[string]string{}
	for _, line := range s.text {
		if m := regexp.MustCompile(`^series (\d+) .* "([^"]*)"\{`).FindStringSubmatch(line); m != nil {
			names[m[1]] = m[2]
		}
		if m := regexp.MustCompile(`^exemplar (\d+) series=(\d+) value=(\S+) t=(-?\d+) trace=([0-9a-f]{2})0* span=([0-9a-f]{2})0*$`).FindStringSubmatch(line); m != nil {
			lines = append(lines, fmt.Sprintf("%s %s %s %s %s", m[1], names[m[2]], m[3], m[4], m[5]))
		}
		if strings.HasPrefix(line, "exemplars ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s *segment) wantExemplars(t *testing.T, want ...string) {
	t.Helper()
	if got := s.exemplarsOf(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: want\n%s\ngot\n%s", s.path, strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// Exemplars of every kind that may have them, in all that can become of a segment.
func TestExemplars(t *testing.T) {
	const birth = 1700000000000000000
	first := []string{"exemplars slots=64 given=4 dropped=0", fmt.Sprint("1 counter 3 ", birth, " 01"), "2 counter_f64 2.5 42 02", "3 histogram 0.125 42 02", "4 histogram_u64 99 42 02"}
	eachCompiler(t, func(t *testing.T, prog string) {
		for _, how := range []string{"", "close"} {
			store := newStore(t)
			run(t, prog, "exemplars", store, how)
			s := readOne(t, store)
			s.wantExemplars(t, first...)
		}
		store := newStore(t)
		run(t, prog, "exemplars", store, "none")
		s := readOne(t, store)
		s.wantExemplars(t)

		// What was offered before there was a file is in it.
		store = newStore(t)
		run(t, prog, "exemplars", store, "late")
		s = readOne(t, filepath.Join(store, "later"))
		s.wantExemplars(t, first...)

		// A child has a ring of its own, and takes the first of its own row.
		store = newStore(t)
		run(t, prog, "exemplars", store, "fork")
		all := readStore(t, store)
		if len(all) != 2 {
			t.Fatalf("want the segments of parent and child, got %d", len(all))
		}
		parent, child := 0, 1
		if len(all[0].exemplarsOf()) == 2 {
			parent, child = 1, 0
		}
		all[parent].wantExemplars(t, first...)
		all[child].wantExemplars(t, "exemplars slots=64 given=1 dropped=0", "1 counter 1 42 02")

		// Each grown segment has one: of four series, as many as there is room for in the first.
		store = newStore(t)
		run(t, prog, "exemplars", store, "grow")
		given := 0
		for _, s := range readStore(t, store) {
			for _, line := range s.exemplarsOf()[1:] {
				given++
				var n, i, v int
				if _, err := fmt.Sscanf(line, "%d c%d %d", &n, &i, &v); err != nil || v != i+1 || n > 4 {
					t.Errorf("want an exemplar of %d, got %s, %v", i+1, line, err)
				}
			}
		}
		if given == 0 {
			t.Error("want exemplars, got none")
		}

		// Many threads, and a ring of four slots: nothing is torn, and what is there is of the newest.
		store = newStore(t)
		run(t, prog, "exemplars", store, "threads")
		s = readOne(t, store)
		if lines := s.exemplarsOf(); len(lines) < 2 || len(lines) > 5 || !strings.HasPrefix(lines[0], "exemplars slots=4 ") {
			t.Errorf("want a ring of 4 with exemplars, got %q", lines)
		}
	})
}
