package export

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

var silent = slog.New(slog.DiscardHandler)

// seen is what a file of positions says.
type seen struct {
	known map[key]position
	marks map[int64]archive.Mark
}

func (p *positions) seen() seen {
	s := seen{map[key]position{}, map[int64]archive.Mark{}}
	for k, q := range p.known {
		s.known[k] = position{key: k, base: q.base, time: q.time, epoch: q.epoch, started: q.started, start: q.start, done: q.done, exemplar: q.exemplar}
	}
	for step, m := range p.marks {
		s.marks[step] = m
	}
	return s
}

// write makes some history: positions that come, move, end and go, and marks.
func write(t testing.TB, p *positions, r *rand.Rand, rounds int) (states []seen, sizes []int64) {
	t.Helper()
	var live []*position
	for i := range rounds {
		if len(live) < 5 || r.IntN(3) == 0 {
			live = append(live, p.add(key{segment: [16]byte{byte(i), byte(i >> 8), 1}, ino: r.Uint64(), table: i % 3}))
		}
		for _, q := range live {
			if r.IntN(2) == 0 {
				continue
			}
			q.base, q.time = q.base+uint64(r.IntN(100)), max(q.time, 1_800_000_000_000_000_000)+int64(r.IntN(20_000))*1e6
			if r.IntN(50) == 0 {
				q.base, q.done = 1+uint64(r.IntN(5)), false // rewound
			}
			if r.IntN(10) == 0 {
				q.epoch, q.started, q.start = uint16(r.IntN(70_000)), true, q.time-5e9
			}
			q.exemplar += uint64(r.IntN(2))
			done := r.IntN(20) == 0
			q.done = q.done || done
			p.moved(&move{position: q, base: q.base, time: q.time, exemplar: q.exemplar, epoch: q.started, done: done})
		}
		p.mark(10*time.Second, archive.Mark{Generation: uint64(i / 10), Offset: uint64(i * 64)})
		if len(live) > 12 {
			p.forget(live[0])
			live = live[1:]
		}
		p.commit()
		states, sizes = append(states, p.seen()), append(sizes, p.size)
	}
	return states, sizes
}

// only are those states of positions that are on the disk: those that were moved.
func (s seen) only() seen {
	out := seen{map[key]position{}, s.marks}
	for k, q := range s.known {
		if q.base > 0 || q.time > 0 {
			out.known[k] = q
		}
	}
	return out
}

// What was written is read again, through many rewritings.
func TestPositionsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x", "a.positions")
	id := [16]byte{1, 2, 3}
	r := rand.New(rand.NewPCG(1, 2))
	born := int64(1_700_000_000_000_000_000)
	for i := range 20 {
		p, err := openPositions(path, id, born+int64(i), silent)
		if err != nil {
			t.Fatal(err)
		}
		if p.fresh != (i == 0) || p.born != born {
			t.Fatalf("opened for the %d-th time: fresh %v, born %d", i, p.fresh, p.born)
		}
		before := p.seen().only()
		states, _ := write(t, p, r, 200)
		want := states[len(states)-1].only()
		p.sync()
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
		q, err := openPositions(path, id, 0, silent)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.seen().only(); !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d: want %d positions as they were (%d before), got %d", i, len(want.known), len(before.known), len(got.known))
		}
		if n := q.size; n > 300<<10 {
			t.Errorf("want the file written anew when most of it is history, got %d bytes", n)
		}
		if err := q.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Cut anywhere, or with any byte damaged, a file says what it said at some time before, and nothing else.
