package history

import (
	"sync"

	"github.com/shmts/shmts/reader"
)

// pair is how the series of a living segment and those that the archive has of it go together. The archive knows series by
// what they say of themselves, a segment by their descriptors: one that was retired and registered again is two there.
type pair struct {
	gone   []*reader.Series // that the archive alone has: their descriptors are others' now
	starts []int64          // of those, unix ms

	of    map[*reader.Series]*reader.Series // the archive's; nil: none
	lives map[*reader.Series][2]int64       // unix ms, of those that are not the only one of their identity: [from, to)
}

func (p *pair) archived(s *reader.Series) *reader.Series { return p.of[s] }

// life is when a series had its identity for itself; false if it always has.
func (p *pair) life(s *reader.Series) (from, to int64, ok bool) {
	if p.lives == nil {
		return 0, 0, false
	}
	l, ok := p.lives[s]
	return l[0], l[1], ok
}

// pairs keeps what was found out, by the identity of both slices: neither is ever changed, and both are the same from query to query.
type pairs struct {
	mu sync.Mutex
	of map[pairKey]*pair
}

type pairKey struct {
	living, archived **reader.Series
	n, m             int
}

// keepPairs bounds them.
const keepPairs = 4096

// get pairs series; starts are those of the archive's.
func (c *pairs) get(living, archived []*reader.Series, starts []int64) *pair {
	key := pairKey{n: len(living), m: len(archived)}
	if len(living) > 0 {
		key.living = &living[0]
	}
	if len(archived) > 0 {
		key.archived = &archived[0]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.of[key]; p != nil {
		return p
	}
	if len(c.of) >= keepPairs {
		clear(c.of)
	}
	p := newPair(living, archived, starts)
	c.of[key] = p
	return p
}

func newPair(living, archived []*reader.Series, starts []int64) *pair {
	p := &pair{of: make(map[*reader.Series]*reader.Series, len(living))}
	byIdentity := make(map[string][]*reader.Series, len(living)) // of the living, in the order of their starts
	for _, s := range living {
		key := identity(s)
		list := append(byIdentity[key], s)
		for i := len(list) - 1; i > 0 && list[i].Start < list[i-1].Start; i-- {
			list[i], list[i-1] = list[i-1], list[i]
		}
		byIdentity[key] = list
	}
	for i, a := range archived {
		list := byIdentity[identity(a)]
		for k, s := range list {
			p.of[s] = a
			if len(list) == 1 {
				continue
			}
			if p.lives == nil {
				p.lives = map[*reader.Series][2]int64{}
			}
			life := [2]int64{-1 << 63, 1<<63 - 1}
			if k > 0 {
				life[0] = floor(s.Start)
			}
			if k+1 < len(list) {
				life[1] = floor(list[k+1].Start)
			}
			p.lives[s] = life
		}
		if list != nil {
			continue
		}
		p.gone, p.starts = append(p.gone, a), append(p.starts, starts[i])
	}
	return p
}
