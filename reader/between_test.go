package reader_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// clocked is a segment whose rows are published as a writer's ticks do it, by a mono and a unix clock of the test's.
type clocked struct {
	*segtest.Segment
	mono, offset int64
	no           [2]uint64
}

const coarse = 7 // base rows to one of the further tier

func newClocked(t *testing.T, dir string, rows int) *clocked {
	ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: rows}, {Step: coarse * 1e9, Rows: rows / 3}}}
	ts.Add(1, layout.Counter, 0)
	f := &clocked{Segment: segtest.New(t, segtest.Options{Tables: []layout.TableSchema{ts}}), mono: segtest.BirthMono, offset: segtest.Birth - segtest.BirthMono}
	f.Series(t, 0, "n", layout.Counter, layout.U64, layout.BucketRange{})
	f.Birth(t, dir)
	return f
}

func (f *clocked) tick(pause int64) {
	f.mono += pause
	for tier := range f.no {
		if tier == 1 && f.no[0]%coarse != 0 {
			continue
		}
		f.no[tier]++
		f.PublishRow(0, tier, &layout.RowHeader{RowNo: f.no[tier], BaseRow: f.no[0], TMono: f.mono, T: f.mono + f.offset}, []uint64{f.no[0]})
	}
	f.Control(layout.CtlHeartbeat, uint64(f.mono))
	f.Control(layout.CtlClockOffset, uint64(f.offset))
}

// What Between and Newest answer is what a look at every row answers, whatever is remembered of the clock: while it is
// steady, slewed, stepped forth and back again, or a writer pauses or is not looked at for longer than its ring is.
func TestBetweenRemembers(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		t.Run(fmt.Sprintf("pread %v", noMap), func(t *testing.T) {
			dir := segtest.Store(t)
			f := newClocked(t, dir, 60)
			s := open(t, dir, reader.Options{NoMap: noMap})
			poll(t, s)
			g := s.Segments()[0]
			check := func(what string) {
				t.Helper()
				for tier := range f.no {
					var all []reader.Row
					for r := range g.Rows(0, tier, 0) {
						all = append(all, *r)
					}
					if len(all) == 0 {
						continue
					}
					newest := all[len(all)-1].Time
					for _, back := range []int64{0, 1, 25e8, 10e9, 59e9, 60e9, 61e9, 200e9} {
						for _, length := range []int64{0, 1e9, 30e9, 1 << 62} {
							begin, end := newest-back, newest-back+length
							var want, got, last []uint64
							for _, r := range all {
								if r.Time >= begin && r.Time <= end {
									want = append(want, r.No)
								}
							}
							for r := range g.Between(0, tier, begin, end) {
								got = append(got, r.No)
							}
							if !slices.Equal(got, want) {
								t.Fatalf("%s: row %d: tier %d, %v s back for %v s: want rows %v, got %v", what, f.no[0], tier, back/1e9, length/1e9, want, got)
							}
							for r := range g.Newest(0, tier, begin, end) {
								last = append(last, r.No)
							}
							if want = want[max(0, len(want)-1):]; !slices.Equal(last, want) {
								t.Fatalf("%s: row %d: tier %d, newest %v s back for %v s: want row %v, got %v", what, f.no[0], tier, back/1e9, length/1e9, want, last)
							}
						}
					}
				}
			}
			run := func(what string, ticks int, pause, slew int64) {
				t.Helper()
				for range ticks {
					f.offset += slew
					f.tick(pause)
					poll(t, s)
					check(what)
				}
			}
			run("steady", 80, 1e9, 0)
			run("slewed", 100, 1e9, 5e5)
			run("fast clock", 100, 1e9, 4e7)
			f.offset += 30e9
			run("stepped forth", 20, 1e9, 0)
			f.offset -= 30e9
			run("and back", 80, 1e9, 0)
			run("late ticks", 20, 37e8, 0)
			f.offset -= 12e9
			run("stepped back", 30, 1e9, 0)
			f.tick(45e9)
			poll(t, s)
			run("after a pause", 20, 1e9, 0)
			for range 20 { // nobody looks
				f.tick(1e9)
			}
			f.offset += 9e9
			for range 70 {
				f.tick(1e9)
			}
			poll(t, s)
			check("not looked at for more than a ring")
			run("looked at again", 130, 1e9, 0)
			for i := range 20 { // polls see it, and no query
				if f.tick(1e9); i == 5 {
					f.offset -= 9e9
				}
				if i == 10 {
					f.offset += 9e9
				}
				poll(t, s)
			}
			check("stepped back and forth between two queries")
			run("looked at again", 130, 1e9, 0)
		})
	}
}

