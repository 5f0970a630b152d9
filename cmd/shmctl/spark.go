package main

import "math"

// Levels of a sparkline, for terminals that know Unicode and for those that don't.
var (
	sparkBlocks = []rune("▁▂▃▄▅▆▇█")
	sparkASCII  = []rune("_.-=+*#@")
)

// spark draws values, oldest first, in width cells: the newest at the right. NaN is
// a gap. From the least value to the greatest is the whole height, unless all are equal.
func spark(values []float64, width int, levels []rune) string {
	if width <= 0 {
		return ""
	}
	if len(values) > width {
		values = values[len(values)-width:]
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			low, high = min(low, v), max(high, v)
		}
	}
	out := make([]rune, 0, width)
	for range width - len(values) {
		out = append(out, ' ')
	}
	top := len(levels) - 1
	for _, v := range values {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			out = append(out, ' ')
		case high == low:
			out = append(out, levels[0])
		default:
			// Halves first: the span of two huge values of either sign is no finite number.
			at := (v/2 - low/2) / (high/2 - low/2)
			out = append(out, levels[min(top, max(0, int(math.Round(at*float64(top)))))])
		}
	}
	return string(out)
}
