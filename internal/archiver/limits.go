package archiver

import "time"

// burst is how many seconds' worth of bytes a user may write at once: blocks come some minutes apart.
const burst = 60

// limits hold what users write into tiers against a rate: a bucket each, which may go into debt by the last block.
type limits struct {
	rate int64 // bytes a second; 0: no limit
	at   map[userTier]*bucket
}

type userTier struct{ uid, tier int }

type bucket struct {
	bytes float64
	when  time.Time
	said  bool
}

func (b *bucket) fill(rate int64, now time.Time) {
	if d := now.Sub(b.when); d > 0 {
		b.bytes = min(b.bytes+d.Seconds()*float64(rate), burst*float64(rate))
		b.when = now
	}
}

func (l *limits) spend(uid, tier int, bytes int64, now time.Time) {
	if l.rate == 0 {
		return
	}
	k := userTier{uid, tier}
	b := l.at[k]
	if b == nil {
		b = &bucket{bytes: burst * float64(l.rate), when: now}
		l.at[k] = b
	}
	b.fill(l.rate, now)
	b.bytes -= float64(bytes)
}

// debt tells whether a user has to wait, and whether that was not so when it was asked last.
func (l *limits) debt(uid, tier int, now time.Time) (over, newly bool) {
	b := l.at[userTier{uid, tier}]
	if b == nil {
		return false, false
	}
	b.fill(l.rate, now)
	over = b.bytes < 0
	newly = over && !b.said
	b.said = over
	return over, newly
}

// over counts the users that are over, and forgets those that did not write for long.
func (l *limits) over(now time.Time) (n int) {
	for k, b := range l.at {
		b.fill(l.rate, now)
		switch {
		case b.bytes < 0:
			n++
		case b.bytes >= burst*float64(l.rate):
			delete(l.at, k)
		}
	}
	return n
}
