package reader

import (
	"fmt"
	"math"
	"slices"
	"sync"
)

// Budgets: the store is a place where strangers put files, and what they put there costs its reader memory and
// time. Each user has a budget, and all of them together have one. Whoever comes first is served first: what
// would go beyond is not taken in, and nothing is ever taken away from what is.

// Budget is an amount of what segments take: as a bound, or as what is in use. As a bound, 0 means the
// default, and less than 0 none.
type Budget struct {
	Segments int
	Bytes    int64 // of their files
	// Series are descriptors in use (series_used, FORMAT.md 5): of the series that are live or retired, and of those
	// that wait for their next owner.
	Series     int
	LabelBytes int64 // of the names, units, help and labels of series and sources, each counted for each segment
}

// DefaultPerUser is what one user's segments may take by default: 16,384 segments of 16 GiB, 524,288 series with 128 MiB of
// names and labels. A host of 1,000 processes with 100 series each, all of one user, takes a fifth of the series, and two
// while all of them restart; a user who registers whatever he can is held at some 330 MB of the reader's memory.
func DefaultPerUser() Budget {
	return Budget{Segments: 16384, Bytes: 16 << 30, Series: 1 << 19, LabelBytes: 128 << 20}
}

// DefaultTotal is what all users' segments may take by default: four times one user's.
func DefaultTotal() Budget {
	b := DefaultPerUser()
	return Budget{Segments: 4 * b.Segments, Bytes: 4 * b.Bytes, Series: 4 * b.Series, LabelBytes: 4 * b.LabelBytes}
}

// Usage is what a user's segments, or all, take of their budget.
type Usage struct {
	UID  int // -1: all
	Used Budget
	// Limit is what Used may become as things are. A user's is the least of Options.PerUser and of what he leaves
	// free of Options.Total: it falls when others come, and may be less than Used then. math.MaxInt64 is no limit.
	Limit         Budget
	Refused       int    // files that wait for room, and are not read
	SkippedSeries uint64 // series of admitted segments that found no room, ever
}

// A BudgetError says that a segment is not read because there is no room for it. It is looked at again once
// there is.
type BudgetError struct {
	Path   string
	UID    int
	Total  bool   // the budget of all users, not the user's own
	Budget string // segments, bytes, series or label-bytes
	// Want is the most that the user's segments may take as things are, Got what they would with this one: as far
	// as it was read, at least.
	Want, Got int64

	needs amounts // what there must be room for before it is looked at again
}

func (e *BudgetError) Error() string {
	if e.Total {
		return fmt.Sprintf("shmts: segment %s: over the budget of all users: want at most %d %s of uid %d, so that he leaves as much free for others, got %d with it",
			e.Path, e.Want, e.Budget, e.UID, e.Got)
	}
	return fmt.Sprintf("shmts: segment %s: over the budget of uid %d: want at most %d %s, got %d with it", e.Path, e.UID, e.Want, e.Budget, e.Got)
}

// The budgets, as indices of amounts.
const (
	ofSegments = iota
	ofBytes
	ofSeries
	ofLabels
	budgets
)

var budgetNames = [budgets]string{"segments", "bytes", "series", "label-bytes"}

type amounts [budgets]int64

func (b Budget) amounts() amounts {
	return amounts{int64(b.Segments), b.Bytes, int64(b.Series), b.LabelBytes}
}

func (a amounts) budget() Budget {
	return Budget{Segments: int(a[ofSegments]), Bytes: a[ofBytes], Series: int(a[ofSeries]), LabelBytes: a[ofLabels]}
}

// limits are the bounds that b means.
func limits(b, or Budget) amounts {
	a := b.amounts()
	for i, n := range or.amounts() {
		switch {
		case a[i] == 0:
			a[i] = n
		case a[i] < 0:
			a[i] = math.MaxInt64
		}
	}
	return a
}

// ledger keeps the accounts. Segments take from it while they are refreshed, which any goroutine may do.
type ledger struct {
	perUser, total amounts

	mu       sync.Mutex
	used     amounts
	accounts map[uint32]*account
	freed    uint64 // moves when there is more room
	version  uint64 // moves with every change
}

// account is one user's. It is there while his directory is, or something of it is in use.
type account struct {
	uid     uint32
	used    amounts
	waiting int // files refused for want of room
	skipped uint64
	dir     bool

	// The store's goroutine's alone: label bytes that were read for nothing and not forgiven yet, as of a poll, and the
	// error that it came to last.
	wasted   int64
	wastedAt uint64
	wastedOn *BudgetError
}

func newLedger(o *Options) *ledger {
	return &ledger{perUser: limits(o.PerUser, DefaultPerUser()), total: limits(o.Total, DefaultTotal()), accounts: map[uint32]*account{}}
}

// open answers the account of a user whose directory is there.
func (l *ledger) open(uid uint32) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[uid]
	if a == nil {
		a = &account{uid: uid}
		l.accounts[uid] = a
	}
	a.dir = true
	return a
}

// close says that the directory has gone.
func (l *ledger) close(a *account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.dir = false
	l.settle(a)
}

func (l *ledger) settle(a *account) {
	l.version++
	if !a.dir && a.used == (amounts{}) && l.accounts[a.uid] == a {
		delete(l.accounts, a.uid)
	}
}

