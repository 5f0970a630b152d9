package reader

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/layout"
)

// Series is one series of a segment. It never changes: once it is retired,
// Segment.Series has another in its place that says so.
type Series struct {
	*Definition
	Start   int64 // unix ns: when it was registered, with every additive value 0
	Retired bool

	index, state                  uint32 // of its descriptor
	rowCell, laneCell, sharedCell uint32
	bornRow                       uint64
	retiredRow                    *atomic.Uint64 // one for all that stand for this descriptor and generation
	text                          *text          // that Definition is of; nil: it is nobody's
}

// Definition is what a series is. It never changes, and equal ones of all segments of a store are one: a thousand segments of one
// program have the same hundred series.
type Definition struct {
	Name        string
	Unit        string // UCUM
	Help        string
	Labels      []Pair // the series' own, sorted; the source's are the segment's
	Kind        Kind
	Number      Number
	NonNegative bool // a stat's sum never falls
	Table       int
	Buckets     BucketRange // histograms
}

// BucketRange is a histogram's shape: see layout.BucketRange.
type BucketRange = layout.BucketRange

// Descriptor is the number of the series' descriptor in its segment, and the generation of that: together they
// name the series for as long as the segment lives. FORMAT.md 6.1.
func (s *Series) Descriptor() (index int, generation uint32) { return int(s.index), s.state >> 8 }

func (s *Series) has(labels []Pair) bool {
	for _, l := range labels {
		if layout.Value(s.Labels, l.Name) != l.Value {
			return false
		}
	}
	return true
}

// cells is how many cells the series has in a row.
func (s *Series) cells() int { return s.Kind.Cells(s.Buckets.Count).Row }

// in tells whether a row holds the series. FORMAT.md 6.1.
func (s *Series) in(baseRow uint64, cells int) bool {
	if baseRow < s.bornRow || int(s.rowCell)+s.cells() > cells {
		return false
	}
	if s.retiredRow == nil {
		return true
	}
	r := s.retiredRow.Load()
	return r == 0 || baseRow < r
}

// descriptor is what layout's arithmetic on cells asks for.
func (s *Series) descriptor() layout.Series {
	d := layout.Series{Kind: s.Kind, Number: s.Number, Buckets: uint16(s.Buckets.Count),
		RowCell: s.rowCell, LaneCell: s.laneCell, SharedCell: s.sharedCell}
	if s.NonNegative {
		d.Flags = layout.FlagNonNegative
	}
	return d
}

// descriptors is what a segment's descriptors said when they were read last.
type descriptors struct {
	read    bool
	used    uint32
	changes [layout.MaxTables]uint64
	at      []descriptor
	cost    int64 // bytes held for them, of the segment's budget

	granted uint32 // descriptors that there is room for

	// Where the user's budget is spent.
	skipped uint32 // descriptors ever beyond those that were to be had
	short   bool   // strings of some were not
	room    uint64 // the ledger's, when that was so last
	next    int64  // mono ns: when they are asked for again
	wait    time.Duration
}

type descriptor struct {
	state   uint32
	skipped bool
	short   bool // skipped for want of room, and counted
	s       *Series
}

func (d *descriptors) release(in *interner) {
	for i := range d.at {
		if s := d.at[i].s; s != nil {
			in.drop(s.text)
		}
		d.at[i] = descriptor{}
	}
}

const (
	seriesChunk = 512       // descriptors copied at a time
	heapChunk   = 256 << 10 // bytes of strings copied at a time, where they lie together
	seriesCost  = 256       // what a series takes beside its strings, about
	labelCost   = 32        // and a label
)

