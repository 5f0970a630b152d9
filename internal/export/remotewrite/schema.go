package remotewrite

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// A schema is how the series of a source are written: their labels as numbers of symbols, and what goes out of each. It holds
// nothing of the source but the names of its labels, and the values of those that relabelling looks at; so a thousand processes
// of one program share one.
type schema struct {
	tables  [][]metric
	symbols []string // the first is empty
	index   map[string]uint32
	hashes  map[uint64]struct{} // of metrics; nil: nobody asked yet
}

// metric is one series of the receiver's.
type metric struct {
	series int32 // of the source
	part   part
	kind   reader.Kind
	bucket int32   // of partBucket: how many counts of the row it adds up, zero first
	labels []int32 // sorted by name: numbers of symbols, name and value; ^k: both of the source's label k
	hash   uint64

	typ        uint8 // a MetricType
	help, unit uint32
}

// part is what of a series' value.
type part uint8

const (
	partValue part = iota // last, of a stat
	partMin
	partMax
	partSum
	partCount
	partHistogram
	partBucket
	partTarget // not of a series: 1
)

// MetricType of both protocols.
const (
	typeCounter   = 1
	typeGauge     = 2
	typeHistogram = 3
)

// label is one of a source.
type label struct{ name, value string }

// source is what is written of one, whatever the row: an export.Source's Enc.
type source struct {
	rules  *relabel.Rules
	schema *schema
	labels []label // legal, sorted
	hash   uint64
	life   *life
	sent   *sent

	target      *metric // target_info, nil if there is none
	targetTable int
	own         *schema // target's

	recorded export.Bits // stats that had a value
	rows     []bool      // tables of which a row went out since this was made
}

func (e *Encoder) source(src *export.Source) *source {
	if e.o.Rules != nil {
		if rules := e.o.Rules(); rules != e.rules {
			e.rules = rules
			clear(e.schemas)
		}
	}
	was, ok := src.Enc.(*source)
	if ok && was.rules == e.rules {
		return was
	}
	s := &source{rules: e.rules, recorded: export.NewBits(len(src.Series)), rows: make([]bool, src.Tables)}
	if ok {
		s.recorded, s.rows = was.recorded, was.rows
	}
	for _, p := range names.Labels(src.Labels) {
		if p.Value != "" {
			s.labels = append(s.labels, label{p.Name, p.Value})
		}
	}
	s.hash = hash(s.labels)
	s.schema = e.schemaOf(src, s.labels)
	s.target, s.own = e.targetInfo(src)
	s.targetTable = -1
	if s.target != nil {
		for _, sr := range src.Series {
			if s.targetTable < 0 || sr.Table < s.targetTable {
				s.targetTable = sr.Table
			}
		}
	}
	s.life, s.sent = e.live(src, s.hash)
	if !slices.Contains(s.sent.schemas, s.schema) {
		s.sent.schemas = append(s.sent.schemas[max(0, len(s.sent.schemas)-maxSegments+1):], s.schema)
	}
	src.Enc = s
	return s
}

// live finds what is known of a source, and of the segment that this is of.
func (e *Encoder) live(src *export.Source, hash uint64) (*life, *sent) {
	l := e.lives[hash]
	if l == nil {
		if len(e.lives) >= maxLives {
			clear(e.lives)
		}
		l = &life{}
		e.lives[hash] = l
	}
	for _, s := range l.segments {
		if s.id == src.ID {
			for len(s.tables) < src.Tables {
				s.tables, s.levels = append(s.tables, 0), append(s.levels, 0)
			}
			return l, s
		}
	}
	s := &sent{id: src.ID, tables: make([]int64, src.Tables), levels: make([]int, src.Tables)}
	if len(l.segments) == maxSegments {
		l.segments = slices.Delete(l.segments, 0, 1)
	}
	l.segments = append(l.segments, s)
	return l, s
}

