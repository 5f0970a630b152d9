package writer

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// series is what every handle is made of.
type series struct {
	place   atomic.Pointer[place] // nil: records go nowhere
	offered offered

	w    *Writer
	t    *table // nil: never had cells
	info layout.SeriesInfo
	key  string

	handle      any // *Counter, ...
	owned       []ownedHandle
	retiredTick uint64
	cellsFree   bool

	fold [layout.MaxTiers - 1]extremes // of a stat, since the last row of each coarser tier
}

// SeriesOption says more about a series at its registration.
type SeriesOption func(*seriesOptions)

type seriesOptions struct {
	labels      []layout.Pair
	unit, help  string
	table       string
	nonNegative bool
	low, high   float64 // of a histogram; 0: the default range
	scale       int     // -1: the default
	err         error
}

// Label adds one label. An empty value means no label. The last of equal names counts.
func Label(name, value string) SeriesOption { return Labels(name, value) }

// Labels adds labels: name, value, name, value...
func Labels(namesAndValues ...string) SeriesOption {
	return func(o *seriesOptions) {
		if len(namesAndValues)%2 != 0 {
			o.err = fmt.Errorf("shmts: labels: want name, value, name, value..., got %d strings", len(namesAndValues))
			return
		}
	pairs:
		for i := 0; i < len(namesAndValues); i += 2 {
			p := layout.Pair{Name: namesAndValues[i], Value: namesAndValues[i+1]}
			for j := range o.labels {
				if o.labels[j].Name == p.Name {
					o.labels[j] = p
					continue pairs
				}
			}
			o.labels = append(o.labels, p)
		}
	}
}

// Unit is the series' unit in UCUM: "s", "By", "{packet}".
func Unit(ucum string) SeriesOption { return func(o *seriesOptions) { o.unit = ucum } }

// Help is one sentence for people.
func Help(text string) SeriesOption { return func(o *seriesOptions) { o.help = text } }

// InTable puts the series into the table of that name.
func InTable(name string) SeriesOption { return func(o *seriesOptions) { o.table = name } }

// NonNegative promises that a stat records no negative value, so that its sum is
// monotonic; one that comes is rejected and counted. For other kinds it means nothing.
func NonNegative() SeriesOption { return func(o *seriesOptions) { o.nonNegative = true } }

// Buckets is the range of a histogram, 0 < low < high: it is cut into base-2 exponential
// buckets (FORMAT.md 9), at most 2,048. What is not above low's bucket is counted in the zero
// bucket, what is above high's in the bucket above. Default: 0.001 to 1, and for an
// IntHistogram 1 to 881,743 at scale 2; 80 buckets each.
func Buckets(low, high float64) SeriesOption {
	return func(o *seriesOptions) {
		if !(low > 0) || !(high > low) {
			o.err = fmt.Errorf("shmts: buckets: want 0 < low < high, got %g and %g", low, high)
		}
		o.low, o.high = low, high
	}
}

// Scale is a histogram's resolution, 0 to 6: 2^scale buckets to a doubling. At 3, the
// default, a value is at most 4.4 % off its bucket's geometric middle.
func Scale(scale int) SeriesOption {
	return func(o *seriesOptions) {
		if scale < 0 || scale > layout.MaxScale {
			o.err = fmt.Errorf("shmts: scale: want 0 to %d, got %d", layout.MaxScale, scale)
		}
		o.scale = scale
	}
}

// describe makes a series' descriptor, and its strings as they will lie in the heap.
func (w *Writer) describe(kind layout.Kind, number layout.Number, name string, options []SeriesOption) (*series, []byte, error) {
	o := seriesOptions{scale: -1}
	for _, option := range options {
		if option != nil {
			option(&o)
		}
	}
	s := &series{w: w, info: layout.SeriesInfo{Name: name, Unit: o.unit, Help: o.help, Labels: o.labels}}
	s.info.Kind, s.info.Number = kind, number
	if o.err != nil {
		return s, nil, fmt.Errorf("%w (series %q)", o.err, name)
	}
	if kind == layout.Stat && o.nonNegative {
		s.info.Flags |= layout.FlagNonNegative
	}
	if kind == layout.Histogram {
		r, err := o.bucketRange(number)
		if err != nil {
			return s, nil, fmt.Errorf("%w (series %q)", err, name)
		}
		s.info.Scale, s.info.BucketMin, s.info.Buckets = int8(r.Scale), int16(r.Min), uint16(r.Count)
	}
	text, err := s.info.AppendStrings(nil)
	if err != nil {
		return s, nil, fmt.Errorf("%w (series %q)", err, name)
	}
	// Name and labels, sorted and in the format's own form, without unit and help.
	s.key = name + string(text[len(text)-int(s.info.LabelsLength):])
	n, err := w.tableFor(kind, o.table)
	if err != nil {
		return s, nil, fmt.Errorf("%w (series %q)", err, name)
	}
	s.info.Table = uint16(n)
	return s, text, nil
}