// readSeries brings known and the list of series up to date with the descriptors, if series_used or a
// table's changes moved. g.stirred tells then whether the list is another. g.mu is held.
func (g *Segment) readSeries(v *view) error {
	k := &g.known
	used := g.allowed(min(uint32(g.raw[layout.CtlUsed]), g.h.Series.Count))
	if err := g.claim.failed(); err != nil {
		return err
	}
	var changes [layout.MaxTables]uint64
	for t := range g.tables {
		changes[t] = g.tableWord(t, layout.TctlChanges)
	}
	if k.read && used == k.used && changes == k.changes {
		return nil
	}
	changed := false
	// series_used never falls. Where it does all the same, what is beyond is as good as gone.
	for i := int(used); i < len(k.at); i++ {
		g.forget(&k.at[i])
		changed = true
	}
	if int(used) <= len(k.at) {
		k.at = k.at[:used]
	} else {
		k.at = slices.Grow(k.at, int(used)-len(k.at))[:used]
	}
	sc := takeScratch()
	defer sc.give()
	for first := 0; first < int(used); first += seriesChunk {
		some, err := g.readDescriptors(v, sc, first, min(seriesChunk, int(used)-first))
		if err != nil {
			return err
		}
		changed = changed || some
	}
	k.read, k.used, k.changes = true, used, changes
	if changed {
		list := make([]*Series, 0, len(k.at))
		for i := range k.at {
			if s := k.at[i].s; s != nil {
				list = append(list, s)
			}
		}
		g.series.Store(&list)
		g.stirred = true
	}
	return nil
}

// allowed is how many of n descriptors there is room for. The others are counted as skipped, once each.
func (g *Segment) allowed(n uint32) uint32 {
	if n <= g.known.granted {
		return n
	}
	got := g.claim.series(n)
	g.known.granted = got
	if got < n {
		if more := n - max(got, min(g.known.skipped, n)); more > 0 {
			g.skippedSeries.Add(uint64(more))
			g.budgetSeries.Add(uint64(more))
			g.claim.skip(more)
		}
		g.known.skipped = max(g.known.skipped, n)
	}
	return min(got, n)
}

// reconsider sees to it that series whose strings found no room are looked at again, if there is more by now.
func (g *Segment) reconsider(mono int64) {
	k := &g.known
	if !k.short || mono < k.next {
		return
	}
	room := g.claim.l.room()
	if room == k.room {
		return
	}
	for i := range k.at {
		if k.at[i].short {
			k.at[i].skipped = false
		}
	}
	k.short, k.read, k.room = false, false, room
	k.wait = min(max(2*k.wait, firstWait), longWait)
	k.next = mono + int64(k.wait)
}

func (g *Segment) forget(d *descriptor) {
	if d.s != nil {
		g.known.cost -= d.s.text.cost
		g.claim.give(ofLabels, d.s.text.length())
		g.strings.drop(d.s.text)
	}
	*d = descriptor{}
}