// after tells whether another segment of the source has sent a series at a time, ms, or later.
func (l *life) after(mine *sent, m *metric, time int64) bool {
	for _, s := range l.segments {
		if s != mine && s.last >= time && slices.ContainsFunc(s.schemas, func(sc *schema) bool { return sc.has(m.hash) }) {
			return true
		}
	}
	return false
}

// has tells whether a series of the same labels is in the schema.
func (sc *schema) has(hash uint64) bool {
	if sc.hashes == nil {
		sc.hashes = map[uint64]struct{}{}
		for _, t := range sc.tables {
			for i := range t {
				sc.hashes[t[i].hash] = struct{}{}
			}
		}
	}
	_, ok := sc.hashes[hash]
	return ok
}

// schemaKey is equal for sources that share a schema.
func (e *Encoder) schemaKey(src *export.Source, source []label) any {
	b := e.scratch[:0]
	text := func(s string) { b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...) }
	pairs := func(p []reader.Pair) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		for _, x := range p {
			text(x.Name)
			text(x.Value)
		}
	}
	for _, l := range source {
		text(l.name)
		if e.fixed(l.name) {
			text(l.value)
		}
	}
	if src.Schema != nil {
		return struct{ schema, source any }{src.Schema, string(b)}
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(src.Tables))
	for _, s := range src.Series {
		b = append(b, 0xff, byte(s.Kind), byte(s.Number), strconv.FormatBool(s.NonNegative)[0], byte(s.Buckets.Scale))
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Buckets.Min))
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Buckets.Count))
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Table))
		text(s.Name)
		text(s.Unit)
		text(s.Help)
		pairs(s.Labels)
		pairs(src.Overrides[s])
	}
	e.scratch = b
	return sha256.Sum256(b)
}

// fixed tells whether relabelling makes what it makes of a label of a source's, so that the schema holds its value.
func (e *Encoder) fixed(name string) bool { return e.rules.Reads(name) || e.rules.Writes(name) }

const maxSchemas = 1024

func (e *Encoder) schemaOf(src *export.Source, source []label) *schema {
	key := e.schemaKey(src, source)
	sc := e.schemas[key]
	if sc == nil {
		if len(e.schemas) >= maxSchemas {
			clear(e.schemas) // those that sources use stay with them
		}
		sc = e.newSchema(src, source)
		e.schemas[key] = sc
	}
	return sc
}

func (e *Encoder) newSchema(src *export.Source, source []label) *schema {
	sc := &schema{tables: make([][]metric, src.Tables), symbols: []string{""}, index: map[string]uint32{"": 0}}
	sourceNames := make([]string, len(source))
	for i, l := range source {
		sourceNames[i] = l.name
	}
	for i, s := range src.Series {
		if s.Table < 0 || s.Table >= src.Tables {
			continue
		}
		own := names.SeriesLabels(s.Labels, sourceNames)
		for _, p := range src.Overrides[s] {
			own = append(own, reader.Pair{Name: names.Label(p.Name), Value: p.Value})
		}
		name := names.Metric(s.Name, s.Unit, s.Kind)
		add := func(m metric, part string, more ...reader.Pair) {
			m.series, m.kind = int32(i), s.Kind
			m.help, m.unit = sc.symbol(s.Help), sc.symbol(names.Unit(s.Unit))
			if sc.label(&m, e.rules, source, e.fixed, names.StatPart(name, part), append(own[:len(own):len(own)], more...)) {
				sc.tables[s.Table] = append(sc.tables[s.Table], m)
			}
		}
		switch s.Kind {
		case reader.Counter:
			add(metric{typ: typeCounter}, "")
		case reader.Stat:
			add(metric{typ: typeGauge}, "")
			add(metric{part: partMin, typ: typeGauge}, names.Min)
			add(metric{part: partMax, typ: typeGauge}, names.Max)
			sum := metric{part: partSum, typ: typeGauge}
			if s.NonNegative {
				sum.typ = typeCounter
			}
			add(sum, names.Sum)
			add(metric{part: partCount, typ: typeCounter}, names.Count)
		case reader.Histogram:
			if !e.o.Classic {
				add(metric{part: partHistogram, typ: typeHistogram}, "")
				break
			}
			if !slices.Contains(sourceNames, labels.BucketLabel) { // else le is taken
				for k := range own {
					if own[k].Name == labels.BucketLabel {
						own[k].Name = names.Exported + labels.BucketLabel
					}
				}
				for k := range s.Buckets.Count + 2 {
					le := "+Inf"
					if k <= s.Buckets.Count { // a bucket's lower bound is the upper one of that before
						le = labels.FormatOpenMetricsFloat(reader.BucketRange{Scale: s.Buckets.Scale, Min: s.Buckets.Min + k}.ZeroThreshold())
					}
					add(metric{part: partBucket, typ: typeHistogram, bucket: int32(k) + 1}, "bucket", reader.Pair{Name: labels.BucketLabel, Value: le})
				}
			}
			add(metric{part: partSum, typ: typeHistogram}, names.Sum)
			add(metric{part: partCount, typ: typeHistogram}, names.Count)
		default:
			add(metric{typ: typeGauge}, "")
		}
	}
	return sc
}

