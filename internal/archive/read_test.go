package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// readAll reads all that an archive shows in a tier, as whoever asks it does, and says what is wrong with it: a row's source and values
// follow from its number.
func (w *world) readAll(a *Archive, tier int) (rows map[rowID]bool, wrong []string, err error) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	rows = map[rowID]bool{}
	if tier == 0 {
		wrong = w.readExemplars(a, rows)
	}
	found, err := a.Select(context.Background(), Selection{To: 1 << 60, Tiers: []int{tier}})
	for _, inc := range found {
		if want := w.source(int(inc.Inode)); fmt.Sprint(*inc.Source) != fmt.Sprint(*want) && len(want.Attributes)+len(inc.Attributes) > 0 || inc.Key != want.Key {
			say("source: want %+v, got %+v", *want, *inc.Source)
		}
		if len(inc.Starts) != len(inc.Series) {
			say("starts: want %d, got %d", len(inc.Series), len(inc.Starts))
		}
		for table := range inc.Tables {
			for k, tt := range inc.Tables[table].Tiers {
				var columns []Column
				for _, s := range inc.Series {
					for _, f := range Fields(s.Kind, tt.Folded) {
						columns = append(columns, Column{s, f})
					}
				}
				last := uint64(0)
				for c, e := range a.Read(inc, table, k, 0, 1<<60, columns) {
					if e != nil {
						err = errors.Join(err, e)
						continue
					}
					for i, no := range c.Numbers {
						id := rowID{inc.Key, no}
						if rows[id] || no <= last {
							say("row %d of %x: want it once, behind %d", no, inc.Segment[:4], last)
						}
						last, rows[id] = no, true
						if c.Times[i] != w.time(no) || c.Folded && c.Coverage[i] != no%10+1 {
							say("row %d of %x: want time %d, got %d", no, inc.Segment[:4], w.time(no), c.Times[i])
						}
						for j, col := range columns {
							there := c.Present[j] == nil || c.Present[j][i]
							if c.Cells[j] == nil || !there {
								if c.Cells[j] != nil && w.present(inc.Key, col.Series.Name, no) {
									say("row %d of %x: %s: want it there", no, inc.Segment[:4], col.Series.Name)
								}
								continue
							}
							width := len(c.Cells[j]) / len(c.Numbers)
							if width == 0 || width*len(c.Numbers) != len(c.Cells[j]) {
								say("row %d of %x: %s: want cells of %d rows, got %d", no, inc.Segment[:4], col.Series.Name, len(c.Numbers), len(c.Cells[j]))
							}
							for cell, got := range c.Cells[j][i*width : (i+1)*width] {
								want := w.word(inc.Key, col.Series.Name, col.Field, isFloat(col.Series, col.Field) && cell == 0, no, cell)
								if got != want || !w.present(inc.Key, col.Series.Name, no) {
									say("row %d of %x: %s, field %d: want %#x, got %#x", no, inc.Segment[:4], col.Series.Name, col.Field, want, got)
								}
							}
						}
					}
				}
			}
		}
	}
	return rows, wrong, err
}

// small makes an archive of three extents, two of them sealed, and answers its file.
func small(t testing.TB, w *world, seed uint64) (data []byte, rows map[rowID]bool) {
	r := rand.New(rand.NewPCG(seed, 9))
	s := newSim(r)
	a := mustOpen(t, Options{Dir: "a", Tiers: []TierOptions{{time.Second, 4096 + 3*minExtentSize}}, ExtentSize: minExtentSize, Files: s})
	defer a.Close()
	rows = map[rowID]bool{}
	for i := range 12 {
		if i > 0 && i%4 == 0 {
			if err := a.turn(0, a.tiers[0]); err != nil {
				t.Fatal(err)
			}
		}
		b := w.block(r, w.schemas[i%3], false, []int{i % 4 * 2, 8, 10}, 10+i%2*20)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		for id := range rowsOf(b) {
			rows[id] = true
		}
	}
	if err := errors.Join(a.SetMark(0, Mark{5, 5}), a.Sync()); err != nil {
		t.Fatal(err)
	}
	return s.image(true).files[filepath.Join("a", "1s.tier")].data, rows
}

func imageFiles(data []byte) *sim {
	s := newSim(rand.New(rand.NewPCG(1, 1)))
	s.file(filepath.Join("a", "1s.tier"), data)
	return s
}

