package forecast

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// Extents in which costs are measured: as large as there are.
const (
	largest  = 16 << 20
	variants = 12 // sources that are drawn; the others of a block are the same again
)

// meter measures what blocks take by writing some.
type meter struct {
	l     *Load
	step  time.Duration
	fixed float64 // bytes of an extent that holds a mark alone
	made  int     // sources
	ids   *rand.Rand
}

func newMeter(l *Load, step time.Duration) (*meter, error) {
	m := &meter{l: l, step: step, ids: rand.New(rand.NewPCG(1, 2))}
	a, err := m.open()
	if err != nil {
		return nil, err
	}
	m.fixed = taken(a)
	return m, a.Close()
}

// open makes an archive of one tier, whose open extent holds a mark as most do.
func (m *meter) open() (*archive.Archive, error) {
	a, err := archive.Open(archive.Options{Dir: "forecast", Files: newFiles(), ExtentSize: largest,
		Tiers: []archive.TierOptions{{Step: m.step, Budget: 2*largest + 4096}}})
	if err != nil {
		return nil, err
	}
	return a, a.SetMark(0, archive.Mark{Generation: 1, Offset: 64})
}

func taken(a *archive.Archive) float64 { return float64(a.Tiers()[0].Bytes) }

// measure finds out what a stream's blocks take. Those that are too large for an extent are split, as the archiver does.
func (m *meter) measure(s *stream, size int64) error {
	schema, err := s.table.schema(s.number)
	if err != nil {
		return err
	}
	for {
		if err := m.write(s, schema); err != nil {
			return err
		}
		if m.fixed+s.cost.schema+s.cost.source*float64(s.sources)+s.cost.block <= float64(size) {
			return nil
		}
		switch {
		case s.sources > 1:
			s.sources = (s.sources + 1) / 2
		case s.rows > 1:
			s.perSecond *= float64(s.rows) / float64((s.rows+1)/2)
			s.rows = (s.rows + 1) / 2
		default:
			return fmt.Errorf("shmts: forecast: tier %v: %w: want at most %d bytes for a row, got %.0f", m.step, archive.ErrTooLarge, size, s.cost.block)
		}
	}
}

// write writes blocks of a stream, and sees what each adds.
func (m *meter) write(s *stream, schema *archive.Schema) error {
	a, err := m.open()
	if err != nil {
		return err
	}
	defer a.Close()
	rows := make([]drawn, variants)
	for i := range rows {
		rows[i] = m.l.draw(s, schema, uint64(i))
	}
	first, second := m.block(s, schema, rows), m.block(s, schema, rows)
	var at [4]float64
	at[0] = taken(a)
	for i, b := range []*archive.Block{first, first, second} { // schema, sources and rows; rows; sources and rows
		if err := a.Append(0, b); err != nil {
			return err
		}
		at[i+1] = taken(a)
	}
	s.cost.block = at[2] - at[1]
	s.cost.source = (at[3] - at[2] - s.cost.block) / float64(s.sources)
	s.cost.schema = at[1] - at[0] - (at[3] - at[2])
	return nil
}

func (m *meter) block(s *stream, schema *archive.Schema, from []drawn) *archive.Block {
	b := &archive.Block{Schema: schema, Step: s.step, Folded: s.folded}
	const birth = 1_700_000_000_000 // ms
	for i := range s.sources {
		d := from[i%len(from)]
		rows := archive.Rows{Source: m.source(birth), Cells: d.cells, Present: d.present, Starts: make([]int64, len(schema.Series))}
		at, no := birth+int64(m.made%977), uint64(m.made%100_000)
		for k := range s.rows {
			no++
			rows.Numbers = append(rows.Numbers, no)
			rows.Times = append(rows.Times, at+int64(k+1)*s.step.Milliseconds()+int64(m.ids.IntN(2))) // ticks come within a ms of each other
			if s.folded {
				rows.Coverage = append(rows.Coverage, uint64(s.covers))
			}
		}
		rows.Base = no
		if s.folded {
			rows.Base = no * uint64(s.covers)
		}
		for k := range rows.Starts {
			rows.Starts[k] = birth + int64(k/10)
		}
		b.Sources = append(b.Sources, rows)
	}
	return b
}

// source makes one that there was not before.
func (m *meter) source(birth int64) *archive.Source {
	s := &archive.Source{Birth: birth * 1e6, UID: 1000, Inode: uint64(m.made)}
	for i := range s.Segment {
		s.Segment[i], s.Group[i] = byte(m.ids.Uint32()), byte(m.ids.Uint32())
	}
	// As long as it was given, and another one each time.
	n := strconv.Itoa(m.made)
	instance := m.l.Instance + strings.Repeat("0", max(0, len(n)-len(m.l.Instance)))
	s.Labels = append(slices.Clone(m.l.Labels), reader.Pair{Name: "instance", Value: instance[:len(instance)-len(n)] + n}, reader.Pair{Name: "job", Value: m.l.Job})
	slices.SortFunc(s.Labels, func(a, b reader.Pair) int { return strings.Compare(a.Name, b.Name) })
	m.made++
	return s
}

// extentsOf are the extents that a tier of a budget is made of.
func extentsOf(step time.Duration, budget int64) (size int64, n int, err error) {
	a, err := archive.Open(archive.Options{Dir: "forecast", Files: newFiles(), Tiers: []archive.TierOptions{{Step: step, Budget: budget}}})
	if err != nil {
		return 0, 0, err
	}
	t := a.Tiers()[0]
	return t.ExtentSize, t.Extents, a.Close()
}
