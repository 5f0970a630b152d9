package reader

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
)

// lot makes segments of a store, each with an id of its own.
type lot struct {
	t     testing.TB
	dir   string
	count int
}

func newLot(t testing.TB) *lot { return &lot{t: t, dir: segtest.Store(t)} }

// make is a segment with that many series, and room for more.
func (l *lot) make(series, room int) *segtest.Segment {
	l.t.Helper()
	l.count++
	ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 2}}}
	ts.Add(room, layout.Counter, 0)
	f := segtest.New(l.t, segtest.Options{Instance: strconv.Itoa(l.count), Tables: []layout.TableSchema{ts}, Series: room, HeapBytes: 64 * room})
	f.H.SegmentID[0], f.H.SegmentID[1] = byte(l.count>>8), byte(l.count)
	f.H.Encode(f.W)
	register(l.t, f, 0, series)
	return f
}

// register registers series from s<from> to s<to-1>.
func register(t testing.TB, f *segtest.Segment, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		f.Series(t, 0, fmt.Sprintf("s%03d", i), layout.Counter, layout.U64, layout.BucketRange{})
	}
}

// dead leaves a segment with that many series as a dead writer of this process's user would.
func (l *lot) dead(series int) string {
	l.t.Helper()
	return l.make(series, max(series, 8)).Leave(l.t, l.dir)
}

