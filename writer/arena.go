package writer

import "slices"

// arena hands out runs of cells, or bytes, of a fixed number of them: lowest
// place first, what was given back before what is new. used is how many were ever handed out.
type arena struct {
	used, cap int
	free      []span // by place, never touching each other
}

type span struct{ at, n int }

// take answers where n in a row are; false if there is no room.
func (a *arena) take(n int) (int, bool) {
	if n == 0 {
		return 0, true
	}
	for i, s := range a.free {
		if s.n < n {
			continue
		}
		if s.n == n {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i] = span{s.at + n, s.n - n}
		}
		return s.at, true
	}
	if n > a.cap-a.used {
		return 0, false
	}
	at := a.used
	a.used += n
	return at, true
}

// fits tells whether take would.
func (a *arena) fits(n int) bool {
	return n <= a.cap-a.used || slices.ContainsFunc(a.free, func(s span) bool { return s.n >= n })
}

// give takes back what take handed out.
func (a *arena) give(at, n int) {
	if n == 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(a.free, at, func(s span, at int) int { return s.at - at })
	a.free = slices.Insert(a.free, i, span{at, n})
	if i+1 < len(a.free) && at+n == a.free[i+1].at {
		a.free[i].n += a.free[i+1].n
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].at+a.free[i-1].n == at {
		a.free[i-1].n += a.free[i].n
		a.free = slices.Delete(a.free, i, i+1)
	}
}
