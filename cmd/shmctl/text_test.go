package main

import (
	"math"
	"testing"
	"time"
)

func TestSpark(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		values []float64
		width  int
		want   string
	}{
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7}, 8, "▁▂▃▄▅▆▇█"},
		{[]float64{9, 0, 7}, 2, "▁█"}, // the newest
		{[]float64{1, 2}, 4, "  ▁█"},
		{[]float64{5, 5, 5}, 3, "▁▁▁"},
		{[]float64{1, nan, inf, 3}, 4, "▁  █"},
		{[]float64{nan}, 1, " "},
		{[]float64{-math.MaxFloat64, 0, math.MaxFloat64}, 3, "▁▅█"},
		{nil, 2, "  "}, {[]float64{1}, 0, ""}, {[]float64{1}, -1, ""},
	} {
		if got := spark(c.values, c.width, sparkBlocks); got != c.want {
			t.Errorf("%v in %d: want %q, got %q", c.values, c.width, c.want, got)
		}
	}
	if got := spark([]float64{0, 1}, 2, sparkASCII); got != "_#" && got != "_@" {
		t.Errorf("want ASCII, got %q", got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for got, want := range map[string]string{
		sizeText(0): "0 B", sizeText(1023): "1023 B", sizeText(1024): "1.00 KiB", sizeText(475136): "464 KiB", sizeText(1 << 30): "1.00 GiB",
		sizeText(1023 << 10): "1.00 MiB", sizeText(99_000): "96.7 KiB",
		digits(0): "0", digits(999): "999", digits(1000): "1,000", digits(1234567): "1,234,567",
		ageText(36 * time.Millisecond): "36ms", ageText(125 * time.Second): "2m05s", ageText(3*time.Hour + time.Minute): "3h01m",
		ageText(100 * time.Hour): "4d04h", ageText(-time.Second): "-1s",
		stepText(100 * time.Millisecond): "100ms", stepText(90 * time.Second): "90s", stepText(time.Hour): "1h",
		shortText(0): "0", shortText(1530): "1.53k", shortText(-0.00025): "-250u", shortText(12): "12", shortText(math.NaN()): "-",
		shortText(math.Inf(1)): "+Inf", shortText(3e20): "3.00e+20", shortText(999_950): "1000k",
		timeText(0): "-", timeText(birth): "2023-11-14T22:13:20.000Z",
		clean("a\x1b[2J\u202e\u00e9\n"): `a\x1b[2J\u202e` + "\u00e9\n", oneLine("a\nb"): `a\nb`, clean("\xff"): `\ufffd`,
		shorten("abcdefghij", 6): "ab..ij", shorten("abc", 6): "abc",
	} {
		if got != want {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}

func TestParseKeys(t *testing.T) {
	got := parseKeys("j\x1b[A\x1b[6~qé")
	want := []string{"j", "up", "pagedown", "q", "é"}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("want %q, got %q", want, got)
		}
	}
}