// give makes a segment in the store that belongs to another user.
func (l *lot) give(uid, series int) string {
	l.t.Helper()
	path := l.dead(series)
	dir := filepath.Join(l.dir, strconv.Itoa(uid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := errors.Join(os.Chown(dir, uid, uid), os.Chown(path, uid, uid)); err != nil {
		l.t.Fatal(err)
	}
	to := filepath.Join(dir, filepath.Base(path))
	if err := os.Rename(path, to); err != nil {
		l.t.Fatal(err)
	}
	return to
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("segments of several users: only root can make them")
	}
}

func (l *lot) open(o Options) *Store {
	l.t.Helper()
	o.Dir = l.dir
	s, err := Open(o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

func mustPoll(t testing.TB, s *Store) Events {
	t.Helper()
	ev, err := s.Poll()
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// later lets the time of a refused file come, instead of waiting for it.
func later(s *Store) {
	for _, d := range s.users {
		for _, f := range d.files {
			f.next = 0
		}
	}
	if s.nextRetry < never {
		s.nextRetry = 0
	}
}

func paths(list []*Segment) map[string]bool {
	m := map[string]bool{}
	for _, g := range list {
		m[g.Path()] = true
	}
	return m
}

func segmentAt(t testing.TB, s *Store, path string) *Segment {
	t.Helper()
	for _, g := range s.Segments() {
		if g.Path() == path {
			return g
		}
	}
	t.Fatalf("want %s read, got it not", path)
	return nil
}

// remove unlinks a segment and lets polls pass until its room is there again.
func remove(t testing.TB, s *Store, path string) (new []*Segment) {
	t.Helper()
	if err := s.Unlink(segmentAt(t, s, path)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		later(s)
		new = append(new, mustPoll(t, s).New...)
	}
	return new
}

// sum holds the ledger against the segments that are open.
func sum(t testing.TB, s *Store) {
	t.Helper()
	var want amounts
	per := map[*account]amounts{}
	for g := range s.open {
		a := per[g.claim.of]
		for i, n := range g.claim.has {
			want[i] += n
			a[i] += n
		}
		per[g.claim.of] = a
	}
	if s.ledger.used != want {
		t.Errorf("all: want %v in use, as the segments say, got %v", want, s.ledger.used)
	}
	waiting := 0
	for _, d := range s.users {
		n := 0
		for _, f := range d.files {
			if f.over {
				n++
			}
		}
		if waiting += n; d.account.used != per[d.account] || d.account.waiting != n {
			t.Errorf("uid %d: want %v in use and %d waiting, got %v and %d", d.uid, per[d.account], n, d.account.used, d.account.waiting)
		}
	}
	if waiting != s.waiting {
		t.Errorf("want %d waiting, got %d", waiting, s.waiting)
	}
}

// A segment that would go beyond a budget is refused and says why, once; it is read when another of its user has gone, and before
// one that came later.
func TestOverBudget(t *testing.T) {
	const series = 10
	probe := newLot(t)
	probe.dead(series)
	one := mustPoll(t, probe.open(Options{})).New[0].claim.has
	for i, name := range budgetNames {
		for _, total := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s total=%v", name, total), func(t *testing.T) {
				l := newLot(t)
				var room, wide amounts
				for k := range wide {
					wide[k] = -1
				}
				room = wide
				var o Options
				if room[i] = 2 * one[i]; total {
					room[i] = 2*2*one[i] - 1 // a user gets no more than he leaves free
					o.Total, o.PerUser = room.budget(), wide.budget()
				} else {
					o.PerUser, o.Total = room.budget(), wide.budget()
				}
				s := l.open(o)
				first, second := l.dead(series), l.dead(series)
				if ev := mustPoll(t, s); len(ev.New) != 2 || len(ev.Refused) != 0 {
					t.Fatalf("within the budget: want 2 new, got %d new, %d refused: %+v", len(ev.New), len(ev.Refused), ev.Refused)
				}
				third := l.dead(series)
				mustPoll(t, s)
				fourth := l.dead(series)
				ev := mustPoll(t, s)
				if len(ev.New) != 0 || len(ev.Refused) != 1 || ev.Refused[0].Path != fourth {
					t.Fatalf("over budget: want one refused, got %d new, %+v", len(ev.New), ev.Refused)
				}
				var over *BudgetError
				if !errors.As(ev.Refused[0].Err, &over) || over.Budget != name || over.UID != os.Geteuid() || over.Total != total || over.Path != fourth {
					t.Fatalf("want a BudgetError that names %s, total %v, got %+v", name, total, ev.Refused[0].Err)
				}
				if want := map[bool]int64{false: 2 * one[i], true: 2*one[i] - 1}[total]; over.Want != want || over.Got <= over.Want || over.Got > 3*one[i] || i != ofLabels && over.Got != 3*one[i] {
					t.Errorf("want %d at most and %d got (of label bytes: so far as they were read), got %+v", want, 3*one[i], over)
				}
				for _, part := range []string{"shmts: segment " + fourth, name, "uid " + strconv.Itoa(os.Geteuid()), strconv.FormatInt(over.Want, 10), strconv.FormatInt(over.Got, 10)} {
					if !strings.Contains(over.Error(), part) {
						t.Errorf("want %q in it, got: %v", part, over)
					}
				}
				sum(t, s)
				for range 3 {
					later(s)
					if ev := mustPoll(t, s); len(ev.New)+len(ev.Refused)+len(ev.Gone) != 0 {
						t.Fatalf("nothing changed: want no events, got %+v", ev)
					}
				}
				all, users := s.Usage()
				if all.Refused != 2 || len(users) != 1 || users[0].Refused != 2 || users[0].UID != os.Geteuid() || users[0].Used.amounts()[i] != 2*one[i] || users[0].Limit.amounts()[i] != over.Want {
					t.Errorf("usage: want 2 refused and %d used of %d, got %+v, %+v", 2*one[i], over.Want, all, users)
				}

				// Room: the one that came first has it, though another has just come.
				if err := s.Unlink(segmentAt(t, s, first)); err != nil {
					t.Fatal(err)
				}
				mustPoll(t, s)
				fifth := l.dead(series)
				later(s)
				ev = mustPoll(t, s)
				if got := paths(ev.New); len(got) != 1 || !got[third] {
					t.Fatalf("after one has gone: want %s new, got %v", third, got)
				}
				if len(ev.Refused) != 1 || ev.Refused[0].Path != fifth {
					t.Errorf("want the fifth refused, got %+v", ev.Refused)
				}
				if got := paths(remove(t, s, second)); len(got) != 1 || !got[fourth] {
					t.Errorf("after another has gone: want %s new, got %v", fourth, got)
				}
				// One that waits and goes waits no more.
				if err := os.Remove(fifth); err != nil {
					t.Fatal(err)
				}
				mustPoll(t, s)
				if all, _ := s.Usage(); all.Refused != 0 {
					t.Errorf("nobody waits: got %d refused", all.Refused)
				}
				sum(t, s)
			})
		}
	}
}

// Of what all share, a user gets no more than he leaves free, so that whoever comes next finds room.
func TestShares(t *testing.T) {
	const total = 1200
	for users := 1; users <= 9; users++ {
		l := newLedger(&Options{PerUser: Budget{Series: -1}, Total: Budget{Series: total}})
		for round := 0; round < total; round++ { // as fast as they can, all of them
			for uid := range users {
				c := claim{l: l, of: l.open(uint32(uid))}
				c.take(ofSeries, 1)
			}
		}
		free := total - l.used[ofSeries]
		if fair := int64(total / (users + 1)); free < fair-int64(users) || free > fair+int64(users) {
			t.Errorf("%d greedy users: want about %d free, got %d", users, fair, free)
		}
		for uid := range users {
			if got := l.open(uint32(uid)).used[ofSeries]; got > free+1 {
				t.Errorf("user %d of %d: want no more than is free, %d, got %d", uid, users, free, got)
			}
		}
		next := claim{l: l, of: l.open(1000)}
		if !next.take(ofSeries, free/2) {
			t.Errorf("after %d greedy users: want %d for the next, got %v", users, free/2, next.err)
		}
	}
}

// A user's own budget counts before the others' where it is the less, and 0 and -1 are what they are said to be.
func TestLimits(t *testing.T) {
	l := newLedger(&Options{PerUser: Budget{Segments: 3, Bytes: -1}, Total: Budget{Segments: -1, Series: 7}})
	d := DefaultPerUser()
	if want := (amounts{3, math.MaxInt64, int64(d.Series), d.LabelBytes}); l.perUser != want {
		t.Errorf("per user: want %v, got %v", want, l.perUser)
	}
	if want := (amounts{math.MaxInt64, DefaultTotal().Bytes, 7, DefaultTotal().LabelBytes}); l.total != want {
		t.Errorf("total: want %v, got %v", want, l.total)
	}
	a := l.open(1)
	if most, others := l.limit(a, ofSegments); most != 3 || others {
		t.Errorf("segments: want 3, his own, got %d, %v", most, others)
	}
	if most, others := l.limit(a, ofSeries); most != 7 || !others {
		t.Errorf("series: want the 7 that all have, got %d, %v", most, others)
	}
	l.close(a)
	if len(l.accounts) != 0 {
		t.Errorf("want no account kept, got %d", len(l.accounts))
	}
	c := claim{l: l, of: l.open(2), admitted: true}
	c.take(ofSegments, 1)
	l.close(c.of)
	if len(l.accounts) != 1 {
		t.Error("want the account kept while something is in use")
	}
	c.close()
	if c.close(); len(l.accounts) != 0 || l.used != (amounts{}) {
		t.Errorf("want nothing kept, got %d accounts, %v in use", len(l.accounts), l.used)
	}
}

// What one user has beyond his budget is nobody else's affair, whoever was there first.
func TestOthersGoOn(t *testing.T) {
	needRoot(t)
	l := newLot(t)
	s := l.open(Options{PerUser: Budget{Segments: 5}, Total: Budget{Segments: 24}})
	hostile := []int{70001, 70002, 70003}
	for range 20 {
		for _, uid := range hostile {
			l.give(uid, 1)
		}
	}
	if ev := mustPoll(t, s); len(ev.New) != 15 || len(ev.Refused) != 45 {
		t.Fatalf("want 5 of each of 3 users, got %d new, %d refused", len(ev.New), len(ev.Refused))
	}
	was := paths(s.Segments())
	// 9 are free of the total. Others come: the first has all that his own budget gives him, the next less.
	for range 5 {
		l.give(70004, 1)
	}
	if ev := mustPoll(t, s); len(ev.New) != 5 || len(ev.Refused) != 0 {
		t.Fatalf("another user: want his 5 read, got %d new, %d refused", len(ev.New), len(ev.Refused))
	}
	for range 5 {
		l.give(70005, 1)
	}
	ev := mustPoll(t, s)
	var over *BudgetError
	if len(ev.New) != 2 || len(ev.Refused) != 3 || !errors.As(ev.Refused[0].Err, &over) || !over.Total || over.UID != 70005 {
		t.Fatalf("one more: want 2 of the 4 that are free, and the others refused for the total's sake, got %d new, %+v", len(ev.New), ev.Refused)
	}
	now := paths(s.Segments())
	for p := range was {
		if !now[p] {
			t.Errorf("%s was read; want it read still", p)
		}
	}
	sum(t, s)
	// A hostile one's segments go: the room is for everybody who waits, himself too, in the order in which they came.
	for p := range was {
		if strings.Contains(p, "/70001/") {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		later(s)
		mustPoll(t, s)
	}
	got := map[uint32]int{}
	for g := range s.open {
		got[uint32(g.UID())]++
	}
	if got[70001] != 4 || got[70005] != 3 { // 7 were free: 4, while as many were; then a third, of 3
		t.Errorf("want what had waited longest read, with as much left free: got %v", got)
	}
	sum(t, s)
}

// Series registered in a segment that is read count as well: what is beyond is skipped and counted, the segment goes on, and
// they are read once there is room.
func TestGrowthOverBudget(t *testing.T) {
	for _, c := range []struct {
		name string
		kind int
	}{{"series", ofSeries}, {"label-bytes", ofLabels}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLot(t)
			other := l.dead(20)
			probe := mustPoll(t, l.open(Options{})).New[0].claim.has
			bound := amounts{-1, -1, -1, -1}
			bound[c.kind] = 2*probe[c.kind] + 1
			s := l.open(Options{PerUser: bound.budget(), Total: Budget{-1, -1, -1, -1}})
			f := l.make(20, 64)
			f.Birth(t, l.dir)
			mustPoll(t, s)
			g := segmentAt(t, s, f.Path)
			if len(g.Series()) != 20 || g.Counters().SkippedSeries != 0 {
				t.Fatalf("want 20 series, got %d, %d skipped", len(g.Series()), g.Counters().SkippedSeries)
			}
			had := len(g.Series())
			register(t, f, 20, 40)
			for range 3 {
				later(s)
				if ev := mustPoll(t, s); len(ev.Refused)+len(ev.Gone) != 0 {
					t.Fatalf("growth: want the segment to go on, got %+v", ev)
				}
			}
			read := len(g.Series())
			if read < had || read > had+1 || g.Counters().SkippedSeries != uint64(40-read) {
				t.Fatalf("want about 20 series, and the other 20 counted once, got %d, %d skipped", read, g.Counters().SkippedSeries)
			}
			register(t, f, 40, 45)
			mustPoll(t, s)
			if got := g.Counters().SkippedSeries; len(g.Series()) != read || got != uint64(45-read) {
				t.Errorf("want 5 more skipped, got %d series, %d skipped", len(g.Series()), got)
			}
			_, users := s.Usage()
			if users[0].SkippedSeries != uint64(45-read) || users[0].Refused != 0 {
				t.Errorf("usage: want %d series skipped and nothing refused, got %+v", 45-read, users[0])
			}
			sum(t, s)
			remove(t, s, other)
			g.mu.Lock()
			g.known.next = 0
			g.mu.Unlock()
			mustPoll(t, s)
			if got := len(g.Series()); got < 39 || got > 45 {
				t.Errorf("with 20 series' room: want them read, got %d", got)
			}
			if got := g.Counters().SkippedSeries; got != uint64(45-read) {
				t.Errorf("want no series counted twice, got %d skipped, was %d", got, 45-read)
			}
			for i, x := range g.Series() {
				if x.Name != fmt.Sprintf("s%03d", i) {
					t.Fatalf("series %d: got %s", i, x.Name)
				}
			}
			sum(t, s)
		})
	}
}