// readDescriptors reads n of them from first on. Each is accepted only if its state was the same
// before and after its strings were copied: FORMAT.md 10.2.
func (g *Segment) readDescriptors(v *view, sc *scratch, first, n int) (changed bool, err error) {
	var images, again [seriesChunk]layout.Series
	if err := g.copyDescriptors(v, sc, first, images[:n]); err != nil {
		return false, err
	}
	var todo []int
	low, high := ^uint64(0), uint64(0)
	for i := range images[:n] {
		d, image := &g.known.at[first+i], &images[i]
		if image.State == d.state && (d.s != nil || d.skipped || image.Life() < layout.SeriesLive) {
			continue
		}
		if d.s != nil && image.Generation() == d.state>>8 && image.Life() == layout.SeriesRetired {
			d.state = image.State
			d.s.retiredRow.Store(max(image.RetiredRow, 1)) // 0 would mean that it is live
			s := *d.s
			s.Retired, s.state = true, image.State
			d.s = &s
			changed = true
			continue
		}
		if d.s != nil {
			// The next owner's rows are not this one's, whoever still holds the old series. That it was retired
			// may have gone by unseen; it was not there any more when the next was born.
			d.s.retiredRow.CompareAndSwap(0, max(image.BornRow, 1))
			changed = true
		}
		counted := d.short && d.state == image.State
		g.forget(d)
		d.state, d.short = image.State, counted
		switch {
		case image.Life() < layout.SeriesLive:
			continue
		case image.Life() > layout.SeriesRetired || image.Check(g.h, first+i) != nil:
			g.skip(d)
			continue
		}
		todo = append(todo, i)
		low, high = min(low, uint64(image.Strings)), max(high, uint64(image.Strings)+uint64(image.StringsLength()))
	}
	for range tries {
		if len(todo) == 0 {
			return changed, nil
		}
		if high-low <= heapChunk {
			b, err := g.copyHeap(v, sc, low, high-low)
			if err != nil {
				return false, err
			}
			for _, i := range todo {
				g.accept(first+i, &images[i], b[uint64(images[i].Strings)-low:][:images[i].StringsLength()])
			}
		} else {
			for _, i := range todo {
				b, err := g.copyHeap(v, sc, uint64(images[i].Strings), uint64(images[i].StringsLength()))
				if err != nil {
					return false, err
				}
				g.accept(first+i, &images[i], b)
			}
		}
		if err := g.claim.failed(); err != nil {
			return false, err
		}
		if err := g.copyDescriptors(v, sc, first, again[:n]); err != nil {
			return false, err
		}
		left := todo[:0]
		low, high = ^uint64(0), 0
		for _, i := range todo {
			d := &g.known.at[first+i]
			if again[i].State == images[i].State {
				changed = changed || d.s != nil
				continue
			}
			g.forget(d)
			images[i] = again[i]
			d.state = images[i].State
			if images[i].Life() < layout.SeriesLive {
				continue
			}
			if images[i].Life() > layout.SeriesRetired || images[i].Check(g.h, first+i) != nil {
				g.skip(d)
				continue
			}
			low, high = min(low, uint64(images[i].Strings)), max(high, uint64(images[i].Strings)+uint64(images[i].StringsLength()))
			left = append(left, i)
		}
		todo = left
	}
	for _, i := range todo {
		g.forget(&g.known.at[first+i]) // looked at again when changes moves, as it just did
		g.skippedSeries.Add(1)
	}
	return changed, nil
}

func (g *Segment) skip(d *descriptor) {
	d.skipped = true
	g.skippedSeries.Add(1)
}

func (g *Segment) copyDescriptors(v *view, sc *scratch, first int, images []layout.Series) error {
	stride := uint64(g.h.Series.ElementSize)
	if stride != layout.SeriesSize {
		w := sc.words(layout.SeriesWords)
		for i := range images {
			if err := v.copy(w, g.h.Series.Offset+uint64(first+i)*stride); err != nil {
				return err
			}
			images[i] = *layout.View[layout.Series](w, 0)
		}
		return nil
	}
	w := sc.words(len(images) * layout.SeriesWords)
	if err := v.copy(w, g.h.Series.Offset+uint64(first)*stride); err != nil {
		return err
	}
	for i := range images {
		images[i] = *layout.View[layout.Series](w, uint64(i)*layout.SeriesSize)
	}
	return nil
}

// copyHeap copies n bytes of the heap from off on; whoever calls has held both against its length.
func (g *Segment) copyHeap(v *view, sc *scratch, off, n uint64) ([]byte, error) {
	at := g.h.Heap.Offset + off
	skew := at % 8
	w := sc.words(int((skew + n + 7) / 8))
	// The heap is followed by other sections, or by the padding to a page: the last word is there.
	if err := v.copy(w, at-skew); err != nil {
		return nil, err
	}
	return layout.Bytes(w)[skew:][:n], nil
}

