// Package archivetest is an archive in memory: the simplest thing that keeps FORMAT.md 19's promises, by
// brute force. Tests of what stands above the archive use it, and the real one is held against it.
package archivetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// Memory is an archive.Writer. Its zero value has no tiers: see New.
type Memory struct {
	mu        sync.RWMutex
	steps     []time.Duration
	tiers     [][]stored
	marks     []archive.Mark
	reuse     func(tier int, generation uint64)
	err       error
	evicted   []uint64
	exemplars []archive.Exemplars
	unions    map[string][]*reader.Series
}

type stored struct {
	at    archive.Mark
	block *archive.Block
}

var _ archive.Writer = (*Memory)(nil)

// New makes an archive with tiers of these steps, finest first.
func New(steps ...time.Duration) *Memory {
	n := len(steps)
	return &Memory{steps: steps, tiers: make([][]stored, n), marks: make([]archive.Mark, n), evicted: make([]uint64, n), unions: map[string][]*reader.Series{}}
}

// Stop has every Append fail until it is told nil.
func (m *Memory) Stop(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Evict forgets a tier's oldest n blocks. What OnReuse registered is called before.
func (m *Memory) Evict(tier, n int) {
	if m.reuse != nil {
		m.reuse(tier, 1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tiers[tier] = slices.Clone(m.tiers[tier][n:])
	m.evicted[tier]++
}

// Tables of cells and times, which their maker may use again, are copied; sources and schemas are not changed by anyone.
func copyBlock(b *archive.Block) *archive.Block {
	c := *b
	c.Members = slices.Clone(b.Members)
	c.Sources = slices.Clone(b.Sources)
	for i := range c.Sources {
		s := &c.Sources[i]
		s.Numbers, s.Times = slices.Clone(s.Numbers), slices.Clone(s.Times)
		s.Coverage, s.Starts = slices.Clone(s.Coverage), slices.Clone(s.Starts)
		s.Cells, s.Present = slices.Clone(s.Cells), slices.Clone(s.Present)
		for f := range s.Cells {
			s.Cells[f] = slices.Clone(s.Cells[f])
		}
		for f := range s.Present {
			s.Present[f] = slices.Clone(s.Present[f])
		}
	}
	return &c
}

// check says what is wrong with a block, as nothing else would before it is read.
func check(b *archive.Block) error {
	fields := 0
	for _, s := range b.Schema.Series {
		fields += len(archive.Fields(s.Kind, b.Folded))
	}
	for _, s := range b.Sources {
		n := len(s.Times)
		if n == 0 || len(s.Numbers) != n || b.Folded && len(s.Coverage) != n || !b.Folded && s.Coverage != nil {
			return fmt.Errorf("shmts: archivetest: want as many numbers (and coverage, if folded) as the %d times, got %d and %d", n, len(s.Numbers), len(s.Coverage))
		}
		if len(s.Starts) != len(b.Schema.Series) || len(s.Cells) != fields || s.Present != nil && len(s.Present) != fields {
			return fmt.Errorf("shmts: archivetest: want %d starts and %d fields, got %d and %d (present: %d)", len(b.Schema.Series), fields, len(s.Starts), len(s.Cells), len(s.Present))
		}
		f := 0
		for _, sr := range b.Schema.Series {
			for _, field := range archive.Fields(sr.Kind, b.Folded) {
				want := n
				if field == archive.Hist {
					want = n * (sr.Buckets.Count + 3)
				}
				if len(s.Cells[f]) != want || s.Present != nil && s.Present[f] != nil && len(s.Present[f]) != n {
					return fmt.Errorf("shmts: archivetest: field %d of %s: want %d cells, got %d", field, sr.Name, want, len(s.Cells[f]))
				}
				f++
			}
		}
		if !b.Folded && s.Base != s.Numbers[n-1] {
			return fmt.Errorf("shmts: archivetest: want base %d of rows that are not folded, got %d", s.Numbers[n-1], s.Base)
		}
	}
	return nil
}

// Append implements archive.Writer.
func (m *Memory) Append(tier int, blocks ...*archive.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return fmt.Errorf("%w: %w", archive.ErrStopped, m.err)
	}
	for _, b := range blocks {
		if err := check(b); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		m.tiers[tier] = append(m.tiers[tier], stored{m.end(tier), copyBlock(b)})
	}
	return nil
}

func (m *Memory) end(tier int) archive.Mark {
	at := uint64(64)
	if n := len(m.tiers[tier]); n > 0 {
		at = m.tiers[tier][n-1].at.Offset + 8
	}
	return archive.Mark{Generation: 1, Offset: at}
}

// End implements archive.Writer.
func (m *Memory) End(tier int) archive.Mark {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.end(tier)
}

// Marked implements archive.Writer.
func (m *Memory) Marked(tier int) (archive.Mark, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.marks[tier], m.marks[tier].Generation > 0
}

// SetMark implements archive.Writer.
func (m *Memory) SetMark(tier int, at archive.Mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return fmt.Errorf("%w: %w", archive.ErrStopped, m.err)
	}
	m.marks[tier] = at
	return nil
}

// OnReuse implements archive.Writer. Evict calls f.
func (m *Memory) OnReuse(f func(tier int, generation uint64)) { m.reuse = f }

// Sync implements archive.Writer.
func (m *Memory) Sync() error { return m.Err() }

// Err implements archive.Writer.
func (m *Memory) Err() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.err
}

