package main

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// seriesOf are a source's as the archive has them.
func seriesOf(s *corpus.Source) []*reader.Series {
	var out []*reader.Series
	for i := range s.Series {
		c := &s.Series[i]
		r := &reader.Series{Definition: &reader.Definition{Name: c.Name, Labels: c.Labels, Kind: reader.Gauge, Number: reader.U64}}
		if c.Counter {
			r.Kind = reader.Counter
		} else {
			r.Number = reader.I64
		}
		if c.Float {
			r.Number = reader.F64
		}
		if c.Buckets > 0 {
			r.Kind, r.Buckets = reader.Histogram, reader.BucketRange{Scale: 3, Min: -c.Buckets / 2, Count: c.Buckets}
		}
		out = append(out, r)
	}
	return out
}

// sourceOf is the i-th source as the archive has it. kind keeps apart what is numbered from 0 each.
func sourceOf(kind byte, i int, birth int64, labels []reader.Pair) *archive.Source {
	s := &archive.Source{Birth: birth * 1e6, Inode: uint64(i) + 1, UID: 1000, Labels: labels}
	binary.LittleEndian.PutUint64(s.Segment[:], mix(uint64(i)<<8|uint64(kind)))
	binary.LittleEndian.PutUint64(s.Segment[8:], mix(uint64(i)<<8|uint64(kind)|1<<63))
	s.Group = s.Segment
	binary.LittleEndian.PutUint64(s.Boot[:], mix(1))
	return s
}

func mix(x uint64) uint64 { // splitmix64: ids are random, and do not compress
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// rowsOf are a source's rows from i to j.
func rowsOf(src *archive.Source, s *corpus.Source, i, j int, ends bool) archive.Rows {
	r := archive.Rows{Source: src, Times: s.Times[i:j], Base: uint64(j), Starts: make([]int64, len(s.Series)), Estimated: ends}
	for k := i; k < j; k++ {
		r.Numbers = append(r.Numbers, uint64(k+1))
	}
	for k := range s.Series {
		c := &s.Series[k]
		r.Starts[k] = s.Birth
		width := 1
		if c.Buckets > 0 {
			width = c.Buckets + 3
		}
		r.Cells = append(r.Cells, c.Values[i*width:j*width])
		if c.Present != nil {
			if r.Present == nil {
				r.Present = make([][]bool, len(s.Series))
			}
			r.Present[k] = c.Present[i:j]
		}
	}
	return r
}

// held reads back what the archive has of a source, and says where it is something else.
func held(a *archive.Archive, src *archive.Source, s *corpus.Source) error {
	found, err := a.Find(src.Segment)
	if err != nil || len(found) != 1 {
		return fmt.Errorf("shmts: archive: want the one source, got %d (%v)", len(found), err)
	}
	inc, n := found[0], 0
	var columns []archive.Column
	for i, sr := range inc.Series {
		if sr.Name != s.Series[i].Name {
			return fmt.Errorf("shmts: archive: want series %s, got %s", s.Series[i].Name, sr.Name)
		}
		f := archive.Last
		if s.Series[i].Buckets > 0 {
			f = archive.Hist
		}
		columns = append(columns, archive.Column{Series: sr, Field: f})
	}
	for chunk, err := range a.Read(inc, 0, 0, 0, 1<<62, columns) {
		if err != nil {
			return err
		}
		rows := len(chunk.Times)
		if !slices.Equal(chunk.Times, s.Times[n:n+rows]) {
			return fmt.Errorf("shmts: archive: times of rows from %d on are other ones", n)
		}
		for i := range columns {
			c := &s.Series[i]
			width := 1
			if c.Buckets > 0 {
				width = c.Buckets + 3
			}
			for k, v := range chunk.Cells[i] {
				there := chunk.Present == nil || chunk.Present[i] == nil || chunk.Present[i][k/width]
				if want := c.Present == nil || c.Present[n+k/width]; there != want || there && v != c.Values[n*width+k] {
					return fmt.Errorf("shmts: archive: %s, row %d: want %#x (%v), got %#x (%v)", c.Name, n+k/width, c.Values[n*width+k], want, v, there)
				}
			}
		}
		n += rows
	}
	if n != len(s.Times) {
		return fmt.Errorf("shmts: archive: want %d rows, got %d", len(s.Times), n)
	}
	return nil
}
