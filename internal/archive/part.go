package archive

import (
	"fmt"
	"math"
)

// part is what Part needs of a block.
type part struct {
	tier    int
	v       *view
	session *session
	sources []uint32 // ordinals of BlockInfo's Sources
}

// Part reads the rows of one of a block's Sources, by its place there: all that the block has of it, in the order of their numbers, whatever other
// blocks have too, as columns, and when each series of the block's schema was registered, unix ms. False: the block was evicted since, or what it
// says there fails a check. It is for one goroutine at a time, and the chunk is valid until the next call for the block.
func (a *Archive) Part(info *BlockInfo, source int, columns []Column) (c *Chunk, starts []int64, ok bool, err error) {
	p := info.part
	if p == nil || source < 0 || source >= len(p.sources) {
		return nil, nil, false, fmt.Errorf("shmts: archive: part: want one of %d sources of a block that Blocks yielded, got %d", len(info.Sources), source)
	}
	if p.session == nil {
		p.session = &session{}
	}
	s := span{v: p.v, ordinal: p.sources[source], posts: []uint32{0}}
	r := rowsReader{a: a, p: &parts{session: p.session, spans: []span{s}}, table: info.Schema.Table, tier: p.tier, from: math.MinInt64, to: math.MaxInt64,
		columns: columns, d: decoders.Get().(*decoder), readMemory: &readMemory{}}
	defer decoders.Put(r.d)
	if err = r.block(0, 0, func() bool { ok = true; return true }); err == nil && ok {
		var b *rowsBlock
		var k int
		if b, k, err = r.open(&s, &p.v.refs[0]); err == nil {
			starts, err = r.d.starts(b, k, len(info.Schema.Series), info.Sources[source].Birth)
		}
	}
	if err != nil {
		return nil, nil, false, p.v.e.failed(err)
	}
	return &r.c, starts, ok, nil
}