// A user's thousands of files cost a poll what looking at their names costs, and once refused nothing.
func TestHostileFiles(t *testing.T) {
	const files = 5000
	for _, c := range []struct {
		name string
		o    Budget
	}{{"segments", Budget{Segments: 10}}, {"series", Budget{Series: 80}}, {"label bytes", Budget{LabelBytes: 1600}}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLot(t)
			for range files {
				l.dead(8)
			}
			s := l.open(Options{PerUser: c.o})
			began := time.Now()
			ev := mustPoll(t, s)
			first := time.Since(began)
			if len(ev.New) == 0 || len(ev.New)+len(ev.Refused) != files {
				t.Fatalf("want some new and all others refused, got %d and %d", len(ev.New), len(ev.Refused))
			}
			for _, g := range ev.New {
				if id := g.ID()[:4]; id > fmt.Sprintf("%04x", len(ev.New)) {
					t.Errorf("want the first %d read, got %s", len(ev.New), id)
				}
			}
			sum(t, s)
			looked := func() (n int) {
				for _, d := range s.users {
					for _, f := range d.files {
						if f.wait > firstWait {
							n++
						}
					}
				}
				return n
			}
			began = time.Now()
			const polls = 100
			for range polls {
				later(s)
				if ev := mustPoll(t, s); len(ev.New)+len(ev.Refused) != 0 {
					t.Fatalf("want nothing new, got %d new, %d refused", len(ev.New), len(ev.Refused))
				}
			}
			each := time.Since(began) / polls
			if n := looked(); n != 0 {
				t.Errorf("no room: want no refused file looked at again, got %d", n)
			}
			began = time.Now()
			new := remove(t, s, ev.New[0].Path())
			freed := time.Since(began)
			if n := looked(); len(new) != 1 || n != 0 {
				t.Errorf("room for one: want one read and no other looked at, got %d and %d", len(new), n)
			}
			t.Logf("%d files, %d read: first poll %v, then %v each, one gone %v", files, len(ev.New), first, each, freed)
			if first > 5*time.Second || each > 50*time.Millisecond {
				t.Errorf("want polls that cost little, got %v and %v", first, each)
			}
			sum(t, s)
		})
	}
}

