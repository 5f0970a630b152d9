package archiver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// What sources that lived for less than half of a coarse tier's step leave there is added up in one source for each user, job and
// table: FORMAT.md 19.6. Who was added is written with the sum, in one block, so that a kill adds nobody twice.

const (
	intakeMembers   = 512  // are added in one go, at most
	ephemeralSeries = 4096 // of an ephemeral source. Who would bring more is folded like any other
)

// EphemeralKey is the key of the ephemeral source of a user's job in the tier of a step.
func EphemeralKey(uid int, job string, step time.Duration) (k archive.Key) {
	text := fmt.Appendf(nil, "ephemeral\x00%d\x00%s\x00%d", uid, job, int64(step))
	sum := sha256.Sum256(text)
	copy(k.Segment[:], sum[:])
	return k
}

type intakeKey struct {
	uid   int
	job   string
	table int
}

// intake is an ephemeral source's table, and whom it takes in.
type intake struct {
	key    intakeKey
	name   string // of the table
	source *archive.Source
	series []*reader.Series
	values [][]uint64 // of each: the words of its additive fields
	starts []int64    // unix ms
	at     map[string]int

	number, base uint64
	time         int64
	members      []member
	scratch      []byte
}

// member is a source that is taken in.
type member struct {
	p      *pending
	rows   uint64
	base   uint64
	time   int64
	birth  int64
	series []*reader.Series
	values [][]uint64
	starts []int64
}

// additive tells whether a series' values can be added up over sources.
func additive(s *reader.Series) bool {
	return s.Kind == reader.Counter || s.Kind == reader.Histogram || s.Kind == reader.Stat && s.NonNegative
}

// isEphemeral tells whether a source that is gone belongs to its job's ephemeral source: nothing of it is in the coarser tier. Where its
// epoch moved, its values are perhaps in more than one incarnation, and can't be added.
func (l *level) isEphemeral(p *pending, found []*archive.Incarnation, inc *archive.Incarnation) bool {
	if p.ephemeral || p.base > 0 || p.key.Epoch != 0 || p.newest-inc.Birth/1e6 >= l.step.Milliseconds()/2 {
		return false
	}
	return !slices.ContainsFunc(found, func(o *archive.Incarnation) bool { return o.Copy == p.key.Copy && o.Epoch != p.key.Epoch })
}

// isMember tells whether a source that was found by looking is in an ephemeral one already.
func (l *level) isMember(k tableKey) bool {
	if l.members == nil {
		l.members = map[tableKey]bool{}
		if err := l.findMembers(); err != nil {
			l.s.o.Logger.Warn("ephemeral sources can't all be read", "tier", l.step, "err", err)
		}
	}
	return l.members[k]
}

// findMembers finds who of those pending is a member.
func (l *level) findMembers() error {
	w := l.s.Writer
	any, err := w.Select(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64, Tiers: []int{l.fine + 1}, Limit: 1,
		Labels: []archive.Matcher{{Name: "instance", Equal: l.instance(), Match: func(v string) bool { return v == l.instance() }}}})
	if err != nil && !errors.Is(err, archive.ErrTooMany) || len(any) == 0 {
		return err
	}
	for info, err := range w.Blocks(l.fine+1, archive.Mark{}) {
		if err != nil {
			return err
		}
		for _, k := range info.Members {
			if k := (tableKey{k, info.Schema.Table}); l.pending[k] != nil {
				l.members[k] = true
			}
		}
	}
	return nil
}

func (l *level) instance() string { return "ephemeral-" + model.Duration(l.step).String() }

// takeIn adds a source's folded rows to an ephemeral one. False: it can't be one of those.
func (l *level) takeIn(p *pending, inc *archive.Incarnation, rows *archive.Rows, places []int) bool {
	job := ""
	for _, label := range inc.Labels {
		if label.Name == "job" {
			job = label.Value
		}
	}
	k := intakeKey{p.uid, job, p.key.table}
	in := l.intakes[k]
	if in == nil {
		var err error
		if in, err = l.openIntake(k, inc); err != nil {
			l.s.o.Logger.Warn("an ephemeral source can't be read", "job", job, "tier", l.step, "err", err)
			return false
		}
		l.intakes[k] = in
	}
	n := len(rows.Times)
	m := member{p: p, base: rows.Base, time: rows.Times[n-1], birth: inc.Birth}
	for _, c := range rows.Coverage {
		m.rows += c
	}
	list := l.s.schemas.of(inc, p.key.table).list
	at, fresh := 0, 0
	for i, s := range list {
		fields := archive.Fields(s.Kind, true)
		if words := newestWords(s, rows, at); additive(s) && words != nil {
			start := inc.Birth / 1e6
			if places[i] < len(inc.Starts) {
				start = inc.Starts[places[i]]
			}
			m.series, m.values, m.starts = append(m.series, s), append(m.values, words), append(m.starts, start)
			if in.scratch = identity(in.scratch[:0], s); !hasKey(in.at, in.scratch) {
				fresh++
			}
			l.batch.words += len(words)
		}
		at += len(fields)
	}
	if len(in.series)+fresh > ephemeralSeries {
		return false
	}
	in.members = append(in.members, m)
	if len(in.members) >= intakeMembers || l.batch.words >= sweepWords {
		l.flush()
	}
	return true
}

