// Package otlp exports rows as OpenTelemetry metrics, over http/protobuf or gRPC.
//
// Of each table of each segment, the rows of the tier nearest to the export interval go out as they
// were recorded: cumulative, with the writer's own times. A position, the number of the last row sent of
// each table of each segment, says what comes next; the rows themselves stay in the segments' rings until then, so
// nothing is queued here, and memory is one request whatever a receiver does. What a ring overwrote while a
// receiver was away is counted. Positions are in memory: after a restart the rings are sent from their oldest row
// on, which repeats points but doubles nothing, for they are cumulative and carry their own times.
//
// A dead writer's last row goes out with the others, and behind it, a millisecond later, a point without a
// recorded value for each series.
//
// No point is of a time that is still to come. Where the wall clock was stepped back, rows recorded before have such times: they are
// passed over as are those that are too many, and the next row says what they said, but for a gauge's value in between. A
// dead writer's last row goes out at the time that it is. An epoch that moved (FORMAT.md 10.9) begins a new stream of
// cumulative points only if one of them fell: otherwise the clocks were stepped, and what is counted goes on.
package otlp

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// Segment is what is exported. It is safe for concurrent use. *source.Segment is one.
type Segment interface {
	ID() string
	Group() string  // of the incarnation: equal for segments that one process grew
	Source() string // equal for the incarnations of a source
	Labels() []reader.Pair
	Attributes() []reader.Pair
	Series() []*reader.Series // the same slice until one is registered or retired
	Overrides() map[*reader.Series][]reader.Pair
	Tables() []reader.Table
	Start() int64
	End() (int64, bool)
	// Rows yields a tier's rows numbered from and up, oldest first. A row is valid during its call.
	Rows(table, tier int, from uint64, yield func(*reader.Row) bool)
}

// Options of New.
type Options struct {
	Endpoint    string // http:// or https://; for http/protobuf with its path
	Protocol    string // "http/protobuf" (also if empty) or "grpc"
	Headers     map[string]string
	Timeout     time.Duration // of one request; 0: 10 s
	Compression string        // "gzip", "none" (also if empty), or "auto": gzip unless the receiver is on this host
	Certificate string        // PEM files
	ClientCert  string
	ClientKey   string

	Interval    time.Duration // 0: 10 s
	BatchBytes  int           // a request is sent when it is so large, uncompressed; 0: 2 MiB
	BatchPoints int           // or has so many data points; 0: 50,000

	Version string // of the program, for the scope and the User-Agent
	Logger  *slog.Logger

	// Sent is called after each attempt of a request, from the exporter's goroutine, with how long it took. It may be nil.
	Sent func(time.Duration)

	backoff time.Duration    // the first one; tests shorten it
	now     func() time.Time // tests step it
}

// Stats are what an Exporter counted.
type Stats struct {
	Requests  map[string]uint64 // attempts by outcome: see the Outcome constants
	Points    uint64            // data points that a receiver accepted
	Rejected  uint64            // data points that it said it rejected, in a partial success; never sent again
	Dropped   uint64            // data points in requests that it refused for good
	RowsLost  uint64            // rows that a ring overwrote before they could be sent
	RowsAhead uint64            // rows of a time that was still to come, since the wall clock was stepped back: the next row speaks for them
	Bytes     uint64            // on the wire, before TLS, headers not counted
	Cycles    uint64
	LastError string    // of the last attempt that was not a success; empty after one
	LastSent  time.Time // of the last success
}

// Outcomes of an attempt.
const (
	OutcomeOK      = "ok"
	OutcomePartial = "partial" // accepted, some points rejected
	OutcomeRetry   = "retry"   // failed in a way that the protocol says to retry
	OutcomeRefused = "refused" // failed for good: the request is dropped
)

