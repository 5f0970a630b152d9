package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shmts/shmts/layout"
)

// A grid is text in columns: as wide as its widest cell, two spaces between.
// Columns named with a leading ">" are flush right.
type grid struct {
	head []string
	rows [][]string
	wide []int // as wide as this at least
}

func newGrid(head ...string) *grid { return &grid{head: head} }

func (g *grid) add(cells ...string) {
	for i := range cells {
		cells[i] = oneLine(cells[i])
	}
	g.rows = append(g.rows, cells)
}

// widths of the columns.
func (g *grid) widths() []int {
	width := make([]int, len(g.head))
	copy(width, g.wide)
	for i, h := range g.head {
		width[i] = max(width[i], utf8.RuneCountInString(strings.TrimPrefix(h, ">")))
	}
	for _, r := range g.rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	return width
}

// lines lays the grid out; the heading comes first.
func (g *grid) lines() []string {
	width := g.widths()
	head := make([]string, len(g.head))
	for i, h := range g.head {
		head[i] = strings.TrimPrefix(h, ">")
	}
	var out []string
	var b strings.Builder
	for _, r := range append([][]string{head}, g.rows...) {
		b.Reset()
		for i, c := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if g.head[i][0] == '>' {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

func (g *grid) print(w io.Writer) {
	for _, l := range g.lines() {
		fmt.Fprintln(w, l)
	}
}

// clean makes text safe for a terminal. Names and labels are other people's:
// an escape sequence in one must not reach the screen.
func clean(s string) string {
	bad := func(r rune) bool { return r != '\n' && (r == utf8.RuneError || !unicode.IsPrint(r)) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !bad(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// oneLine is clean, and without line breaks.
func oneLine(s string) string { return strings.ReplaceAll(clean(s), "\n", `\n`) }

// sizeText is a number of bytes for people: three digits, binary units.
func sizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		v /= 1024
		if v < 999.5 {
			break
		}
	}
	if v < 9.995 {
		return fmt.Sprintf("%.2f %s", v, unit)
	} else if v < 99.95 {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// digits separates thousands: 1,234,567.
func digits(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ageText is a duration for people: its two largest units.
func ageText(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + ageText(-d)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// stepText is a step as people write it: 1s, 10s, 1m, 100ms.
func stepText(d time.Duration) string {
	if d <= 0 {
		return d.String()
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return d.String()
}

// timeText is unix nanoseconds as RFC 3339 in UTC with milliseconds; "-" for none.
func timeText(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// jsonTime is the same with all its digits; empty for none.
func jsonTime(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

// floatText is a number with all its digits.
func floatText(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// shortText is a number of about four digits, with SI prefixes.
func shortText(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v):
		return "-"
	case a == 0:
		return "0"
	case a < 1e-9 || a >= 1e18 || math.IsInf(v, 0):
		return strconv.FormatFloat(v, 'e', 2, 64)
	}
	for _, u := range []struct {
		unit float64
		name string
	}{{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "u"}, {1e-9, "n"}} {
		if a >= u.unit || u.unit == 1e-9 {
			return strconv.FormatFloat(v/u.unit, 'g', 4, 64) + u.name
		}
	}
	return floatText(v)
}

// seriesText is a series as PromQL writes it: name{a="b"}.
func seriesText(name string, labels []layout.Pair) string {
	if len(labels) == 0 {
		return name
	}
	return name + "{" + pairsText(labels) + "}"
}

func pairsText(pairs []layout.Pair) string {
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "%s=%s", p.Name, strconv.Quote(p.Value))
	}
	return b.String()
}

// pairsMap is a pair list for JSON.
func pairsMap(pairs []layout.Pair) map[string]string {
	m := map[string]string{}
	for _, p := range pairs {
		m[p.Name] = p.Value
	}
	return m
}