// symbol is a string's number.
func (sc *schema) symbol(s string) uint32 {
	n, ok := sc.index[s]
	if !ok {
		n = uint32(len(sc.symbols))
		sc.symbols, sc.index[s] = append(sc.symbols, s), n
	}
	return n
}

// label gives a metric its labels, as the rules have them; false: they drop it.
func (sc *schema) label(m *metric, rules *relabel.Rules, source []label, fixed func(string) bool, name string, own []reader.Pair) bool {
	type item struct {
		label
		source int
	}
	items := make([]item, 0, len(source)+len(own)+1)
	if rules.Len() == 0 {
		items = append(items, item{label{model.MetricNameLabel, name}, -1})
		for _, p := range own {
			items = append(items, item{label{p.Name, p.Value}, -1})
		}
		for k, l := range source {
			items = append(items, item{l, k})
		}
	} else {
		// The rules see all labels; those of the source that they neither look at nor change are still its own afterwards.
		b := labels.NewBuilder(labels.EmptyLabels())
		b.Set(model.MetricNameLabel, name)
		for _, p := range own {
			b.Set(p.Name, p.Value)
		}
		for _, l := range source {
			b.Set(l.name, l.value)
		}
		if rules.Process(b) != relabel.Kept {
			return false
		}
		b.Labels().Range(func(l labels.Label) {
			k := slices.IndexFunc(source, func(s label) bool { return s.name == l.Name && !fixed(s.name) })
			items = append(items, item{label{strings.Clone(l.Name), strings.Clone(l.Value)}, k})
		})
	}
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.name, b.name) })
	m.labels = make([]int32, 0, 2*len(items))
	of := make([]label, 0, len(items))
	for _, it := range items {
		if it.source >= 0 {
			m.labels = append(m.labels, ^int32(it.source))
			continue
		}
		m.labels = append(m.labels, int32(sc.symbol(it.name)), int32(sc.symbol(it.value)))
		of = append(of, it.label)
	}
	m.hash = hash(of)
	return true
}

// targetInfo is a source's, nil if there is none, or rules drop it.
func (e *Encoder) targetInfo(src *export.Source) (*metric, *schema) {
	var own []reader.Pair
	for _, p := range names.TargetLabels(src.Labels, src.Attributes) {
		if p.Value != "" {
			own = append(own, p)
		}
	}
	if own == nil {
		return nil, nil
	}
	sc := &schema{symbols: []string{""}, index: map[string]uint32{"": 0}}
	m := &metric{part: partTarget, typ: typeGauge, help: sc.symbol(names.TargetInfoHelp)}
	if !sc.label(m, e.rules, nil, e.fixed, names.TargetInfo, own) {
		return nil, nil
	}
	return m, sc
}

func errOption(who, name, want, got string) error {
	return fmt.Errorf("shmts: %s %s: want %s, got %q", who, name, want, got)
}