// Exporter sends to one receiver. Run and Flush belong to one goroutine, one after the other; Stats and
// Finished are safe from any.
type Exporter struct {
	o        Options
	segments func() []Segment
	client   client

	states map[string]*state
	req    request
	ending []*state // whose last points are in req

	// Segments of the same program share a schema. When there are too many, those that
	// segments use stay with them, and the map begins anew.
	schemas map[[32]byte]*schema
	scratch []byte

	cycles uint64

	mu       sync.Mutex
	stats    Stats
	finished map[string]bool // ids of ended segments of which everything was sent, or refused for good
}

// state is what the exporter knows of a segment.
type state struct {
	seg       Segment
	cycle     uint64 // the last one that saw it
	schema    *schema
	series    []*reader.Series
	overrides map[*reader.Series][]reader.Pair

	resource    []byte // the Resource, as a field of ResourceMetrics
	numberAttrs []byte // the source's labels, as fields of each data point
	histAttrs   []byte
	labels      []reader.Pair // the same

	tables []position
	seen   bitset // series that had a point, and no end yet
	sent   bool   // a row
	done   bool

	folded []minmax // of the table being sent, if rows before this one were passed over
}

// position is where a table's export is.
type position struct {
	tier    int // -1: the table has none
	thin    time.Duration
	no      uint64 // last row taken
	mono    int64  // time of the last row sent, on the clock that nobody steps
	epoch   uint16
	started bool
	start   int64 // of the epoch, if the segment had one before
	stale   bool

	at    cursor // the row of number atRow, or the end, is in part in a request before this one
	atRow uint64

	folding bool // rows were passed over since the last one sent
	folded  []minmax
}

// descriptor names a series for as long as its segment lives.
type descriptor struct {
	index      int
	generation uint32
}

func descriptorOf(s *reader.Series) descriptor {
	index, generation := s.Descriptor()
	return descriptor{index, generation}
}

type minmax struct{ min, max float64 }

// New makes an exporter of what segments answers. Its error says which option is wrong.
func New(o Options, segments func() []Segment) (*Exporter, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 2 << 20
	}
	if o.BatchPoints == 0 {
		o.BatchPoints = 50_000
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.backoff == 0 {
		o.backoff = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	scope, body := open(nil, scopeMetricsScope)
	scope = appendString(scope, scopeName, "github.com/shmts/shmts")
	scope = shut(appendString(scope, scopeVersion, o.Version), body)
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &Exporter{o: o, segments: segments, client: c,
		states: map[string]*state{}, schemas: map[[32]byte]*schema{}, finished: map[string]bool{},
		req:   request{scope: scope, maxBytes: o.BatchBytes, maxPoints: o.BatchPoints},
		stats: Stats{Requests: map[string]uint64{}}}, nil
}

// Stats answers what was counted so far.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Requests = make(map[string]uint64, 4)
	for k, v := range e.stats.Requests {
		s.Requests[k] = v
	}
	return s
}

// Finished tells whether everything of an ended segment was sent and answered, so that it may be unlinked.
func (e *Exporter) Finished(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.finished[id]
}