// A bit that is flipped anywhere hides what it is part of, and makes no other value; Check finds it, and nothing in an archive that is whole.
func TestReadFlips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, rows := small(t, w, 1)
	if found := check("a", imageFiles(good)); len(found) > 0 {
		t.Fatalf("a whole archive: want no findings, got %v", found)
	}
	a, err := openReader("a", imageFiles(good))
	if err != nil {
		t.Fatal(err)
	}
	ends := usedEnds(a) // every byte before them is checked
	lastBlock := tierHeaderArea + 2*minExtentSize + ends[2] - BlockHeaderSize - markSize
	r := rand.New(rand.NewPCG(2, 2))
	stride := flipStride()
	flips, less := 0, 0
	for at, by := 0, 0; at < len(good); at += by {
		data := bytes.Clone(good)
		data[at] ^= 1 << r.IntN(8)
		in := at >= tierHeaderArea && (at-tierHeaderArea)%minExtentSize < ends[(at-tierHeaderArea)/minExtentSize]
		if by = stride; !in && at >= TierHeaderSize && !atTrailer(at) {
			by = min(977, nextUsed(at)-at) // nothing lies here
		}
		last := at >= lastBlock && in // what a crash has left there, for all that anybody can tell
		if found := check("a", imageFiles(data)); (in || at < TierHeaderSize) != (len(found) > 0) && !atTrailer(at) && !last {
			t.Fatalf("byte %d, of what is checked: %v: got findings %v", at, in, found)
		}
		flips++
		a, err := openReader("a", imageFiles(data))
		if err != nil {
			if at >= TierHeaderSize {
				t.Fatalf("byte %d: %v", at, err)
			}
			continue
		}
		got, wrong, err := w.readAll(a, 0)
		if err != nil || len(wrong) > 0 {
			t.Fatalf("byte %d: %v %v", at, err, wrong)
		}
		if len(got) < len(rows) {
			less++
		}
		if !in && len(got) != len(rows) && !atTrailer(at) {
			t.Fatalf("byte %d, of nothing: want %d rows, got %d", at, len(rows), len(got))
		}
		if n := a.Tiers()[0].Skipped; len(got) < len(rows) && n == 0 && (at-tierHeaderArea)%minExtentSize >= ExtentHeaderSize {
			t.Fatalf("byte %d: %d rows of %d, and nothing counted", at, len(got), len(rows))
		}
	}
	if less < flips/10 {
		t.Errorf("want rows hidden by many of %d flips, got %d", flips, less)
	}
	t.Logf("%d flips, %d hid rows", flips, less)
}

// nextUsed is where the trailer of an extent, or the first extent, begins behind a place.
func nextUsed(at int) int {
	if at < tierHeaderArea {
		return tierHeaderArea
	}
	return at - (at-tierHeaderArea)%minExtentSize + minExtentSize - TrailerSize
}

func atTrailer(at int) bool {
	return at >= tierHeaderArea && (at-tierHeaderArea)%minExtentSize >= minExtentSize-TrailerSize
}