func hasKey(m map[string]int, k []byte) bool { _, ok := m[string(k)]; return ok }

// newestWords are the words of an additive series' newest value in folded rows, of which its first field is at: nil if there is none.
func newestWords(s *reader.Series, r *archive.Rows, at int) []uint64 {
	words := func(f int) []uint64 {
		w := len(r.Cells[f]) / len(r.Times)
		for k := len(r.Times) - 1; k >= 0; k-- {
			if r.Present == nil || r.Present[f] == nil || r.Present[f][k] {
				return slices.Clone(r.Cells[f][k*w : (k+1)*w])
			}
		}
		return nil
	}
	v := words(at)
	if s.Kind == reader.Stat && v != nil { // count, sum
		if sum := words(at + 1); sum != nil {
			return append(v, sum...)
		}
		return nil
	}
	return v
}

// openIntake finds an ephemeral source and how far it is, or makes a new one.
func (l *level) openIntake(k intakeKey, inc *archive.Incarnation) (*intake, error) {
	in := &intake{key: k, name: inc.Tables[k.table].Name, at: map[string]int{}}
	key := EphemeralKey(k.uid, k.job, l.step)
	found, err := l.s.Writer.Find(key.Segment)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return in, nil
	}
	had := found[0]
	in.source = had.Source
	if k.table >= len(had.Tables) {
		return in, nil
	}
	tiers := had.Tables[k.table].Tiers
	at := slices.IndexFunc(tiers, func(t archive.TableTier) bool { return t.Tier == l.fine+1 })
	if at < 0 {
		return in, nil
	}
	// Its newest row has all there is: others are of the same number, or before.
	ts := l.s.schemas.of(had, k.table)
	columns := ts.columns[1]
	for c, err := range l.s.Writer.Read(had, k.table, at, tiers[at].Newest, math.MaxInt64, columns) {
		if err != nil {
			return nil, err
		}
		r := fold.Rows(c)
		n := len(r.Times) - 1
		in.number, in.base, in.time = r.Numbers[n], r.Base, r.Times[n]
		in.series, in.values, in.starts = nil, nil, nil
		clear(in.at)
		f := 0
		for i, s := range ts.list {
			if words := newestWords(s, &r, f); words != nil {
				in.add(s, had.Starts[ts.places[i]], words)
			}
			f += len(archive.Fields(s.Kind, true))
		}
	}
	return in, nil
}

// add adds words to a series.
func (in *intake) add(s *reader.Series, start int64, words []uint64) {
	in.scratch = identity(in.scratch[:0], s)
	i, ok := in.at[string(in.scratch)]
	if !ok {
		in.at[string(in.scratch)] = len(in.series)
		in.series, in.values, in.starts = append(in.series, s), append(in.values, slices.Clone(words)), append(in.starts, start)
		return
	}
	v := in.values[i]
	for w := range v {
		// A counter's and a histogram's first word is of the series' number; so is a stat's second.
		if isFloat := s.Number == reader.F64 && (s.Kind == reader.Stat) == (w == 1) && w < 2; isFloat {
			v[w] = math.Float64bits(math.Float64frombits(v[w]) + math.Float64frombits(words[w]))
		} else {
			v[w] += words[w]
		}
	}
}