func (o *seriesOptions) bucketRange(number layout.Number) (layout.BucketRange, error) {
	scale, low, high := o.scale, o.low, o.high
	if low == 0 && number == layout.U64 {
		low, high = 0.9, 881743
		if scale < 0 {
			scale = 2
		}
	}
	if low == 0 {
		low, high = 0.001, 1
	}
	if scale < 0 {
		scale = 3
	}
	return layout.NewBucketRange(scale, low, high)
}

// tableFor is the table that a series of that kind goes to.
func (w *Writer) tableFor(kind layout.Kind, name string) (int, error) {
	want := name
	if want == "" && kind == layout.Histogram {
		want = "histograms"
	}
	for i := range w.opts.Tables {
		if w.opts.Tables[i].Name == want {
			return i, nil
		}
	}
	if name == "" {
		return 0, nil
	}
	var have []string
	for i := range w.opts.Tables {
		have = append(have, w.opts.Tables[i].Name)
	}
	return 0, fmt.Errorf("shmts: want one of the tables %s, got %q", strings.Join(have, ", "), name)
}

// same tells whether two series of one name and labels are the same one: FORMAT.md 10.2.
func (s *series) same(other *series) bool {
	a, b := &s.info, &other.info
	return a.Kind == b.Kind && a.Number == b.Number && a.Scale == b.Scale && a.Buckets == b.Buckets &&
		a.BucketMin == b.BucketMin && a.Flags == b.Flags
}

// register answers the handle of a series: that of a live one that is the same, or a new one,
// made by bind. The handle of a series that could not be had records nowhere.
func register[H any](w *Writer, kind layout.Kind, number layout.Number, name string, options []SeriesOption, bind func(*series) *H) *H {
	if w == nil {
		return bind(&series{info: layout.SeriesInfo{Series: layout.Series{Kind: kind, Number: number}}})
	}
	s, text, err := w.describe(kind, number, name, options)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		if known := w.byKey[s.key]; known != nil {
			if known.same(s) {
				return known.handle.(*H)
			}
			err = fmt.Errorf("shmts: series %q: want the kind and shape of its first registration, %v %v (%d buckets of scale %d from %d), got %v %v (%d of %d from %d)",
				name, known.info.Number, known.info.Kind, known.info.Buckets, known.info.Scale, known.info.BucketMin,
				number, kind, s.info.Buckets, s.info.Scale, s.info.BucketMin)
		}
	}
	h := bind(s)
	s.handle = h
	if err == nil {
		err = w.settle(s, text)
	}
	if err != nil {
		w.dropped(err)
		return h
	}
	w.byKey[s.key] = s
	return h
}

// settle finds room for a series, in a further segment if need be: FORMAT.md 10.7. w.mu is held.
func (w *Writer) settle(s *series, text []byte) error {
	if w.closed {
		return fmt.Errorf("shmts: series %q: want an open writer, got one that is closed", s.info.Name)
	}
	if len(w.segments) == 0 {
		return fmt.Errorf("shmts: series %q: there is no segment: %w", s.info.Name, w.firstErr)
	}
	unixNow, _ := w.opts.Clock()
	for _, g := range w.segments {
		if g.fits(s, len(text)) {
			g.add(s, text, unixNow)
			return nil
		}
	}
	t, c := w.segments[0].tables[s.info.Table], s.info.Kind.Cells(int(s.info.Buckets))
	if c.Row > t.row.cap || c.Lane > t.lane.cap || c.Shared > t.shared.cap || len(text) > w.segments[0].heap.cap {
		return fmt.Errorf("shmts: series %q: want room for at most %d row cells, %d lane cells, %d shared cells and %d bytes of text in table %s, got %d, %d, %d and %d",
			s.info.Name, t.row.cap, t.lane.cap, t.shared.cap, w.segments[0].heap.cap, w.opts.Tables[t.n].Name, c.Row, c.Lane, c.Shared, len(text))
	}
	if len(w.segments) >= w.opts.MaxSegments {
		return fmt.Errorf("shmts: series %q: want room in one of at most %d segments, got all of them full", s.info.Name, w.opts.MaxSegments)
	}
	g, err := w.newSegment()
	if err != nil {
		return fmt.Errorf("shmts: series %q: a further segment: %w", s.info.Name, err)
	}
	g.add(s, text, unixNow)
	w.wakeTicker()
	return nil
}

// retire is what every handle's Retire does.
func (s *series) retire() {
	if s.w == nil {
		return
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.place.Load() == nil {
		return // a sink, retired already, or closed
	}
	s.t.seg.retire(s)
	delete(s.w.byKey, s.key)
}
