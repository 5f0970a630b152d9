package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

var le = binary.LittleEndian

// archiveSeeds are the first tiers of the archives of spec/vectors.
func archiveSeeds(f *testing.F) (tiers [][]byte) {
	f.Helper()
	files, err := filepath.Glob("../spec/vectors/archive/*.image")
	if err != nil || len(files) == 0 {
		f.Fatalf("want archives in ../spec/vectors/archive, got %d (%v)", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var b []byte
		for line := range strings.Lines(string(text)) {
			word := strings.Fields(line)
			n, err := strconv.Atoi(word[len(word)-1])
			if word[0] == "file" {
				if err != nil || b != nil {
					break
				}
				b = make([]byte, n)
				continue
			}
			at, err := strconv.Atoi(word[0])
			piece, err2 := hex.DecodeString(word[1])
			if err != nil || err2 != nil || at+len(piece) > len(b) {
				f.Fatalf("%s: %q", path, line)
			}
			copy(b[at:], piece)
		}
		tiers = append(tiers, b)
	}
	return tiers
}

// tierSigner makes the checks of FORMAT.md 14.2 right.
type tierSigner struct {
	b          []byte // of the extent
	seed       []byte
	generation uint64
}

func (s *tierSigner) check(at int, b []byte) uint32 {
	seed := le.AppendUint64(le.AppendUint64(bytes.Clone(s.seed), s.generation), uint64(at))
	return crc32.ChecksumIEEE(append(seed, b...))
}

// put writes the check of [from, to) at a place, if all of it is there.
func (s *tierSigner) put(at, from, to int) {
	if from >= 0 && to >= from && to <= len(s.b) && at+4 <= len(s.b) {
		le.PutUint32(s.b[at:], s.check(from, s.b[from:to]))
	}
}

// signArchive makes every check of a tier's file right, as far as what they cover can be found, so that what lies behind them is looked at.
func signArchive(b []byte) {
	const size, limit = 65536, 65536 - 64
	if len(b) < 4096+size {
		return
	}
	le.PutUint32(b[0x3c:], crc32.ChecksumIEEE(b[:0x3c]))
	for slot := range (len(b) - 4096) / size {
		e := b[4096+slot*size:][:size]
		s := &tierSigner{b: e, seed: append(bytes.Clone(b[0x20:0x30]), b[0x18:0x20]...), generation: le.Uint64(e)}
		s.put(60, 0, 60)
		for at := 64; at+64 <= limit; {
			n := int(le.Uint32(e[at+8:]))
			if string(e[at:at+4]) != "SBLK" || n < 64 || n%8 != 0 || at+n > limit {
				at += 8
				continue
			}
			switch body := at + 64; le.Uint16(e[at+4:]) {
			case 3:
				s.rows(at, n)
			case 6:
				s.exemplars(at, n)
			case 5:
				for i := range 9 {
					if entry := body + 8 + 16*i; entry+16 <= at+n {
						from := body + int(le.Uint32(e[entry:]))
						s.put(entry+8, from, from+int(le.Uint32(e[entry+4:])))
					}
				}
			}
			s.put(at+12, at+64, at+n)
			s.put(at+60, at, at+60)
			at += n
		}
		s.put(limit+60, limit, limit+60)
	}
}

// rows makes the checks of the runs and the head of a rows block right.
func (s *tierSigner) rows(at, n int) {
	count, runs, head := int(le.Uint32(s.b[at+0x14:])), int(le.Uint32(s.b[at+0x30:])), int(le.Uint32(s.b[at+0x34:]))
	if head > n-64 || 8+48*count+4*runs != head {
		return
	}
	from := at + 64 + head
	for i := range runs {
		end := at + 64 + head + int(le.Uint32(s.b[at+64+8+48*count+4*i:]))
		if end-from >= 4 && end <= at+n {
			s.put(from, from+4, end)
		}
		from = end
	}
	s.put(at+64, at+68, at+64+head)
}

// exemplars makes the checks of the parts and the head of an exemplars block right.
func (s *tierSigner) exemplars(at, n int) {
	count, head := int(le.Uint32(s.b[at+0x14:])), int(le.Uint32(s.b[at+0x34:]))
	if head > n-64 || 8+24*count != head {
		return
	}
	from := at + 64 + head
	for i := range count {
		end := at + 64 + head + int(le.Uint32(s.b[at+64+8+24*i+12:]))
		if end-from >= 4 && end <= at+n {
			s.put(from, from+4, end)
		}
		from = end
	}
	s.put(at+64, at+68, at+64+head)
}

// FuzzArchive changes the archives of spec/vectors, with and without making all checks right, and opens them. An error means no archive; Check
// ends, too; what opens can be searched and read, in memory that the file's size and what is read bound, and is not written.
func FuzzArchive(f *testing.F) {
	tiers := archiveSeeds(f)
	for i := range tiers {
		f.Add(uint16(i), []byte{}, false)
		f.Add(uint16(i), []byte{byte(i), 0, byte(7 * i)}, true)
		f.Add(uint16(i), []byte{byte(3 * i), 1, 0xff, byte(5 * i), 2, 0}, true)
	}
	f.Fuzz(func(t *testing.T, which uint16, patches []byte, sign bool) {
		b := bytes.Clone(tiers[int(which)%len(tiers)])
		whole := !sign && len(patches) < 6 // one byte changed: no index that lies, nor one that is broken above blocks that are
		var places []int                   // that say something
		for i, c := range b {
			if c != 0 {
				places = append(places, i)
			}
		}
		for ; len(patches) >= 3 && len(places) > 0; patches = patches[3:] { // two bytes say where, one what
			b[places[int(le.Uint16(patches))%len(places)]] = patches[2]
		}
		if sign {
			signArchive(b)
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "1s.tier")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		found := archive.Check(dir)
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<30); used > most {
			t.Fatalf("check of a file of %d bytes: want at most %d bytes allocated, got %d", len(b), most, used)
		}
		a, err := archive.OpenReader(dir)
		if (a == nil) != (err != nil) {
			t.Fatalf("want an archive or an error, got %v and %v", a, err)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "shmts: ") {
				t.Fatalf("want an error that begins with shmts:, got %v", err)
			}
			return
		}
		defer a.Close()
		runtime.ReadMemStats(&before)
		read := readArchive(t, a, whole)
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(256<<20+64*len(b)+32*read); used > most {
			t.Fatalf("a file of %d bytes, of which %d words were read: want at most %d bytes allocated, got %d (Check said %v)", len(b), read, most, used, found)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
			t.Fatal("the reader wrote")
		}
	})
}

