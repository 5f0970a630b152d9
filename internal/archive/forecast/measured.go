package forecast

import (
	"fmt"
	"math"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// Measured is what a tier of an archive has taken so far.
type Measured struct {
	archive.Tier
	Extents []Extent // that hold rows, oldest first
	Sources int      // different ones
	Ended   int      // of those, that ended in here
	Rows    uint64
	Samples uint64        // a value of a series in a row
	Length  int64         // of rows blocks alone
	Parts   uint64        // sources, summed over blocks
	RowStep time.Duration // the longest from row to row
}

// Extent is one of a tier's.
type Extent struct {
	Generation uint64
	Sealed     bool
	Blocks     int
	Sources    int
	Rows       uint64
	Samples    uint64
	Length     int64 // of rows blocks
	From, To   int64 // unix ms, of its rows
}

// Measure reads what all blocks of a tier say of themselves.
func Measure(r archive.Reader, tier int) (*Measured, error) {
	m := &Measured{}
	type state struct{ extent, ended bool }
	known := map[archive.Key]*state{}
	var here []*state
	for b, err := range r.Blocks(tier, archive.Mark{}) {
		if err != nil {
			return nil, err
		}
		if n := len(m.Extents); n == 0 || m.Extents[n-1].Generation != b.Generation {
			m.Extents = append(m.Extents, Extent{Generation: b.Generation, From: b.From, To: b.To})
			for _, s := range here {
				s.extent = false
			}
			here = here[:0]
		}
		e := &m.Extents[len(m.Extents)-1]
		e.Blocks++
		m.RowStep = max(m.RowStep, b.Step)
		e.Length += int64(b.Length)
		e.From, e.To = min(e.From, b.From), max(e.To, b.To)
		for i := range b.Sources {
			s := &b.Sources[i]
			m.Parts++
			e.Rows += uint64(s.Rows)
			e.Samples += uint64(s.Rows * len(b.Schema.Series))
			st := known[s.Key]
			if st == nil {
				st = &state{}
				known[s.Key] = st
			}
			if !st.extent {
				st.extent = true
				e.Sources++
				here = append(here, st)
			}
			if s.Ended && !st.ended {
				st.ended = true
				m.Ended++
			}
		}
	}
	m.Tier = r.Tiers()[tier] // as of now: what was written meanwhile is not in the extents above, or in part
	m.Sources = len(known)
	for i := range m.Extents {
		e := &m.Extents[i]
		e.Sealed = e.Generation < m.Generation
		m.Rows, m.Samples, m.Length = m.Rows+e.Rows, m.Samples+e.Samples, m.Length+e.Length
	}
	return m, nil
}

// Span is the time from the tier's oldest row to its newest.
func (m *Measured) Span() time.Duration {
	if len(m.Extents) == 0 {
		return 0
	}
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	for _, e := range m.Extents {
		from, to = min(from, e.From), max(to, e.To)
	}
	return time.Duration(to-from) * time.Millisecond
}

// rate is bytes a second, and what it was taken from.
func (m *Measured) rate() (bytes, seconds float64) {
	bytes, seconds = float64(m.Bytes), m.Span().Seconds()
	// Extents hold rows of sources that were flushed early or late: from end to end of some, that does not count.
	if n := len(m.Extents); n > 3 {
		first, last := m.Extents[0], m.Extents[n-2]
		if span := float64(last.To-first.To) / 1000; span > 0 {
			return float64(n-2) * float64(m.ExtentSize), span
		}
	}
	return bytes, seconds
}

// BytesSample is what a sample takes, all-in. NaN without any.
func (m *Measured) BytesSample() float64 { return float64(m.Bytes) / float64(m.Samples) }

// Forecast says how far a tier will reach back, with a budget or to a retention (the other one 0), if things go on as they went, times scale.
func (m *Measured) Forecast(budget int64, retention time.Duration, scale float64) (Tier, error) {
	bytes, seconds := m.rate()
	t := Tier{Step: m.Step, ExtentSize: m.ExtentSize}
	if m.Samples == 0 || seconds < 10*m.Step.Seconds() {
		return t, fmt.Errorf("shmts: forecast: tier %v: want rows of at least %v, got %v", m.Step, 10*m.Step, m.Span())
	}
	t.BytesSecond = scale * bytes / seconds
	t.BytesSample = m.BytesSample()
	t.SamplesSecond = t.BytesSecond / t.BytesSample
	t.Fill = times(time.Second, float64(m.ExtentSize)/t.BytesSecond)
	sources := 0
	for _, e := range m.Extents {
		sources += e.Sources
	}
	t.SourcesExtent = scale * float64(sources) / float64(len(m.Extents))
	t.BytesSource = max(0, float64(m.Bytes-m.Length)) / float64(sources)
	t.Lag = times(m.RowStep, float64(m.Rows)/float64(m.Parts))
	if budget == 0 {
		budget = t.need(retention)
	}
	return t, t.within(budget)
}

// Lives is how many sources ended an hour.
func (m *Measured) Lives() float64 {
	if s := m.Span().Hours(); s > 0 {
		return float64(m.Ended) / s
	}
	return 0
}
