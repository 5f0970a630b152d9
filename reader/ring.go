package reader

import (
	"sync"

	"github.com/shmts/shmts/layout"
)

// batchWords is how much of a ring one load brings, at most and if it is more than a row. Beyond this the
// copy costs so much more than the call that a larger one saves nothing.
const batchWords = 64 << 10 / 8

// A ring reads the rows of one tier, for one goroutine. Of a mapping it takes row by row. With pread, where a
// system call costs as much as the copying of some ten rows of a hundred cells, it takes many at
// once: slots that lie side by side come in one call, and those behind the ring's end in a second. Each
// row is proven by its own checksum, whatever it came with.
type ring struct {
	g           *Segment
	v           view
	table, tier int
	t           *layout.Tier
	id          layout.RowIdentity
	cells       int    // capacity of a row
	stride      int    // words from row to row
	batch       int    // rows that one load may bring
	limit       uint64 // of those, as many as whoever asked may need; 0: no limit

	sc       *scratch
	buf      []uint64 // of sc
	first, n uint64   // rows first to first+n-1 are in buf as they were copied, stride apart
}

// open begins the use of a tier's ring, until done.
func (r *ring) open(g *Segment, table, tier int) error {
	v, err := g.win.use()
	if err != nil {
		return err
	}
	t := &g.h.Tables[table]
	*r = ring{g: g, v: v, table: table, tier: tier, t: &t.Tier[tier], id: g.h.RowIdentity(table, tier), cells: int(t.RowCells),
		batch: 1, sc: takeScratch()}
	r.stride = int(r.t.RowStride / 8)
	if v.w.words == nil && r.stride < 2*(layout.RowWords+r.cells) { // what lies between rows would be copied too
		r.batch = max(1, min(batchWords/r.stride, int(r.t.Rows)))
	}
	return nil
}

func (r *ring) done() {
	r.sc.give()
	r.v.done()
}

// load copies rows from to last, at most batch of them. Nothing is proven yet.
func (r *ring) load(from, last uint64) error {
	n := min(last-from+1, uint64(r.batch))
	buf := r.sc.words((int(n)-1)*r.stride + layout.RowWords + r.cells)
	r.buf, r.first, r.n = buf, from, 0
	side := min(n, uint64(r.t.Rows)-r.t.Slot(from)) // that many lie side by side
	here := buf
	if side < n {
		here = buf[:int(side)*r.stride]
		if err := pread(r.v.fd, layout.Bytes(buf[len(here):]), int64(r.t.RowOffset(from+side))); err != nil {
			return err
		}
	}
	if err := pread(r.v.fd, layout.Bytes(here), int64(r.t.RowOffset(from))); err != nil {
		return err
	}
	r.n = n
	return nil
}

// row answers row n; of those up to last it may load more. The row is valid until the next call.
func (r *ring) row(n, last uint64) (*Row, layout.Verdict, error) {
	var h layout.RowHeader
	var cells []uint64
	verdict := layout.RowBad
	switch {
	case n-r.first < r.n:
	case r.batch > 1 && n < last:
		if r.limit > 0 {
			last = min(last, n+r.limit-1)
		}
		if err := r.load(n, last); err != nil {
			return nil, verdict, err
		}
	default: // in place, or alone
		r.buf, r.first, r.n = r.sc.words(layout.RowWords+r.cells), n, 0
	}
	slot := r.buf[int(n-r.first)*r.stride:][:layout.RowWords+r.cells]
	if r.n > 0 {
		h, cells, verdict = layout.DecodeRow(slot, r.id, n)
	}
	if verdict == layout.RowBad { // not read yet, or torn by the copy, perhaps
		var err error
		if h, cells, verdict, err = r.v.row(r.t, r.id, n, slot); err != nil {
			return nil, verdict, err
		}
	}
	if verdict != layout.RowOK {
		return nil, verdict, nil
	}
	r.sc.row.fill(r.table, r.tier, &h, cells)
	return &r.sc.row, verdict, nil
}

// each yields rows from to last, those that are valid; false if whoever asked has enough.
func (r *ring) each(from, last uint64, yield func(*Row) bool) bool {
	for n := from; n <= last; n++ {
		row, verdict, err := r.row(n, last)
		switch {
		case err != nil: // the file is not what it was: Refresh will say so
			r.g.skips.add(r.g, r.table, r.tier, n)
			return true
		case row != nil:
			if !yield(row) {
				return false
			}
		case verdict != layout.RowOther: // that one was overwritten since: the ring went round
			r.g.skips.add(r.g, r.table, r.tier, n)
		}
	}
	return true
}

// skips counts the rows that were not served, each once however often it is asked for. What it keeps for that is
// a bit for each slot of a ring in which there was one.
type skips struct {
	mu    sync.Mutex
	total uint64
	rings []*skipped // by table and tier
}

// skipped are the rows counted of one ring, among the newest as many as it has slots.
type skipped struct {
	newest uint64 // number of the newest one
	bits   []uint64
}

func (s *skips) add(g *Segment, table, tier int, n uint64) {
	t := &g.h.Tables[table].Tier[tier]
	rows := uint64(t.Rows)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rings == nil {
		s.rings = make([]*skipped, layout.MaxTables*layout.MaxTiers)
	}
	k := s.rings[table*layout.MaxTiers+tier]
	if k == nil {
		k = &skipped{bits: make([]uint64, (rows+63)/64)}
		s.rings[table*layout.MaxTiers+tier] = k
	}
	if n > k.newest {
		if n-k.newest >= rows {
			clear(k.bits)
		} else {
			for i := k.newest + 1; i <= n; i++ {
				k.bits[t.Slot(i)/64] &^= 1 << (t.Slot(i) % 64)
			}
		}
		k.newest = n
	}
	word, bit := &k.bits[t.Slot(n)/64], uint64(1)<<(t.Slot(n)%64)
	if k.newest-n >= rows || *word&bit != 0 {
		return // of a round that is over, or counted
	}
	*word |= bit
	s.total++
}

func (s *skips) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