// Mend implements archive.Writer: it goes well once Stop was told nil.
func (m *Memory) Mend() error { return m.Err() }

// Close implements archive.Reader.
func (m *Memory) Close() error { return nil }

// ID implements archive.Reader.
func (m *Memory) ID() [16]byte { return [16]byte{1} }

// Tiers implements archive.Reader.
func (m *Memory) Tiers() []archive.Tier {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]archive.Tier, len(m.steps))
	for i, step := range m.steps {
		t := archive.Tier{Step: step, Extents: 16, Used: 1, Generation: 1, Blocks: len(m.tiers[i]), Evicted: m.evicted[i]}
		for _, s := range m.tiers[i] {
			for _, r := range s.block.Sources {
				for _, ms := range r.Times {
					if t.Newest == 0 || ms > t.Newest {
						t.Newest = ms
					}
					if t.Oldest == 0 || ms < t.Oldest {
						t.Oldest = ms
					}
				}
			}
			t.Sources += len(s.block.Sources)
		}
		out[i] = t
	}
	return out
}

// part is a source's rows in a block.
type part struct {
	tier  int
	block *archive.Block
	rows  *archive.Rows
}

func (m *Memory) collect(tiers []int, want func(*archive.Block, *archive.Rows) bool) []*archive.Incarnation {
	byKey := map[archive.Key][]part{}
	for tier := range m.tiers {
		if tiers != nil && !slices.Contains(tiers, tier) {
			continue
		}
		for _, s := range m.tiers[tier] {
			for i := range s.block.Sources {
				if r := &s.block.Sources[i]; want(s.block, r) {
					byKey[r.Source.Key] = append(byKey[r.Source.Key], part{tier, s.block, r})
				}
			}
		}
	}
	var out []*archive.Incarnation
	for _, parts := range byKey {
		out = append(out, m.incarnation(parts))
	}
	slices.SortFunc(out, func(a, b *archive.Incarnation) int {
		return cmp.Or(cmp.Compare(a.Birth, b.Birth), bytes.Compare(a.Segment[:], b.Segment[:]), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Copy, b.Copy))
	})
	return out
}

// Identity is what a series is known by.
func Identity(s *reader.Series) string {
	return fmt.Sprint(s.Table, s.Name, s.Labels, s.Kind, s.Number, s.Buckets)
}

func (m *Memory) incarnation(parts []part) *archive.Incarnation {
	inc := &archive.Incarnation{Source: parts[0].rows.Source}
	starts := map[string]int64{}
	var series []*reader.Series
	seen := map[string]bool{}
	var names strings.Builder
	for _, p := range slices.Backward(parts) { // the newest schema's order first
		for _, s := range p.block.Schema.Series {
			id := Identity(s)
			if !seen[id] {
				seen[id] = true
				series = append(series, s)
				names.WriteString(id + "\n")
			}
		}
		for i, s := range slices.Backward(p.block.Schema.Series) { // of one registered again the first time
			starts[Identity(s)] = p.rows.Starts[i]
		}
	}
	if kept := m.unions[names.String()]; kept != nil {
		series = kept
	} else {
		m.unions[names.String()] = series
	}
	inc.Series = series
	for _, s := range series {
		inc.Starts = append(inc.Starts, starts[Identity(s)])
	}
	for _, p := range parts {
		t := p.block.Schema.Table
		for len(inc.Tables) <= t {
			inc.Tables = append(inc.Tables, archive.Table{})
		}
		table := &inc.Tables[t]
		table.Name = p.block.Schema.Name
		i, found := slices.BinarySearchFunc(table.Tiers, p.tier, func(tt archive.TableTier, tier int) int { return cmp.Compare(tt.Tier, tier) })
		first, last := slices.Min(p.rows.Times), slices.Max(p.rows.Times)
		if !found {
			table.Tiers = slices.Insert(table.Tiers, i, archive.TableTier{Tier: p.tier, Step: p.block.Step, Folded: p.block.Folded, Oldest: first, Newest: last})
		}
		tt := &table.Tiers[i]
		tt.Oldest, tt.Newest = min(tt.Oldest, first), max(tt.Newest, last)
		if p.rows.Base > tt.Base {
			tt.Last, tt.Base = p.rows.Numbers[len(p.rows.Numbers)-1], p.rows.Base
		}
		if p.rows.Final || p.rows.Estimated {
			inc.Ended = max(inc.Ended, p.rows.Times[len(p.rows.Times)-1])
		}
	}
	return inc
}

