package spec_test

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/archive"
)

var archiveComment = regexp.MustCompile(`^<!-- archive (\w+) -->$`)

// structures of package archive by the name in the page's comments.
var archiveStructures = map[string]goStructure{
	"TierHeader":   {reflect.TypeFor[archive.TierHeader](), archive.TierHeaderSize},
	"ExtentHeader": {reflect.TypeFor[archive.ExtentHeader](), archive.ExtentHeaderSize},
	"Trailer":      {reflect.TypeFor[archive.Trailer](), archive.TrailerSize},
	"BlockHeader":  {reflect.TypeFor[archive.BlockHeader](), archive.BlockHeaderSize},
	"SourceRecord": {reflect.TypeFor[archive.SourceRecord](), archive.SourceRecordSize},
	"ExemplarPart": {reflect.TypeFor[archive.ExemplarPart](), archive.ExemplarPartSize},
	"SourceRows":   {reflect.TypeFor[archive.SourceRows](), archive.SourceRowsSize},
}

func TestArchiveStructures(t *testing.T) {
	all, err := parseTables(page(t), archiveComment)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range checkTables(all, archiveStructures) {
		t.Error(wrong)
	}
}

// The checker sees breaks of part two, too.
func TestArchiveStructuresCheckerSees(t *testing.T) {
	good := page(t)
	for _, c := range []struct{ what, old, new, want string }{
		{"an offset", "| 0x14 | 4 | extent_size |", "| 0x18 | 4 | extent_size |", "TierHeader.extent_size: at 0x18"},
		{"a sign", "| 0x20 | 8 | t_max | i64 | | |", "| 0x20 | 8 | t_max | u64 | | |", "Trailer.t_max: u64 in the page, int64 in Go"},
		{"a name", "| 0x34 | 4 | head |", "| 0x34 | 4 | header |", "BlockHeader.header: not in archive.BlockHeader"},
		{"a row left out", "| 0x18 | 8 | base_no |", "- 0x18 | 8 | base_no |", "SourceRows: the page describes 24 bytes"},
		{"a table", "<!-- archive SourceRecord -->", "", "SourceRecord: not described"},
	} {
		if strings.Count(good, c.old) != 1 {
			t.Errorf("%s: want %q in the page once, got it %d times", c.what, c.old, strings.Count(good, c.old))
			continue
		}
		all, err := parseTables(strings.Replace(good, c.old, c.new, 1), archiveComment)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if wrong := strings.Join(checkTables(all, archiveStructures), "\n"); !strings.Contains(wrong, c.want) {
			t.Errorf("%s: want the checker to say %q, got %q", c.what, c.want, wrong)
		}
	}
}