// writeIntake writes an ephemeral source's rows: one for each window in which somebody ended.
func (l *level) writeIntake(in *intake) bool {
	if len(in.members) == 0 {
		return true
	}
	step := l.step.Milliseconds()
	slices.SortStableFunc(in.members, func(a, b member) int {
		return cmp.Or(cmp.Compare(fold.Number(a.time, step), fold.Number(b.time, step)), cmp.Compare(a.time, b.time))
	})
	if in.source == nil {
		birth := in.members[0].birth
		for _, m := range in.members {
			birth = min(birth, m.birth)
		}
		in.source = &archive.Source{Key: EphemeralKey(in.key.uid, in.key.job, l.step), Birth: birth, UID: in.key.uid, Ephemeral: true,
			Labels: []reader.Pair{{Name: "instance", Value: l.instance()}, {Name: "job", Value: in.key.job}}}
	}
	r := archive.Rows{Source: in.source}
	var upTo []int         // members that are in each row
	var columns [][]uint64 // of each series, its words row by row
	for i := range in.members {
		m := &in.members[i]
		for j, s := range m.series {
			in.add(s, m.starts[j], m.values[j])
		}
		in.base++
		in.time = max(in.time, m.time)
		number := max(in.number, fold.Number(m.time, step))
		n := len(r.Times)
		if n == 0 || r.Numbers[n-1] != number {
			r.Numbers, r.Times, r.Coverage, upTo = append(r.Numbers, number), append(r.Times, 0), append(r.Coverage, 0), append(upTo, 0)
			n++
		}
		in.number = number
		r.Times[n-1], upTo[n-1] = in.time, i+1
		r.Coverage[n-1]++
		if i+1 < len(in.members) && max(number, fold.Number(in.members[i+1].time, step)) == number {
			continue
		}
		for j := range in.series { // the window is complete
			if j == len(columns) {
				columns = append(columns, nil)
			}
			w := len(in.values[j])
			columns[j] = append(columns[j], make([]uint64, (n-1)*w-len(columns[j]))...)
			columns[j] = append(columns[j], in.values[j]...)
		}
	}
	r.Base = in.base
	in.fields(&r, columns)
	schema, err := l.s.schemas.schema(in.key.table, in.name, in.series)
	if err != nil {
		return l.failed(in.members[0].p, err)
	}
	r.Starts = in.starts
	failpoint.Here("archiver.sweep.ephemeral")
	if !l.appendIntake(schema, in, r, upTo, 0) {
		l.drop()
		return false
	}
	in.members = in.members[:0]
	return true
}

// fields makes a row's fields of the words of its series, row by row: what is before a series' first row is absent.
func (in *intake) fields(r *archive.Rows, columns [][]uint64) {
	n := len(r.Times)
	absent := make([]bool, n)
	for j, s := range in.series {
		w := len(in.values[j])
		var present []bool
		for k := range n {
			if k*w < len(columns[j]) && in.absentAt(columns[j][k*w:(k+1)*w]) {
				if present == nil {
					present = make([]bool, n)
					for i := range present {
						present[i] = true
					}
				}
				present[k] = false
			}
		}
		if s.Kind != reader.Stat {
			r.Cells, r.Present = append(r.Cells, columns[j]), append(r.Present, present)
			continue
		}
		count, sum := make([]uint64, n), make([]uint64, n)
		for k := range n {
			count[k], sum[k] = columns[j][2*k], columns[j][2*k+1]
		}
		none := make([]uint64, n)
		r.Cells, r.Present = append(r.Cells, count, sum, none, none, none), append(r.Present, present, present, absent, absent, absent)
	}
}

// absentAt tells of a row's words whether the series was not there yet: then they are all zero, and a zero says the same.
func (in *intake) absentAt(words []uint64) bool {
	return !slices.ContainsFunc(words, func(w uint64) bool { return w != 0 })
}

// appendIntake writes rows with the members that are in them, in as many blocks as it takes: members from first on.
func (l *level) appendIntake(schema *archive.Schema, in *intake, r archive.Rows, upTo []int, first int) bool {
	members := in.members[first:upTo[len(upTo)-1]]
	b := &archive.Block{Schema: schema, Step: l.step, Folded: true, Sources: []archive.Rows{r}}
	for _, m := range members {
		b.Members = append(b.Members, m.p.key.Key)
	}
	err := l.s.out.Append(l.fine+1, b)
	switch {
	case err == nil:
	case l.s.Writer.Err() != nil:
		return false
	case errors.Is(err, archive.ErrTooLarge) && len(r.Times) > 1:
		a, b := halves(&r)
		m := len(a.Times)
		return l.appendIntake(schema, in, a, upTo[:m], first) && l.appendIntake(schema, in, b, upTo[m:], upTo[m-1])
	default:
		l.failed(members[0].p, err)
	}
	for i := range members {
		l.s.stats.Ephemeral++
		l.folded(members[i].p, members[i].base)
	}
	return true
}