// Run exports each interval until the context ends. What is under way then stays where it is, for Flush.
func (e *Exporter) Run(ctx context.Context) {
	// Not all daemons of a fleet at once.
	wait := time.NewTimer(time.Duration(rand.Int64N(int64(e.o.Interval))))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return
	case <-wait.C:
	}
	tick := time.NewTicker(e.o.Interval)
	defer tick.Stop()
	for {
		if e.Flush(ctx) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Flush exports what there is now. It fails only when the context ends: a receiver that fails is
// waited for, as its protocol says, until then. Called again, it goes on where it stopped.
func (e *Exporter) Flush(ctx context.Context) error {
	e.cycles++
	if err := e.send(ctx, false); err != nil { // what an earlier one left
		return err
	}
	segments := e.segments()
	for _, seg := range segments {
		if err := e.segment(ctx, seg); err != nil {
			return err
		}
	}
	// The ends last: a successor of the same source may have gone on by now.
	for _, seg := range segments {
		if err := e.end(ctx, e.states[seg.ID()]); err != nil {
			return err
		}
	}
	if err := e.send(ctx, false); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Cycles++
	for id, st := range e.states {
		if st.cycle != e.cycles {
			delete(e.states, id)
			delete(e.finished, id)
		}
	}
	return nil
}

// segment exports the new rows of all tables of a segment.
func (e *Exporter) segment(ctx context.Context, seg Segment) error {
	st := e.states[seg.ID()]
	if st == nil {
		st = e.newState(seg)
		e.states[seg.ID()] = st
	}
	st.cycle = e.cycles
	if st.done {
		return nil
	}
	e.renew(st, seg)
	for table := range st.tables {
		for {
			again := e.rows(st, table)
			if !again {
				break
			}
			if err := e.send(ctx, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Exporter) newState(seg Segment) *state {
	st := &state{labels: names.PointLabels(seg.Labels()), tables: make([]position, len(seg.Tables()))}
	b, body := open(nil, resourceMetricsResource)
	for _, p := range names.Resource(seg.Labels(), seg.Attributes()) {
		b = appendAttribute(b, resourceAttributes, p.Name, p.Value)
	}
	st.resource = shut(b, body)
	for _, p := range st.labels {
		st.numberAttrs = appendAttribute(st.numberAttrs, numberAttrs, p.Name, p.Value)
		st.histAttrs = appendAttribute(st.histAttrs, histAttrs, p.Name, p.Value)
	}
	for i, t := range seg.Tables() {
		st.tables[i].tier, st.tables[i].thin = nearest(t.Tiers, e.o.Interval)
	}
	return st
}

// nearest is the tier whose step is nearest to the interval, by ratio, -1 if there is none; and, if
// that is so much finer that most of its rows are to be passed over, the time to keep between two.
func nearest(tiers []reader.Tier, interval time.Duration) (tier int, thin time.Duration) {
	tier = -1
	best := math.Inf(1)
	for i, t := range tiers {
		if d := math.Abs(math.Log(float64(t.Step) / float64(interval))); d < best {
			tier, best = i, d
		}
	}
	if tier >= 0 && tiers[tier].Step*3/2 < interval {
		thin = interval - tiers[tier].Step/2
	}
	return tier, thin
}

// renew takes over what a newer view of the segment says. Most say nothing new.
func (e *Exporter) renew(st *state, seg Segment) {
	series, overrides := seg.Series(), seg.Overrides()
	same := st.schema != nil && len(series) == len(st.series) && (len(series) == 0 || &series[0] == &st.series[0]) &&
		(len(overrides) == 0 && len(st.overrides) == 0 || seg == st.seg)
	st.seg = seg
	if same {
		return
	}
	seen := make(bitset, (len(series)+63)/64)
	if st.schema != nil {
		// A descriptor may be gone from the middle, so that numbers shift.
		old := make(map[descriptor]int, len(st.series))
		for i, s := range st.series {
			old[descriptorOf(s)] = i
		}
		for i, s := range series {
			if was, ok := old[descriptorOf(s)]; ok && st.seen.has(was) {
				seen.set(i)
			}
		}
		for i := range st.tables {
			p := &st.tables[i]
			was := p.folded
			p.at, p.folded = cursor{}, nil
			if !p.folding {
				continue
			}
			p.folded = nothingFolded(nil, len(series))
			for i, s := range series {
				if from, ok := old[descriptorOf(s)]; ok {
					p.folded[i] = was[from]
				}
			}
		}
	}
	st.series, st.overrides, st.seen = series, overrides, seen
	st.schema = e.schemaOf(len(st.tables), series, overrides, st.labels)
}

// rows puts new rows of a table into the request, until there are none, or it is full: then it answers true.
func (e *Exporter) rows(st *state, table int) (full bool) {
	p := &st.tables[table]
	if p.tier < 0 {
		return false
	}
	for {
		var moved *reader.Row
		if full, moved = e.rowsOfEpoch(st, table); moved == nil {
			return full
		}
		if e.fell(st, table, moved) {
			p.start = moved.Begin
		}
		p.epoch = moved.Epoch
	}
}

// rowsOfEpoch is rows up to the first row of another epoch, which it answers a copy of.
func (e *Exporter) rowsOfEpoch(st *state, table int) (full bool, moved *reader.Row) {
	p := &st.tables[table]
	latest := e.o.now().UnixNano() + int64(ahead)
	st.seg.Rows(table, p.tier, p.no+1, func(row *reader.Row) bool {
		if p.started && row.Epoch != p.epoch {
			moved = row.Clone()
			return false
		}
		if e.req.full() {
			full = true
			return false
		}
		if row.No != p.atRow {
			p.at = cursor{} // the ring went over the row that was sent in part
		}
		if p.at == (cursor{}) {
			e.enter(st, p, row)
			last, early := row.Final || row.Estimated, row.Time > latest
			if !last && (early || p.thin > 0 && row.Mono-p.mono < int64(p.thin)) {
				if early {
					e.mu.Lock()
					e.stats.RowsAhead++
					e.mu.Unlock()
				}
				st.fold(table, p, row)
				p.no = row.No
				return true
			}
		}
		if p.folding {
			st.folded = p.folded
		}
		at, done := e.req.table(st, table, sample{row: row, time: min(row.Time, latest), start: p.start}, p.at)
		st.folded = nil
		if !done {
			p.at, p.atRow, full = at, row.No, true
			return false
		}
		p.at, p.no, p.mono, p.folding = cursor{}, row.No, row.Mono, false
		e.req.rows++
		st.sent = true
		return true
	})
	return full, moved
}

// ahead is by how much a row's time may lie beyond now: clocks are read one after the other.
const ahead = time.Second

// fell tells whether something that is only ever added to is less in a row than in the one taken before, if that is still there.
func (e *Exporter) fell(st *state, table int, moved *reader.Row) (fell bool) {
	p := &st.tables[table]
	st.seg.Rows(table, p.tier, p.no, func(row *reader.Row) bool {
		for _, s := range st.series {
			if row.No != p.no || fell {
				break
			}
			before, had := row.Value(s)
			if now, has := moved.Value(s); had && has {
				fell = s.Kind == reader.Counter && now.Float < before.Float || now.Count < before.Count
			}
		}
		return false
	})
	return fell
}

// enter looks at a row's number before it is taken.
func (e *Exporter) enter(st *state, p *position, row *reader.Row) {
	if p.no > 0 && row.No > p.no+1 {
		e.mu.Lock()
		e.stats.RowsLost += row.No - p.no - 1
		e.mu.Unlock()
		e.o.Logger.Warn("rows were overwritten before they could be exported", "segment", st.seg.ID(), "rows", row.No-p.no-1)
	}
	p.epoch, p.started = row.Epoch, true
}

// fold keeps the least and the greatest of the stats of a row that is passed over.
func (st *state) fold(table int, p *position, row *reader.Row) {
	if !p.folding {
		p.folded, p.folding = nothingFolded(p.folded, len(st.series)), true
	}
	for _, m := range st.schema.tables[table] {
		if m.kind != reader.Stat || m.part != names.Min {
			continue
		}
		for _, pt := range m.points {
			if v, ok := row.Value(st.series[pt.series]); ok {
				f := &p.folded[pt.series]
				f.min, f.max = lesser(f.min, v.Min), greater(f.max, v.Max)
			}
		}
	}
}

func nothingFolded(b []minmax, series int) []minmax {
	b = b[:0]
	for range series {
		b = append(b, minmax{math.NaN(), math.NaN()})
	}
	return b
}

// window is a stat's least and greatest value since the row sent before.
func (st *state) window(series int, v *reader.Value) (low, high float64) {
	if st.folded == nil {
		return v.Min, v.Max
	}
	f := st.folded[series]
	return lesser(f.min, v.Min), greater(f.max, v.Max)
}

// lesser and greater take NaN for nothing recorded.
func lesser(a, b float64) float64 {
	if math.IsNaN(a) || b < a {
		return b
	}
	return a
}

func greater(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// end says of an ended segment, all rows of which were taken, that its series have no value any more.
func (e *Exporter) end(ctx context.Context, st *state) error {
	end, ended := st.seg.End()
	if st.done || !ended {
		return nil
	}
	if st.sent && !e.succeeded(st) {
		for table := range st.tables {
			p := &st.tables[table]
			for !p.stale {
				at, done := e.req.table(st, table, sample{stale: true, time: min(end, e.o.now().UnixNano()+int64(ahead)) + int64(time.Millisecond)}, p.at)
				p.at, p.stale = at, done
				if !done {
					if err := e.send(ctx, true); err != nil {
						return err
					}
				}
			}
		}
	}
	st.done = true
	e.ending = append(e.ending, st)
	return nil
}

// succeeded tells whether a later incarnation of the source has sent rows: an end after them would end
// its series, not the predecessor's.
func (e *Exporter) succeeded(st *state) bool {
	for _, other := range e.states {
		if other.sent && other.seg.Start() > st.seg.Start() && other.seg.Source() == st.seg.Source() && other.seg.Group() != st.seg.Group() {
			return true
		}
	}
	return false
}

// send sends the request, if there is something in it, until it was taken or refused for good. It fails
// when the context ends; the request stays.
func (e *Exporter) send(ctx context.Context, full bool) error {
	for attempt := 0; e.req.points > 0; attempt++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		res := e.client.export(ctx, e.req.buf)
		if e.o.Sent != nil {
			e.o.Sent(time.Since(began))
		}
		if ctx.Err() != nil && res.err != nil && errors.Is(res.err, context.Canceled) {
			return ctx.Err()
		}
		e.record(res)
		if !res.retry {
			e.req.reset()
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff(e.o.backoff, attempt, res.after)):
		}
	}
	if !full {
		e.mu.Lock()
		for _, st := range e.ending {
			e.finished[st.seg.ID()] = true
		}
		e.mu.Unlock()
		e.ending = e.ending[:0]
	}
	return nil
}

// maxBackoff bounds the time between two attempts.
const maxBackoff = 30 * time.Second

// backoff is the time to wait after an attempt that failed: what the receiver said, or twice as long each
// time, with jitter, so that a thousand daemons don't come back at once.
func backoff(first time.Duration, attempt int, after time.Duration) time.Duration {
	if after > 0 {
		return after
	}
	d := min(first<<min(attempt, 16), maxBackoff)
	return d/2 + rand.N(d/2+1)
}

func (e *Exporter) record(res result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.stats
	s.Bytes += uint64(res.bytes)
	switch {
	case res.err == nil && res.rejected == 0 && res.message == "":
		s.Requests[OutcomeOK]++
		s.Points += uint64(e.req.points)
		s.LastError, s.LastSent = "", time.Now()
	case res.err == nil:
		rejected := uint64(min(max(res.rejected, 0), int64(e.req.points)))
		s.Requests[OutcomePartial]++
		s.Points += uint64(e.req.points) - rejected
		s.Rejected += rejected
		s.LastError, s.LastSent = "", time.Now()
		e.o.Logger.Warn("the receiver took a part", "rejected_points", res.rejected, "of", e.req.points, "message", res.message)
	case res.retry:
		if s.LastError == "" {
			e.o.Logger.Warn("export failed, to be tried again", "endpoint", e.o.Endpoint, "err", res.err)
		}
		s.Requests[OutcomeRetry]++
		s.LastError = res.err.Error()
	default:
		s.Requests[OutcomeRefused]++
		s.Dropped += uint64(e.req.points)
		s.LastError = res.err.Error()
		e.o.Logger.Error("export refused, not to be tried again", "endpoint", e.o.Endpoint, "points", e.req.points, "err", res.err)
	}
}

const maxSchemas = 1024

func (e *Exporter) schemaOf(tables int, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, labels []reader.Pair) *schema {
	key, scratch := schemaKey(e.scratch, tables, series, overrides, labels)
	e.scratch = scratch
	sc := e.schemas[key]
	if sc == nil {
		if len(e.schemas) >= maxSchemas {
			clear(e.schemas)
		}
		sc = newSchema(tables, series, overrides, labels)
		e.schemas[key] = sc
	}
	return sc
}