// accept makes a series of a checked descriptor and its strings, b, or skips it.
func (g *Segment) accept(index int, image *layout.Series, b []byte) {
	d := &g.known.at[index]
	t := g.strings.take(b, image, index)
	if t == nil || g.known.cost+t.cost > g.budget {
		g.strings.drop(t)
		g.skip(d)
		return
	}
	if !g.claim.take(ofLabels, t.length()) {
		g.strings.drop(t)
		if d.skipped = true; !d.short {
			d.short = true
			g.skippedSeries.Add(1)
			g.budgetSeries.Add(1)
			g.claim.skip(1)
		}
		if !g.known.short {
			g.known.short, g.known.room = true, g.claim.l.room()
		}
		return
	}
	d.short = false
	g.known.cost += t.cost
	d.s = &Series{Definition: &t.Definition, Retired: image.Life() == layout.SeriesRetired, Start: image.BornUnix, index: uint32(index), state: image.State,
		rowCell: image.RowCell, laneCell: image.LaneCell, sharedCell: image.SharedCell,
		bornRow: image.BornRow, retiredRow: new(atomic.Uint64), text: t}
	if d.s.Retired {
		d.s.retiredRow.Store(max(image.RetiredRow, 1))
	}
}

// interner shares what equal series of all segments have in common. Several goroutines may use it.
type interner struct {
	mu sync.Mutex
	m  map[string]*text
}

// shapeSize is how many bytes of a text's key are in front of the strings.
const shapeSize = 16

// text is a series' definition, made of its strings as they lie in the heap.
type text struct {
	Definition
	blob string // with the shape in front: the key
	cost int64
	refs int
}

// length is how many bytes the strings have.
func (t *text) length() int64 { return int64(len(t.blob) - shapeSize) }

// shape is what a definition has beside its strings, and where those end.
func shape(image *layout.Series) (b [shapeSize]byte) {
	binary.LittleEndian.PutUint16(b[0:], image.NameLength)
	binary.LittleEndian.PutUint16(b[2:], image.UnitLength)
	binary.LittleEndian.PutUint16(b[4:], image.HelpLength)
	binary.LittleEndian.PutUint16(b[6:], image.Table)
	b[8], b[9], b[10], b[11] = byte(image.Kind), byte(image.Number), image.Flags&layout.FlagNonNegative, byte(image.Scale)
	binary.LittleEndian.PutUint16(b[12:], image.Buckets)
	binary.LittleEndian.PutUint16(b[14:], uint16(image.BucketMin))
	return b
}

// take answers the text of a checked descriptor's strings, nil if they are broken. drop gives it back.
func (in *interner) take(b []byte, image *layout.Series, index int) *text {
	in.mu.Lock()
	defer in.mu.Unlock()
	head := shape(image)
	var few [512]byte
	key := append(append(few[:0], head[:]...), b...)
	if t := in.m[string(key)]; t != nil {
		t.refs++
		return t
	}
	info, err := image.CutStrings(b, index)
	if err != nil {
		return nil
	}
	// One string holds them all: what was cut to be checked goes.
	t := &text{blob: string(key), refs: 1, cost: int64(len(b)) + seriesCost + labelCost*int64(len(info.Labels))}
	t.Kind, t.Number, t.NonNegative, t.Table = image.Kind, image.Number, image.Flags&layout.FlagNonNegative != 0, int(image.Table)
	if image.Kind == Histogram {
		t.Buckets = image.Range()
	}
	rest := t.blob[shapeSize:]
	cut := func(n int) string {
		s := rest[:n]
		rest = rest[n:]
		return s
	}
	t.Name, t.Unit, t.Help = cut(len(info.Name)), cut(len(info.Unit)), cut(len(info.Help))
	cut(2)
	t.Labels = info.Labels
	for len(rest) > 0 {
		n, m := int(rest[0])|int(rest[1])<<8, int(rest[2])|int(rest[3])<<8
		cut(4)
		name, value := cut(n), cut(m)
		for i := range t.Labels { // pairs of an empty value were dropped
			if t.Labels[i].Name == name {
				t.Labels[i] = Pair{Name: name, Value: value}
			}
		}
	}
	in.m[t.blob] = t
	return t
}

func (in *interner) drop(t *text) {
	if t == nil {
		return
	}
	in.mu.Lock()
	if t.refs--; t.refs == 0 {
		delete(in.m, t.blob)
	}
	in.mu.Unlock()
}
