package archive

import (
	"container/list"
	"errors"
	"slices"
	"sync"

	"github.com/shmts/shmts/reader"
)

// What is kept in memory between reads, bytes as they are reckoned: less than 4 MB with the extents' filters. Scanned is
// in use only where an index is broken.
const (
	keepSchemas  = 1 << 20
	keepUnions   = 1 << 20
	keepSections = 1 << 19
	keepHeads    = 1 << 19
	keepScanned  = 2 << 20
)

// reading is what those that read an archive share. Its zero value is ready.
type reading struct {
	following sync.Mutex // of a refresh
	schemas   cache[[16]byte, *Schema]
	unions    cache[string, *union]
	sections  cache[sectionKey, []byte]
	heads     cache[blockKey, *rowsBlock] // that Find read: it is called for one source of a cohort after the other
	scanned   cache[extentKey, *extent]   // sealed ones whose index is broken, read as if they had none
}

// extentKey names a use of an extent for as long as the archive lives.
type extentKey struct {
	t          *tier
	generation uint64
}

type sectionKey struct {
	extentKey
	section int
}

func (e *extent) key() extentKey { return extentKey{e.t, e.generation} }

// A cache keeps what was used last, up to a cost. What costs more than half of that is not kept. Its zero value is
// ready, and it is safe for concurrent use.
type cache[K comparable, V any] struct {
	mu   sync.Mutex
	at   map[K]*list.Element
	used list.List // the newest in front
	cost int
}

type kept[K comparable, V any] struct {
	key  K
	v    V
	cost int
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[k]
	if !ok {
		return v, false
	}
	c.used.MoveToFront(e)
	return e.Value.(*kept[K, V]).v, true
}

// put keeps v. If another got there first, that one is answered, so that all have the same.
func (c *cache[K, V]) put(k K, v V, cost, limit int) V {
	const entry = 200 // list, map and key
	if cost += entry; cost > limit/2 {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[k]; ok {
		return e.Value.(*kept[K, V]).v
	}
	if c.at == nil {
		c.at = map[K]*list.Element{}
	}
	c.at[k] = c.used.PushFront(&kept[K, V]{k, v, cost})
	for c.cost += cost; c.cost > limit; {
		last := c.used.Remove(c.used.Back()).(*kept[K, V])
		delete(c.at, last.key)
		c.cost -= last.cost
	}
	return v
}

// schema is one by its place in an extent.
func (a *Archive) schema(e *extent, ref schemaRef) (*Schema, error) {
	if s, ok := a.reading.schemas.get(ref.hash); ok {
		return s, nil
	}
	s, err := e.readSchema(ref)
	if err != nil {
		var d *damage
		if !errors.As(err, &d) {
			return nil, err
		}
		if s = a.sameSchema(e, ref.hash); s == nil {
			return nil, err
		}
		_ = e.failed(err) // counted, and nothing is lost
	}
	return a.reading.schemas.put(s.Hash, s, schemaCost(s), keepSchemas), nil
}

// sameSchema looks for a schema in all other extents. FORMAT.md 15.3.
func (a *Archive) sameSchema(e *extent, hash [16]byte) *Schema {
	for _, t := range a.tiers {
		for _, other := range t.all() {
			if other == e {
				continue
			}
			x, ix := a.index(other)
			refs, err := ix.schemas()
			if err != nil {
				continue // who reads that extent sees it
			}
			for _, ref := range refs {
				if ref.offset == 0 || ref.hash != hash {
					continue
				}
				if s, err := x.readSchema(ref); err == nil {
					return s
				}
			}
		}
	}
	return nil
}

func schemaCost(s *Schema) int {
	const series, pair = 8 + 160 + 8, 40 // the pointer, a reader.Series, an allocation's rounding
	n := 100
	for _, sr := range s.Series {
		n += series + len(sr.Name) + len(sr.Unit) + len(sr.Help)
		for _, p := range sr.Labels {
			n += pair + len(p.Name) + len(p.Value)
		}
	}
	return n
}

// readSchema reads a schema's block.
func (e *extent) readSchema(ref schemaRef) (*Schema, error) {
	b, h, err := e.block(ref.offset)
	if err != nil {
		return nil, err
	}
	if h.Type != blockSchema {
		return nil, e.bad(ref.offset, "type", blockSchema, h.Type)
	}
	s, err := cutSchema(b)
	if err != nil {
		return nil, e.bad(ref.offset, "schema", "a valid one", err)
	}
	if s.Hash != ref.hash || len(s.Series) != int(h.Count) {
		return nil, e.bad(ref.offset, "schema", ref.hash, s.Hash)
	}
	return s, nil
}

// A union is the series of a tuple of schemas, each once, in the order of the first schema that has it. All incarnations that have the same schemas
// share it.
type union struct {
	series []*reader.Series
	at     [][]int32 // by schema and its series: position in series
}

// union of schemas, oldest first; the newest one's order comes first.
func (a *Archive) union(schemas []*Schema) *union {
	key := make([]byte, 0, 16*len(schemas))
	for _, s := range schemas {
		key = append(key, s.Hash[:]...)
	}
	if u, ok := a.reading.unions.get(string(key)); ok {
		return u
	}
	u := &union{at: make([][]int32, len(schemas))}
	known := map[string]int32{}
	cost := 0
	for i := len(schemas) - 1; i >= 0; i-- {
		cost += schemaCost(schemas[i]) // which it keeps alive
		u.at[i] = make([]int32, len(schemas[i].Series))
		for k, s := range schemas[i].Series {
			id := identity(s)
			at, ok := known[id]
			if !ok {
				at = int32(len(u.series))
				known[id] = at
				u.series = append(u.series, s)
			}
			u.at[i][k] = at
			cost += 4 + 8
		}
	}
	return a.reading.unions.put(string(key), u, cost, keepUnions)
}

// identity is what a series is known by: name, labels, kind, number, table and buckets.
func identity(s *reader.Series) string {
	b := make([]byte, 0, 128)
	b = append(b, byte(s.Kind), byte(s.Number), byte(s.Table), byte(s.Table>>8), byte(s.Buckets.Scale))
	b = le.AppendUint32(b, uint32(s.Buckets.Count))
	b = le.AppendUint32(b, uint32(s.Buckets.Min))
	b = append(append(b, s.Name...), 0)
	for _, p := range s.Labels {
		b = append(append(b, p.Name...), 0)
		b = append(append(b, p.Value...), 0)
	}
	return string(b)
}

// sameSeries tells whether two have one identity.
func sameSeries(x, y *reader.Series) bool {
	return x == y || x.Name == y.Name && x.Kind == y.Kind && x.Number == y.Number && x.Table == y.Table && x.Buckets == y.Buckets && slices.Equal(x.Labels, y.Labels)
}
