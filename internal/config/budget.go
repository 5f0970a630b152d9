package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shmts/shmts/reader"
)

const (
	mostSegments = 1 << 24
	mostSeries   = 1 << 30
	leastBytes   = 4 << 10
	mostBytes    = 1 << 50
)

// budget are the settings of one of the reader's budgets. Its defaults are the reader's own.
func budget(name, whose, rule string, to *reader.Budget, def reader.Budget) []setting {
	return []setting{
		{name: name + ".segments", def: strconv.Itoa(def.Segments), what: "N", help: "segments of " + whose + " that are read at once; " + rule, set: number(&to.Segments, 1, mostSegments)},
		{name: name + ".bytes", def: sizeText(def.Bytes), what: "SIZE", help: "size of the segments of " + whose + " that are read; the same", set: size(&to.Bytes, leastBytes, mostBytes)},
		{name: name + ".series", def: strconv.Itoa(def.Series), what: "N", help: "series in them; the same, and those that a segment registers later are skipped", set: number(&to.Series, 1, mostSeries)},
		{name: name + ".label-bytes", def: sizeText(def.LabelBytes), what: "SIZE", help: "names, units, help and labels in them; the same", set: size(&to.LabelBytes, leastBytes, mostBytes)},
	}
}

var sizeUnits = []struct {
	name string
	unit int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// size reads a number of bytes: 64MiB, or 67108864.
func size(to *int64, least, most int64) func(string) error {
	return func(v string) error {
		digits, unit := strings.TrimSuffix(v, "B"), int64(1)
		for _, u := range sizeUnits {
			if n, ok := strings.CutSuffix(v, u.name); ok {
				digits, unit = n, u.unit
			}
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > most/unit || n*unit < least {
			return fmt.Errorf("want a size of %s to %s, such as 64MiB, got %q", sizeText(least), sizeText(most), v)
		}
		*to = n * unit
		return nil
	}
}

// sizeText is what size reads.
func sizeText(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.unit && n%u.unit == 0 {
			return strconv.FormatInt(n/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