// Strings read for nothing are bounded too: a user whose segments are each just too large is not read again and again.
func TestReadForNothing(t *testing.T) {
	const files, series = 8, 5000
	l := newLot(t)
	ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 2}}}
	ts.Add(series, layout.Counter, 0)
	info := layout.SeriesInfo{Name: "n", Help: strings.Repeat("h", 1000)}
	info.Kind, info.Number = layout.Counter, layout.U64
	text, err := info.AppendStrings(nil)
	if err != nil {
		t.Fatal(err)
	}
	for k := range files {
		f := segtest.New(t, segtest.Options{ID: byte(k + 1), Tables: []layout.TableSchema{ts}, Series: series, HeapBytes: 2048})
		for i := range series {
			info.Index, info.RowCell, info.LaneCell = i, uint32(i), uint32(i)
			f.Place(t, &info, text)
		}
		f.Leave(t, l.dir)
	}
	s := l.open(Options{PerUser: Budget{LabelBytes: 4 << 20}, SeriesBytes: 64 << 20})
	a := func() *account { return s.users[strconv.Itoa(os.Geteuid())].account }
	ev := mustPoll(t, s)
	if len(ev.New) != 0 || len(ev.Refused) != files {
		t.Fatalf("want all refused, got %d new, %d refused", len(ev.New), len(ev.Refused))
	}
	if got := a().wasted; got < 3<<20 || got > 5<<20 {
		t.Errorf("want one segment's 4 MiB read, got %d bytes", got)
	}
	for range 2 {
		before := a().wasted
		later(s)
		mustPoll(t, s)
		if got := a().waste(0, s.polls); got && a().wasted > before {
			t.Errorf("want nothing read while it is not forgiven, got %d bytes more", a().wasted-before)
		}
	}
	sum(t, s)
}