func TestPositionsDamaged(t *testing.T) {
	dir := t.TempDir()
	p, err := openPositions(filepath.Join(dir, "a"), [16]byte{9}, 5, silent)
	if err != nil {
		t.Fatal(err)
	}
	states, sizes := write(t, p, rand.New(rand.NewPCG(7, 8)), 12)
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	was := func(b []byte, upTo int) {
		t.Helper()
		path := filepath.Join(dir, "b")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := openPositions(path, [16]byte{9}, 5, silent)
		if err != nil {
			t.Fatalf("damaged at %d: %v", upTo, err)
		}
		defer q.close()
		want := seen{map[key]position{}, map[int64]archive.Mark{}}
		for i, size := range sizes {
			if size <= int64(upTo) {
				want = states[i].only()
			}
		}
		if got := q.seen().only(); !reflect.DeepEqual(got, want) {
			t.Fatalf("damaged at %d of %d: want the state before, %d positions, got %d", upTo, len(whole), len(want.known), len(got.known))
		}
		// And it goes on from there.
		k := q.add(key{segment: [16]byte{0xff}, ino: 1})
		k.base, k.time = 1, 1e9
		q.moved(&move{position: k, base: 1, time: 1e9})
		q.commit()
		q.close()
		again, err := openPositions(path, [16]byte{9}, 5, silent)
		if err != nil || again.of(k.key) == nil {
			t.Fatalf("damaged at %d: written behind it: %v", upTo, err)
		}
		again.close()
	}
	for n := range len(whole) {
		if n >= positionsHeader {
			was(whole[:n], n)
		}
	}
	for n := positionsHeader; n < len(whole); n++ {
		b := append([]byte(nil), whole...)
		b[n] ^= 1 << (n % 8)
		was(b, n)
	}
	for n := range positionsHeader { // without its header there is nothing
		b := append([]byte(nil), whole...)
		b[n] ^= 1 << (n % 8)
		was(b, 0)
	}
}

// Another version's file is refused, and left as it is; two processes don't write one; of another archive the marks are forgotten.
func TestPositionsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	p, err := openPositions(path, [16]byte{1}, 5, silent)
	if err != nil {
		t.Fatal(err)
	}
	p.mark(time.Second, archive.Mark{Generation: 3, Offset: 64})
	k := p.add(key{segment: [16]byte{5}})
	k.base, k.time = 7, 1e9
	p.moved(&move{position: k, base: 7, time: 1e9})
	p.commit()
	if _, err := openPositions(path, [16]byte{1}, 5, silent); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("open twice: want an error of the lock, got %v", err)
	}
	p.close()
	for _, id := range [][16]byte{{}, {1}, {2}} {
		q, err := openPositions(path, id, 5, silent)
		if err != nil {
			t.Fatal(err)
		}
		if marks := len(q.marks); marks != map[byte]int{0: 1, 1: 1, 2: 0}[id[0]] || q.of(k.key) == nil || q.of(k.key).base != 7 {
			t.Errorf("archive %d: got %d marks, position %+v", id[0], marks, q.of(k.key))
		}
		q.close()
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := rewriteVersion(b)
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPositions(path, [16]byte{1}, 5, silent); err == nil || !strings.Contains(err.Error(), "version 1") || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("version 2: want an error that says both, got %v", err)
	}
	if now, _ := os.ReadFile(path); !reflect.DeepEqual(now, other) {
		t.Error("want the file left as it is")
	}
}

// rewriteVersion makes the header one of version 2.
func rewriteVersion(b []byte) []byte {
	b = append([]byte(nil), b...)
	binary.LittleEndian.PutUint32(b[8:], 2)
	binary.LittleEndian.PutUint32(b[60:], crc32.ChecksumIEEE(b[:60]))
	return b
}

// A disk that fails: positions are in memory, it is counted, and all is written once it works.
func TestPositionsDiskFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	p, err := openPositions(path, [16]byte{1}, 5, silent)
	if err != nil {
		t.Fatal(err)
	}
	k := p.add(key{segment: [16]byte{5}})
	advance := func(base uint64) {
		k.base, k.time = base, int64(base)*1e9
		p.moved(&move{position: k, base: base, time: k.time})
		p.commit()
	}
	advance(1)
	p.f.Close() // writing to it fails
	advance(2)
	if p.failures != 1 || !p.broken {
		t.Errorf("want a failure counted, got %d, %v", p.failures, p.broken)
	}
	advance(3)
	if p.failures != 1 || p.broken {
		t.Errorf("want it written anew, got %d failures, %v", p.failures, p.broken)
	}
	p.close()
	q, err := openPositions(path, [16]byte{1}, 5, silent)
	if err != nil || q.of(k.key) == nil || q.of(k.key).base != 3 {
		t.Errorf("want position 3, got %+v, %v", q.of(k.key), err)
	}
	q.close()
}
