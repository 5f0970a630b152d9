package otlp

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// A schema is how the series of a segment are written: everything of a request that does not change from
// row to row, encoded once. Segments of the same program have the same one: a thousand of them share it.
//
// What becomes of the kinds:
//
//	counter     Sum, cumulative, monotonic
//	updown      Sum, cumulative, not monotonic
//	gauge       Gauge; no point while it is unset
//	stat x      Gauge x (last), Gauges x.min and x.max of the row's window, Sum x.sum (monotonic if
//	            the stat is declared non-negative), Sum x.count. x_min etc. if x has no dots
//	histogram   ExponentialHistogram, cumulative; offset is bucket_min, the zero threshold its lower
//	            bound, and what lies above the last bucket one bucket more behind it
type schema struct {
	tables [][]metric
}

type metric struct {
	kind   reader.Kind
	part   string // of a stat
	data   protowire.Number
	head   []byte // name, description, unit
	delta  bool
	tail   []byte // temporality, monotonic: of the data message
	points []point
}

type point struct {
	series int    // index in the segment's series
	attrs  []byte // repeated KeyValue, as a field of the data point
}

// schemaKey is equal for segments that share a schema. b is scratch, and answered for the next time.
func schemaKey(b []byte, tables int, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, pointLabels []reader.Pair, kept []parts) ([sha256.Size]byte, []byte) {
	b = binary.LittleEndian.AppendUint32(b[:0], uint32(tables))
	text := func(s string) { b = append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...) }
	pairs := func(p []reader.Pair) {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(p)))
		for _, x := range p {
			text(x.Name)
			text(x.Value)
		}
	}
	for _, p := range pointLabels {
		text(p.Name) // a series' own label of that name is written under another
	}
	for i, s := range series {
		if kept != nil {
			b = append(b, byte(kept[i]))
		}
		flag := byte(0)
		if s.NonNegative {
			flag = 1
		}
		b = append(b, 0xff, byte(s.Kind), byte(s.Number), flag)
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Table))
		text(s.Name)
		text(s.Unit)
		text(s.Help)
		pairs(s.Labels)
		pairs(overrides[s])
	}
	return sha256.Sum256(b), b
}

func newSchema(delta bool, tables int, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, pointLabels []reader.Pair, kept []parts) *schema {
	type key struct {
		name, unit, part string
		kind             reader.Kind
		nonNegative      bool
	}
	sc := &schema{tables: make([][]metric, tables)}
	at := make([]map[key]int, tables)
	for i, s := range series {
		if s.Table < 0 || s.Table >= tables {
			continue
		}
		field := protowire.Number(numberAttrs)
		if s.Kind == reader.Histogram {
			field = histAttrs
		}
		attrs := appendLabels(nil, field, s.Labels, overrides[s], pointLabels)
		if at[s.Table] == nil {
			at[s.Table] = make(map[key]int)
		}
		for bit, part := range partsOf(s.Kind) {
			if kept != nil && kept[i]>>bit&1 == 0 {
				continue
			}
			k := key{s.Name, s.Unit, part, s.Kind, s.NonNegative}
			m, ok := at[s.Table][k]
			if !ok {
				m = len(sc.tables[s.Table])
				at[s.Table][k] = m
				sc.tables[s.Table] = append(sc.tables[s.Table], newMetric(s, part, delta))
			}
			points := &sc.tables[s.Table][m].points
			*points = append(*points, point{i, attrs})
		}
	}
	return sc
}

// appendLabels writes a series' own labels and what it is overridden with. One that the source's labels
// have too is renamed exported_..., as in PromQL.
func appendLabels(b []byte, field protowire.Number, own, overrides, pointLabels []reader.Pair) []byte {
	for _, p := range own {
		if slices.ContainsFunc(pointLabels, func(q reader.Pair) bool { return q.Name == p.Name }) {
			p.Name = "exported_" + p.Name
		}
		b = appendAttribute(b, field, p.Name, p.Value)
	}
	for _, p := range overrides {
		b = appendAttribute(b, field, p.Name, p.Value)
	}
	return b
}

func newMetric(s *reader.Series, part string, delta bool) metric {
	m := metric{kind: s.Kind, part: part, data: metricGauge}
	unit, monotonic := s.Unit, false
	switch {
	case s.Kind == reader.Counter:
		m.data, monotonic = metricSum, true
	case s.Kind == reader.UpDown:
		m.data = metricSum
	case s.Kind == reader.Histogram:
		m.data = metricExponential
	case part == names.Sum:
		m.data, monotonic = metricSum, s.NonNegative
	case part == names.Count:
		m.data, monotonic, unit = metricSum, true, "{record}"
	}
	name := s.Name
	if s.Kind == reader.Stat {
		name = names.OTelStatPart(name, part)
	}
	m.head = appendString(m.head, metricName, name)
	m.head = appendString(m.head, metricDescription, s.Help)
	m.head = appendString(m.head, metricUnit, unit)
	if m.data != metricGauge {
		t := uint64(temporalityCumulative)
		if m.delta = delta && (monotonic || m.data == metricExponential); m.delta {
			t = temporalityDelta
		}
		m.tail = appendVarint(m.tail, dataTemporality, t)
	}
	if monotonic {
		m.tail = appendVarint(m.tail, dataMonotonic, 1)
	}
	return m
}
