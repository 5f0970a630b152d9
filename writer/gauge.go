package writer

import (
	"math"

	"github.com/shmts/shmts/layout"
)

// A gauge's one cell lies in the shared lane. A plain store is enough there: a word is
// stored whole, and the last store is the one that counts.

// nanGauge is what a gauge holds that was set to the very bits of unset. FORMAT.md 6.2.
const nanGauge uint64 = 0x7ff8000000000001

// Gauge is the last value set, f64. All methods may be called from any goroutine, and on nil.
type Gauge struct{ s *series }

// Gauge registers, or finds, a gauge of number f64.
func (w *Writer) Gauge(name string, options ...SeriesOption) *Gauge {
	return register(w, layout.Gauge, layout.F64, name, options, func(s *series) *Gauge { return &Gauge{s} })
}

// Set sets the value. NaN and infinities are values of a gauge.
func (g *Gauge) Set(v float64) {
	if g == nil {
		return
	}
	if at := g.s.place.Load(); at != nil {
		bits := math.Float64bits(v)
		if bits == layout.UnsetF64 {
			bits = nanGauge
		}
		*at.shared = bits
	}
}

// Retire is Counter.Retire.
func (g *Gauge) Retire() {
	if g != nil {
		g.s.retire()
	}
}

// IntGauge is the last value set, i64. All methods may be called from any goroutine, and on nil.
type IntGauge struct{ s *series }

// IntGauge registers, or finds, a gauge of number i64.
func (w *Writer) IntGauge(name string, options ...SeriesOption) *IntGauge {
	return register(w, layout.Gauge, layout.I64, name, options, func(s *series) *IntGauge { return &IntGauge{s} })
}

// Set sets the value. The least integer means unset, and becomes the one above it.
func (g *IntGauge) Set(v int64) {
	if g == nil {
		return
	}
	if at := g.s.place.Load(); at != nil {
		*at.shared = uint64(max(v, math.MinInt64+1))
	}
}

// Retire is Counter.Retire.
func (g *IntGauge) Retire() {
	if g != nil {
		g.s.retire()
	}
}