// A query of the newest rows costs one read a segment and tier. That is what makes one over a thousand segments
// cheap, and what no test of answers would notice.
func TestBetweenReadsOnce(t *testing.T) {
	reads := func() (n int) {
		b, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skip("no count of system calls: ", err)
		}
		_, rest, _ := strings.Cut(string(b), "syscr: ")
		fmt.Sscan(rest, &n)
		return n
	}
	own := reads()
	own = reads() - own // of the counting itself
	dir := segtest.Store(t)
	f := newClocked(t, dir, 120)
	for range 100 { // the ring's end lies not inside what is asked for
		f.tick(1e9)
	}
	s := open(t, dir, reader.Options{NoMap: true})
	poll(t, s)
	g := s.Segments()[0]
	between := func(tier int, back int64) func() int {
		return func() (n int) {
			for range g.Between(0, tier, f.mono+f.offset-back, 1<<62) {
				n++
			}
			return n
		}
	}
	newest := func() (n int) {
		for range g.Newest(0, 0, f.mono+f.offset-3e9, 1<<62) {
			n++
		}
		return n
	}
	between(0, 1e9)() // the first look is at the oldest row too
	between(1, 1e9)()
	f.tick(1e9)
	poll(t, s)
	for _, c := range []struct {
		what  string
		query func() int
		rows  int
		want  int
	}{
		{"the last 2.5 s", between(0, 25e8), 3, 1},
		{"the same again", between(0, 25e8), 3, 1},
		{"a minute", between(0, 60e9), 61, 1},
		{"a minute of the further tier", between(1, 60e9), 9, 1},
		{"after the newest", between(0, -1), 0, 1},
		{"the newest", newest, 1, 1},
	} {
		before := reads()
		rows := c.query()
		if got := reads() - before - own; got > c.want || rows != c.rows {
			t.Errorf("%s: want %d rows in %d reads, got %d in %d", c.what, c.rows, c.want, rows, got)
		}
	}
}

// A broken row counts once, however often it is asked for, and so does the next one in its slot.
func TestSkippedRowsCountOnce(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		t.Run(fmt.Sprintf("pread %v", noMap), func(t *testing.T) {
			dir := segtest.Store(t)
			f := newClocked(t, dir, 60)
			s := open(t, dir, reader.Options{NoMap: noMap})
			breakRow := func() {
				ring := &f.H.Tables[0].Tier[0]
				f.W[ring.RowOffset(f.no[0])/8+layout.RowHeaderSize/8]++ // a cell that the checksum does not know
			}
			want := uint64(0)
			check := func() {
				t.Helper()
				poll(t, s)
				g := s.Segments()[0]
				for range 3 {
					for range g.Rows(0, 0, 0) {
					}
					for range g.Between(0, 0, 0, 1<<62) {
					}
					for range g.Newest(0, 0, 0, 1<<62) {
					}
				}
				if got := g.Counters().SkippedRows; got != want {
					t.Fatalf("at row %d: want %d rows skipped, got %d", f.no[0], want, got)
				}
			}
			for i := range 200 {
				f.tick(1e9)
				if i%10 == 3 || i == 63 || i == 123 {
					breakRow()
					want++
				}
				check()
			}
			for i := range 150 { // more than a ring that nobody reads: what is left of it counts
				f.tick(1e9)
				if breakRow(); i >= 90 {
					want++
				}
			}
			check()
		})
	}
}
