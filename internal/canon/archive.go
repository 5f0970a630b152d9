package canon

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// Archive writes the canonical text of an archive's directory, as package archive reads it. One that FORMAT.md refuses gives an error
// and no text.
func Archive(out io.Writer, dir string) (err error) {
	a, err := archive.OpenReader(dir)
	if err != nil {
		return err
	}
	defer a.Close()
	d := &archiveDump{Writer: bufio.NewWriter(out), a: a, schemas: map[[16]byte]*archive.Schema{}, sources: map[archive.Key]*archive.Source{}}
	d.printf("archive %x", a.ID())
	if err := d.tiers(); err != nil {
		return err
	}
	exemplars, err := d.exemplars()
	if err != nil {
		return err
	}
	for _, hash := range slices.SortedFunc(maps.Keys(d.schemas), func(x, y [16]byte) int { return bytes.Compare(x[:], y[:]) }) {
		s := d.schemas[hash]
		d.printf("schema %x table=%d %s", s.Hash, s.Table, fixed([]byte(s.Name)))
		for i, sr := range s.Series {
			d.printf("series %x %d %s unit=%s help=%s flags=%d", s.Hash, i, seriesID(sr), text(sr.Unit), text(sr.Help), bit(sr.NonNegative))
		}
	}
	found, err := a.Select(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64})
	if err != nil {
		return err
	}
	for _, key := range slices.SortedFunc(maps.Keys(d.sources), compareKeys) {
		src := d.sources[key]
		d.printf("source %s group=%x boot=%x birth=%d inode=%d uid=%d ephemeral=%d", keyText(key), src.Group, src.Boot, src.Birth, src.Inode, src.UID, bit(src.Ephemeral))
		for _, p := range src.Labels {
			d.printf("label %s", pair(p))
		}
		for _, p := range src.Attributes {
			d.printf("attribute %s", pair(p))
		}
		for _, inc := range found {
			if inc.Key == key {
				if err := d.incarnation(inc); err != nil {
					return err
				}
			}
		}
		slices.SortStableFunc(exemplars[key], func(x, y archiveExemplar) int {
			return cmp.Or(cmp.Compare(x.table, y.table), cmp.Compare(x.number, y.number))
		})
		for _, x := range exemplars[key] {
			d.printf("%s", x.line)
		}
	}
	return d.Flush()
}

type archiveDump struct {
	*bufio.Writer
	a       *archive.Archive
	schemas map[[16]byte]*archive.Schema
	sources map[archive.Key]*archive.Source
}

// archiveExemplar is what the text says of one.
type archiveExemplar struct {
	table  int
	number uint64
	line   string
}

// exemplars are all that there are, by source.
func (d *archiveDump) exemplars() (map[archive.Key][]archiveExemplar, error) {
	all := map[archive.Key][]archiveExemplar{}
	for p, err := range d.a.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			return nil, err
		}
		d.schemas[p.Schema.Hash] = p.Schema
		if d.sources[p.Source.Key] == nil {
			d.sources[p.Source.Key] = p.Source
		}
		for i := range p.List {
			x := &p.List[i]
			all[p.Source.Key] = append(all[p.Source.Key], archiveExemplar{p.Schema.Table, x.Number, fmt.Sprintf("exemplar %d %d %s t=%d value=%s trace=%x span=%x",
				p.Schema.Table, x.Number, seriesID(p.Schema.Series[x.Series]), x.Time, number(layout.F64, math.Float64bits(x.Value)), x.TraceID, x.SpanID)})
		}
	}
	return all, nil
}

func (d *archiveDump) printf(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *archiveDump) tiers() error {
	for i, t := range d.a.Tiers() {
		d.printf("tier %d extent_size=%d extents=%d used=%d generation=%d", t.Step, t.ExtentSize, t.Extents, t.Used, t.Generation)
		if m, ok := d.a.Marked(i); ok {
			d.printf("mark %d generation=%d offset=%d", t.Step, m.Generation, m.Offset)
		}
		for b, err := range d.a.Blocks(i, archive.Mark{}) {
			if err != nil {
				return err
			}
			d.schemas[b.Schema.Hash] = b.Schema
			d.printf("block %d %d %d length=%d schema=%x step=%d folded=%d t_min=%d t_max=%d",
				t.Step, b.Generation, b.Offset, b.Length, b.Schema.Hash, b.Step, bit(b.Folded), b.From, b.To)
			for _, s := range b.Sources {
				if d.sources[s.Key] == nil {
					d.sources[s.Key] = s.Source
				}
				d.printf("part %s first=%d last=%d base=%d t=%d rows=%d copied=%d ended=%d", keyText(s.Key), s.First, s.Last, s.Base, s.Time, s.Rows, bit(s.Copied), bit(s.Ended))
			}
			for _, m := range b.Members {
				d.printf("member %s", keyText(m))
			}
		}
	}
	return nil
}

