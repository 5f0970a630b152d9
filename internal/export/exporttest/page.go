package exporttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// HoldFailures holds docs/export.md's table of what becomes of a protocol's receivers that fail against the names of the cases that were
// tried: each stands in one row of the column of that name, and no other does. The table begins behind <!-- failures PROTOCOL -->.
func HoldFailures(t testing.TB, protocol, column string, tried []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "export.md"))
	if err != nil {
		t.Fatal(err)
	}
	marker := "<!-- failures " + protocol + " -->\n"
	_, table, ok := strings.Cut(string(page), marker)
	if !ok {
		t.Fatalf("docs/export.md: want a table behind %q, got none", marker)
	}
	at := -1
	var told []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if at < 0 {
			at = slices.Index(cells, " "+column+" ")
		}
		if at < 0 || at >= len(cells) {
			t.Fatalf("docs/export.md, failures of %s: want a column %q in each row, got %q", protocol, column, line)
		}
		for i, name := range strings.Split(cells[at], "`") {
			if i%2 == 1 {
				told = append(told, name)
			}
		}
	}
	slices.Sort(told)
	if tried = slices.Sorted(slices.Values(tried)); !slices.Equal(tried, told) {
		t.Errorf("docs/export.md, failures of %s: want each case that is tried once in column %q, %q, got %q", protocol, column, tried, told)
	}
}