// Whoever reads beside the writer, in its process or another, sees right rows alone, and all of those that were appended before and are in extents
// that are still there.
func TestSelectBeside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := mustOpen(t, Options{Dir: dir, Tiers: []TierOptions{{time.Second, 4096 + 6*minExtentSize}}, ExtentSize: minExtentSize})
	defer a.Close()
	other, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var wg sync.WaitGroup
	done := make(chan struct{})
	var mu sync.Mutex
	var newest []map[rowID]bool // of the last appends: two extents' worth at least is never evicted while one is read
	seen := make([]int, 3)
	for i, from := range []*Archive{a, other, other} {
		wg.Add(1)
		w := newWorld(t)
		go func() {
			defer wg.Done()
			for {
				mu.Lock()
				must := slices.Clone(newest)
				generation := a.End(0).Generation
				mu.Unlock()
				got, wrong, err := w.readAll(from, 0)
				if err != nil || len(wrong) > 0 {
					t.Errorf("reader %d: %v %v", i, err, wrong)
					return
				}
				if a.End(0).Generation < generation+2 {
					for _, rows := range must {
						for id := range rows {
							if !got[id] {
								t.Errorf("reader %d: row %d of %x: want it among %d", i, id.no, id.key.Segment[:4], len(got))
								return
							}
						}
					}
				}
				seen[i] = max(seen[i], len(got))
				for _, err := range from.Blocks(0, Mark{}) {
					if err != nil {
						t.Error(err)
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		}()
	}
	w, r := newWorld(t), rand.New(rand.NewPCG(3, 3))
	for i := range 400 {
		b := w.block(r, w.schemas[i%3], false, []int{i % 7 * 2, 20 + i%5*2}, 20)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		newest = append(newest, rowsOf(b))
		newest = newest[max(0, len(newest)-10):]
		mu.Unlock()
	}
	close(done)
	wg.Wait()
	if a.End(0).Generation < 8 || slices.Contains(seen, 0) {
		t.Errorf("want rows seen and extents reused, got %v and generation %d", seen, a.End(0).Generation)
	}
	for i, from := range []*Archive{a, other} {
		if n := from.Tiers()[0].Skipped; n > 0 {
			t.Errorf("archive %d: want nothing skipped, as nothing is damaged, got %d", i, n)
		}
	}
	if found := Check(dir); len(found) > 0 {
		t.Errorf("want no findings, got %v", found)
	}
}

// resign makes all checks right again, from the inside out, of what lies where good says that structures are.
func resign(t testing.TB, good, data []byte) {
	a, err := openReader("a", imageFiles(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range a.tiers[0].all() {
		x := data[e.t.at(e.slot):][:e.t.size()]
		end := e.end.Load()
		if e.trailer != nil {
			end += e.trailer.IndexLength
		}
		for off := uint32(ExtentHeaderSize); off < end; {
			b, err := e.readAt(off, BlockHeaderSize)
			if err != nil {
				t.Fatal(err)
			}
			h := decodeBlockHeader(b)
			block := x[off : off+h.Length]
			switch h.Type {
			case blockRows:
				whole, _ := e.readAt(off+BlockHeaderSize, h.Head)
				head, err := e.seed.cutRowsHead(off, &h, whole)
				if err != nil {
					t.Fatal(err)
				}
				from := uint32(0)
				for _, to := range head.ends {
					if at := BlockHeaderSize + h.Head + from; to > from {
						le.PutUint32(block[at:], e.check(off+at+4, block[at+4:BlockHeaderSize+h.Head+to]))
					}
					from = to
				}
				le.PutUint32(block[BlockHeaderSize:], e.check(off+BlockHeaderSize+4, block[BlockHeaderSize+4:BlockHeaderSize+h.Head]))
			case blockIndex:
				offsets, err := e.section(sectionSourceOffsets)
				if err != nil {
					t.Fatal(err)
				}
				for o := 0; o+2*sourceEntrySize <= len(offsets); o += sourceEntrySize {
					from := BlockHeaderSize + e.sections[sectionSources].Offset + le.Uint32(offsets[o:])
					to := BlockHeaderSize + e.sections[sectionSources].Offset + le.Uint32(offsets[o+sourceEntrySize:])
					le.PutUint32(block[BlockHeaderSize+e.sections[sectionSourceOffsets].Offset+uint32(o)+4:], e.check(off+from, block[from:to]))
				}
				for i, s := range e.sections {
					at := BlockHeaderSize + s.Offset
					le.PutUint32(block[BlockHeaderSize+8+i*indexEntrySize+8:], e.check(off+at, block[at:at+s.Length]))
				}
			}
			le.PutUint32(block[12:], e.check(off+BlockHeaderSize, block[BlockHeaderSize:]))
			e.seed.sign(off, block[:BlockHeaderSize])
			off += h.Length
		}
		if e.trailer != nil {
			e.seed.sign(e.limit(), x[e.limit():])
		}
	}
}

// FuzzRead reads an archive whose bytes say anything, with checks that are right: what a writer gone wrong would leave. Nothing may panic, or take more
// memory than the file's size allows.
func FuzzRead(f *testing.F) {
	w := newWorld(f)
	good, _ := small(f, w, 2)
	r := rand.New(rand.NewPCG(4, 4))
	for range 40 {
		var patches []byte
		for range 1 + r.IntN(4) {
			patches = append(patches, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()))
		}
		f.Add(patches)
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		data := bytes.Clone(good)
		for ; len(patches) >= 4; patches = patches[4:] { // three bytes say where, one what
			at := tierHeaderArea + (int(patches[0])|int(patches[1])<<8|int(patches[2])<<16)%(len(data)-tierHeaderArea)
			data[at] = patches[3]
		}
		for gen := range 3 { // extents' own headers stay: without them nothing is read
			at := tierHeaderArea + gen*minExtentSize
			copy(data[at:at+ExtentHeaderSize], good[at:])
		}
		resign(t, good, data)
		check("a", imageFiles(data))
		a, err := openReader("a", imageFiles(data))
		if err != nil {
			return
		}
		eq := Matcher{Name: "job", Equal: "job1", Match: func(s string) bool { return s == "job1" }}
		for _, labels := range [][]Matcher{nil, {eq}, {{Name: "instance", Match: func(s string) bool { return s > "vm2" }}, {Name: "x", Equal: "y", Match: func(s string) bool { return s == "y" }}}} {
			for _, s := range []Selection{{To: 1 << 60}, {From: worldBirth + 100_000, To: worldBirth + 200_000}} {
				s.Labels = labels
				found, _ := a.Select(context.Background(), s)
				for _, inc := range found {
					var columns []Column
					for _, series := range inc.Series {
						for _, f := range Fields(series.Kind, true) {
							columns = append(columns, Column{series, f})
						}
					}
					for table := range inc.Tables {
						for tier := range inc.Tables[table].Tiers {
							for c, err := range a.Read(inc, table, tier, s.From, s.To, columns) {
								if err == nil && len(c.Numbers) != len(c.Times) {
									t.Fatalf("want as many numbers as times, got %d and %d", len(c.Numbers), len(c.Times))
								}
							}
						}
					}
				}
			}
		}
		for i := range 12 {
			if _, err := a.Find(w.source(i).Segment); err != nil {
				t.Logf("find: %v", err)
			}
		}
		for range a.Blocks(0, Mark{}) {
		}
	})
}