// incarnation says what one has, table by table and tier by tier.
func (d *archiveDump) incarnation(inc *archive.Incarnation) error {
	var starts []string
	for table := range inc.Tables {
		begin := len(starts)
		for i, s := range inc.Series {
			if s.Table == table {
				starts = append(starts, fmt.Sprintf("start %d %s %d", table, seriesID(s), inc.Starts[i]))
			}
		}
		slices.Sort(starts[begin:])
	}
	for _, s := range starts {
		d.printf("%s", s)
	}
	for table := range inc.Tables {
		var columns []archive.Column
		for _, s := range inc.Series {
			if s.Table != table {
				continue
			}
			for _, f := range archive.Fields(s.Kind, true) {
				columns = append(columns, archive.Column{Series: s, Field: f})
			}
		}
		for tier, t := range inc.Tables[table].Tiers {
			if err := d.rows(inc, table, tier, d.a.Tiers()[t.Tier].Step.Nanoseconds(), columns); err != nil {
				return err
			}
		}
	}
	return nil
}

// archiveRow is what the text says of one: its line without the last word, and its values.
type archiveRow struct {
	t      int64
	line   string
	values []string
}

func (d *archiveDump) rows(inc *archive.Incarnation, table, tier int, step int64, columns []archive.Column) error {
	var all []archiveRow
	for c, err := range d.a.Read(inc, table, tier, math.MinInt64, math.MaxInt64, columns) {
		if err != nil {
			return err
		}
		for i, no := range c.Numbers {
			r := archiveRow{t: c.Times[i], line: fmt.Sprintf("row %d %d %d t=%d", table, step, no, c.Times[i])}
			if c.Folded {
				r.line += fmt.Sprintf(" coverage=%d", c.Coverage[i])
			}
			end := i == len(c.Numbers)-1
			for _, flag := range []struct {
				set  bool
				word string
			}{{c.Final && end, " final"}, {c.Estimated && end, " estimated"}, {c.Copied, " copied"}} {
				if flag.set {
					r.line += flag.word
				}
			}
			r.values = rowValues(c, i, columns)
			all = append(all, r)
		}
	}
	hides := slices.Repeat([]bool{false}, len(all)) // FORMAT.md 19.3
	least := int64(math.MaxInt64)
	for i := len(all) - 1; i >= 0; i-- {
		hides[i] = i < len(all)-1 && all[i].t >= least
		least = min(least, all[i].t)
	}
	for i, r := range all {
		if hides[i] {
			r.line += " hidden"
		}
		d.printf("%s", r.line)
		for _, v := range r.values {
			d.printf("%s", v)
		}
	}
	return nil
}

// rowValues are the lines of a row's values, sorted.
func rowValues(c *archive.Chunk, row int, columns []archive.Column) (lines []string) {
	for len(columns) > 0 {
		s := columns[0].Series
		var words []string
		for columns, i := columns, 0; i < len(columns) && columns[i].Series == s; i++ {
			at := len(c.Cells) - len(columns) + i
			if c.Cells[at] == nil || c.Present[at] != nil && !c.Present[at][row] {
				continue
			}
			if w := fieldText(c, at, row, s, columns[i].Field); w != "" {
				words = append(words, w)
			}
		}
		if len(words) > 0 {
			lines = append(lines, "value "+seriesID(s)+" "+strings.Join(words, " "))
		}
		columns = columns[len(archive.Fields(s.Kind, true)):]
	}
	slices.Sort(lines)
	return lines
}

func fieldText(c *archive.Chunk, at, row int, s *reader.Series, f archive.Field) string {
	word := func(name string, n layout.Number) string { return name + "=" + number(n, c.Cells[at][row]) }
	switch {
	case f == archive.Hist:
		n := s.Buckets.Count + 3
		return value(&layout.SeriesInfo{Series: layout.Series{Kind: layout.Histogram, Number: s.Number, Buckets: uint16(s.Buckets.Count), BucketMin: int16(s.Buckets.Min)}},
			c.Cells[at][row*n:][:n])
	case s.Kind == reader.Stat && f == archive.Count:
		return word("count", layout.U64)
	case s.Kind == reader.Stat:
		return word(fieldNames[f], layout.F64)
	case s.Kind != reader.Gauge || !c.Folded: // rows that are not folded answer their value for all of a gauge's fields
		if f != archive.Last {
			return ""
		}
		return word("value", s.Number)
	case f == archive.Sum:
		return word("sum", layout.F64)
	case f == archive.Count:
		return word("count", layout.U64)
	}
	return word(fieldNames[f], s.Number)
}

var fieldNames = map[archive.Field]string{archive.Last: "last", archive.Min: "min", archive.Max: "max", archive.Sum: "sum"}

// seriesID is what a series is told from others by.
func seriesID(s *reader.Series) string {
	labels := make([]string, len(s.Labels))
	for i, p := range s.Labels {
		labels[i] = pair(p)
	}
	shape := ""
	if s.Kind == reader.Histogram {
		shape = fmt.Sprintf("[%d:%d:%d]", s.Buckets.Scale, s.Buckets.Min, s.Buckets.Count)
	}
	return fmt.Sprintf("%v %v %s{%s}%s", s.Kind, s.Number, text(s.Name), strings.Join(labels, ","), shape)
}

func keyText(k archive.Key) string { return fmt.Sprintf("%x/%d/%d", k.Segment, k.Epoch, k.Copy) }

func compareKeys(x, y archive.Key) int {
	return cmp.Or(bytes.Compare(x.Segment[:], y.Segment[:]), cmp.Compare(x.Epoch, y.Epoch), cmp.Compare(x.Copy, y.Copy))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