// readExemplars reads all exemplars, and answers how many words those were: each is of a series that can have any, and greater than the one before.
func readExemplars(t *testing.T, a *archive.Archive) (words int) {
	last := map[archive.Key]map[int]uint64{}
	for p, err := range a.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			t.Fatalf("want what fails a check counted, got %v", err)
		}
		key := archive.Key{Segment: p.Source.Segment, Copy: p.Source.Copy}
		if last[key] == nil {
			last[key] = map[int]uint64{}
		}
		for i := range p.List {
			x := &p.List[i]
			if before := last[key][p.Schema.Table]; x.Number <= before {
				t.Fatalf("exemplar %d after %d", x.Number, before)
			}
			last[key][p.Schema.Table] = x.Number
			if k := p.Schema.Series[x.Series].Kind; k != reader.Counter && k != reader.Histogram {
				t.Fatalf("exemplar of a %v", k)
			}
		}
		words += 8 * len(p.List)
		if at, err := a.FindExemplars(p.Source.Segment); err != nil {
			t.Fatalf("want what fails a check counted, got %v and %v", at, err)
		}
	}
	return words
}

// readArchive reads what an archive has, and answers how many words that was. A few bytes may stand for many rows: it
// stops after some. If it is whole, mostly, Find finds what Select does.
func readArchive(t *testing.T, a *archive.Archive, whole bool) (words int) {
	for range a.Blocks(0, archive.Mark{}) {
		words++
	}
	words += readExemplars(t, a)
	found, err := a.Select(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64})
	if err != nil {
		t.Fatalf("want what fails a check counted, got %v", err)
	}
	for _, inc := range found[:min(len(found), 20)] {
		if one, err := a.Find(inc.Segment); err != nil || len(one) == 0 && whole {
			t.Fatalf("want %x found again, got %d (%v)", inc.Segment, len(one), err)
		}
		if len(inc.Starts) != len(inc.Series) {
			t.Fatalf("want %d starts, got %d", len(inc.Series), len(inc.Starts))
		}
		for table := range inc.Tables {
			var columns []archive.Column
			for _, s := range inc.Series {
				for _, f := range archive.Fields(s.Kind, true) {
					if s.Table == table && len(columns) < 32 {
						columns = append(columns, archive.Column{Series: s, Field: f})
					}
				}
			}
			for tier := range inc.Tables[table].Tiers {
				last, chunks := uint64(0), 0
				for c, err := range a.Read(inc, table, tier, math.MinInt64, math.MaxInt64, columns) {
					if err != nil {
						t.Fatalf("want what fails a check counted, got %v", err)
					}
					n := len(c.Numbers)
					if n == 0 || len(c.Times) != n || c.Folded && len(c.Coverage) != n || len(c.Cells) != len(columns) {
						t.Fatalf("want as many times and coverages as the %d numbers, got %d and %d", n, len(c.Times), len(c.Coverage))
					}
					for i, no := range c.Numbers {
						if !c.Folded && no <= last {
							t.Fatalf("row %d after row %d", no, last)
						}
						last = no
						for k, cells := range c.Cells {
							width := 1
							if columns[k].Field == archive.Hist {
								width = columns[k].Series.Buckets.Count + 3
							}
							if cells != nil && len(cells) != n*width || c.Present[k] != nil && len(c.Present[k]) != n {
								t.Fatalf("row %d of %d, column %d: %d words, %d present", i, n, k, len(cells), len(c.Present[k]))
							}
							words += width
						}
					}
					if chunks++; chunks == 100 {
						break
					}
				}
			}
		}
	}
	return words
}