// Select implements archive.Reader.
func (m *Memory) Select(ctx context.Context, s archive.Selection) ([]*archive.Incarnation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock() // of unions
	defer m.mu.Unlock()
	found := m.collect(s.Tiers, func(b *archive.Block, r *archive.Rows) bool {
		if slices.Min(r.Times) > s.To || slices.Max(r.Times) < s.From || s.UID != nil && !s.UID(r.Source.UID) || s.Source != nil && !s.Source(r.Source) || s.Schema != nil && !s.Schema(b.Schema) {
			return false
		}
		for _, mt := range s.Labels {
			for _, p := range r.Source.Labels {
				if p.Name == mt.Name && !mt.Match(p.Value) {
					return false
				}
			}
		}
		return true
	})
	if s.Limit > 0 && len(found) > s.Limit {
		return found[:s.Limit], fmt.Errorf("%w: want at most %d, got %d", archive.ErrTooMany, s.Limit, len(found))
	}
	return found, nil
}

// Find implements archive.Reader.
func (m *Memory) Find(segment [16]byte) ([]*archive.Incarnation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.collect(nil, func(_ *archive.Block, r *archive.Rows) bool { return r.Source.Segment == segment }), nil
}

// FindSince implements archive.Reader. Nothing is missing.
func (m *Memory) FindSince(segment [16]byte, tier int, from int64) ([]*archive.Incarnation, error) {
	return m.Find(segment)
}

// Read implements archive.Reader.
func (m *Memory) Read(inc *archive.Incarnation, table, tier int, from, to int64, columns []archive.Column) iter.Seq2[*archive.Chunk, error] {
	return func(yield func(*archive.Chunk, error) bool) {
		m.mu.RLock()
		all := slices.Clone(m.tiers[inc.Tables[table].Tiers[tier].Tier])
		m.mu.RUnlock()
		type rows struct {
			b    *archive.Block
			r    *archive.Rows
			rows []int // in the order of numbers, none twice
		}
		var parts []rows
		var last uint64            // number or base that was read
		hidden, hiddenIn := -1, -1 // what is up to there is hidden by a row before from
		for _, s := range all {
			for i := range s.block.Sources {
				r := &s.block.Sources[i]
				if r.Source.Key != inc.Key || s.block.Schema.Table != table || s.block.Folded && r.Base <= last {
					continue
				}
				p := rows{b: s.block, r: r}
				for k, no := range r.Numbers {
					if !s.block.Folded && no <= last {
						continue
					}
					if !s.block.Folded {
						last = no
					}
					p.rows = append(p.rows, k)
					if r.Times[k] < from {
						hidden, hiddenIn = k, len(parts)
					}
				}
				if s.block.Folded {
					last = r.Base
				}
				parts = append(parts, p)
			}
		}
		for i, p := range parts {
			shown := slices.DeleteFunc(p.rows, func(k int) bool {
				return i < hiddenIn || i == hiddenIn && k <= hidden || p.r.Times[k] < from || p.r.Times[k] > to
			})
			if len(shown) > 0 && !yield(chunk(p.b, p.r, shown, columns), nil) {
				return
			}
		}
	}
}

func chunk(b *archive.Block, r *archive.Rows, rows []int, columns []archive.Column) *archive.Chunk {
	end := rows[len(rows)-1] == len(r.Times)-1
	c := &archive.Chunk{Folded: b.Folded, Copied: r.Copied, Final: r.Final && end, Estimated: r.Estimated && end, Base: r.Base}
	for _, k := range rows {
		c.Numbers, c.Times = append(c.Numbers, r.Numbers[k]), append(c.Times, r.Times[k])
		if b.Folded {
			c.Coverage = append(c.Coverage, r.Coverage[k])
		}
	}
	for _, col := range columns {
		cells, present := column(b, r, rows, col)
		c.Cells, c.Present = append(c.Cells, cells), append(c.Present, present)
	}
	return c
}

func column(b *archive.Block, r *archive.Rows, rows []int, col archive.Column) (cells []uint64, present []bool) {
	id, f := Identity(col.Series), 0
	for _, s := range b.Schema.Series {
		fields := archive.Fields(s.Kind, b.Folded)
		f += len(fields)
		at := slices.Index(fields, col.Field)
		if one := s.Kind == reader.Gauge && !b.Folded; at < 0 && one && col.Field != archive.Hist {
			at = 0
		}
		if Identity(s) != id || at < 0 {
			continue
		}
		at += f - len(fields)
		width := 1
		if col.Field == archive.Hist {
			width = s.Buckets.Count + 3
		}
		if cells == nil {
			cells, present = make([]uint64, width*len(rows)), make([]bool, len(rows))
		}
		for i, k := range rows {
			if present[i] || r.Present != nil && r.Present[at] != nil && !r.Present[at][k] {
				continue
			}
			present[i] = true
			words := r.Cells[at][k*width : (k+1)*width]
			if s.Kind == reader.Gauge && !b.Folded {
				words = []uint64{gauge(s, col.Field, words[0])}
			}
			copy(cells[i*width:], words)
		}
	}
	if cells == nil {
		present = make([]bool, len(rows))
	}
	return cells, present
}