// limit is the most that an account may have, and whether that is for the sake of others. Of what all may have together, a
// user gets no more than he leaves free: one alone gets half of it, n get a part in n+1 each, and whoever comes
// next still finds room. (It is the dynamic threshold that switches share their packet buffers by.)
func (l *ledger) limit(a *account, i int) (most int64, others bool) {
	if free := l.total[i] - l.used[i]; free < l.perUser[i] {
		return free, true
	}
	return l.perUser[i], false
}

// short is the first budget that has no room for more, -1 if all have.
func (l *ledger) short(a *account, more *amounts) int {
	for i, n := range more {
		if n > 0 {
			if most, _ := l.limit(a, i); n > most-a.used[i] {
				return i
			}
		}
	}
	return -1
}

// forgiven is what of an account's reading for nothing each poll forgives.
const forgiven = 1 << 20

// waste tells whether too much was read for nothing of late, after adding n bytes to it. Only the strings of series cost
// much to read; everything else is known from a file's size and a few words.
func (a *account) waste(n int64, poll uint64) bool {
	a.wasted = max(a.wasted-int64(min(poll-a.wastedAt, 1<<20))*forgiven, 0) + n
	a.wastedAt = poll
	return a.wasted >= forgiven
}

// late refuses a segment unread, after too much was.
func (a *account) late(path string, has amounts) *BudgetError {
	e := *a.wastedOn
	e.Path, e.needs = path, has
	return &e
}

// fits tells whether there is room for that much.
func (l *ledger) fits(a *account, more *amounts) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.short(a, more) < 0
}

func (l *ledger) room() (freed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freed
}

func (l *ledger) at() (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

// await counts the files that wait for room.
func (l *ledger) await(a *account, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.waiting += n
	l.version++
}

// usage is everybody's, by uid.
func (l *ledger) usage() (all Usage, users []Usage, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = Usage{UID: -1, Used: l.used.budget(), Limit: l.total.budget()}
	for _, a := range l.accounts {
		var most amounts
		for i := range most {
			most[i], _ = l.limit(a, i)
		}
		users = append(users, Usage{UID: int(a.uid), Used: a.used.budget(), Limit: most.budget(), Refused: a.waiting, SkippedSeries: a.skipped})
		all.Refused += a.waiting
		all.SkippedSeries += a.skipped
	}
	slices.SortFunc(users, func(x, y Usage) int { return x.UID - y.UID })
	return all, users, l.version
}

// claim is what one segment takes. A nil one, of a segment opened alone, takes what it wants. Until the segment
// is admitted, a claim that finds no room is an error; afterwards the segment goes on with less.
type claim struct {
	l        *ledger
	of       *account
	path     string
	has      amounts
	admitted bool
	closed   bool
	err      *BudgetError // what was missing before it was admitted
}

// take takes n of one budget, all of it or nothing.
func (c *claim) take(i int, n int64) bool {
	if c == nil {
		return true
	}
	var more amounts
	more[i] = n
	return c.takeAll(&more)
}

func (c *claim) takeAll(more *amounts) bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.closed {
		return false
	}
	if i := c.l.short(c.of, more); i >= 0 {
		c.miss(i, more[i])
		return false
	}
	c.add(more)
	return true
}

func (c *claim) add(more *amounts) {
	for i, n := range more {
		c.has[i] += n
		c.of.used[i] += n
		c.l.used[i] += n
	}
	c.l.version++
}

// miss notes what is wanted and not to be had.
func (c *claim) miss(i int, n int64) {
	if c.admitted || c.err != nil {
		return
	}
	most, others := c.l.limit(c.of, i)
	c.err = &BudgetError{Path: c.path, UID: int(c.of.uid), Total: others, Budget: budgetNames[i], Want: max(most, 0), Got: c.of.used[i] + n, needs: c.has}
	c.err.needs[i] += n
}

// give gives n of one budget back.
func (c *claim) give(i int, n int64) {
	if c == nil || n == 0 {
		return
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if !c.closed {
		var less amounts
		less[i] = -n
		c.add(&less)
		c.l.freed++
	}
}

// close gives everything back. What a segment gives that was never admitted is no new room.
func (c *claim) close() {
	if c == nil {
		return
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	for i, n := range c.has {
		c.of.used[i] -= n
		c.l.used[i] -= n
	}
	c.has = amounts{}
	if c.admitted {
		c.l.freed++
	}
	c.l.settle(c.of)
}

func pairsLength(pairs []Pair) (n int64) {
	for _, p := range pairs {
		n += int64(len(p.Name) + len(p.Value))
	}
	return n
}

func (c *claim) admit() {
	c.l.mu.Lock()
	c.admitted = true
	c.l.mu.Unlock()
}

// series takes descriptors up to n, and answers how many there are.
func (c *claim) series(n uint32) uint32 {
	if c == nil {
		return n
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	more := int64(n) - c.has[ofSeries]
	if more <= 0 {
		return n
	}
	most, _ := c.l.limit(c.of, ofSeries)
	got := min(more, max(most-c.of.used[ofSeries], 0))
	if c.closed {
		got = 0
	}
	if got < more {
		c.miss(ofSeries, more)
	}
	if got > 0 && (got == more || c.admitted) {
		c.add(&amounts{ofSeries: got})
	}
	return uint32(c.has[ofSeries])
}

// skip counts series that found no room.
func (c *claim) skip(n uint32) {
	if c == nil {
		return
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.of.skipped += uint64(n)
	c.l.version++
}

// failed is the error of a claim that found no room before it was admitted.
func (c *claim) failed() error {
	if c == nil || c.err == nil {
		return nil
	}
	return c.err
}
