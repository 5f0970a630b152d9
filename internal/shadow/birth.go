package shadow

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// A shadow is one segment's. Its words are mapped for as long as it is kept, which holds its lock; their pages are
// given back after each tick.
type shadow struct {
	h     *layout.Header
	words []uint64
	path  string
	uid   int // the owner of what is sampled
	used  Budget

	synced  bool   // descriptors are as used and changes of the segment say
	counts  uint64 // series_used and heap_used, as of then
	changes [layout.MaxTables]uint64
	tables  []table
	ended   bool
	failing bool
}

// table is what ticks keep of one.
type table struct {
	runs  []run
	cells int    // of a row
	row   uint64 // number of the newest base row
	epoch uint16 // of it
	tiers []tier
}

// tier is a ring as its publisher sees it.
type tier struct {
	head uint64
	time int64 // of the newest row; the birth's before the first
	mono int64
}

// minRows is how short a ring may become.
const minRows = 8

// maxLanes bounds what is read of a segment at each tick: 64 lanes of a hundred series, histograms among them.
const maxLanes = 4 << 20

// tiersOf are those of a shadow's table: the writers' defaults.
func tiersOf(name string) []layout.TierSchema {
	if name == "histograms" {
		return []layout.TierSchema{{Step: 10 * time.Second, Rows: 30}}
	}
	return []layout.TierSchema{{Step: time.Second, Rows: 120}, {Step: 10 * time.Second, Rows: 60}}
}

// header lays out the shadow of a segment, with rings shortened until it fits in most bytes.
func header(h *layout.Header, most int64) (*layout.Header, error) {
	lay := func(share int) (*layout.Header, error) {
		s := layout.Schema{Series: int(h.Series.Count), HeapBytes: int(h.Heap.Length), Labels: h.Labels, Attributes: h.Attributes}
		for i := range h.Tables {
			t := &h.Tables[i]
			ts := layout.TableSchema{Name: layout.Text(t.Name[:]), Series: int(t.SeriesCapacity), Lanes: 1, RowCells: int(t.RowCells),
				LaneCells: int(t.LaneCells), SharedCells: int(t.SharedCells), Tiers: tiersOf(layout.Text(t.Name[:]))}
			for j := range ts.Tiers {
				ts.Tiers[j].Rows = max(ts.Tiers[j].Rows*share/64, minRows)
			}
			s.Tables = append(s.Tables, ts)
		}
		return layout.NewHeader(s)
	}
	for share := 64; ; share /= 2 {
		n, err := lay(share)
		if err == nil && int64(n.TotalSize) <= most {
			own, reserved := n.Superblock, n.Reserved
			n.Superblock = h.Superblock
			n.HeaderSize, n.TotalSize, n.SectionCount, n.SectionOffset = own.HeaderSize, own.TotalSize, own.SectionCount, own.SectionOffset
			n.Major, n.Minor, n.Compat, n.Incompat, n.Flags = own.Major, own.Minor, 0, 0, 0
			n.ShadowOf, n.Writer, n.Reserved = h.SegmentID, [32]byte{}, reserved
			copy(n.Writer[:], "shmtsd "+writer.Version)
			return n, nil
		}
		if share == 0 {
			if err == nil {
				err = fmt.Errorf("want room for %d bytes, with %d rows a ring, got %d: %w", n.TotalSize, minRows, most, errNoRoom)
			}
			return nil, err
		}
	}
}

var errNoRoom = errors.New("no room for a shadow")

// begin finds or makes the shadow of a segment. It is nil where there is none to be kept: it ended, or there
// can be none. Unsettled is a matter that the next poll may decide otherwise.
func (k *Keeper) begin(g *reader.Segment) (s *shadow, settled bool, err error) {
	if there := k.standing[g.ID()]; there != nil {
		switch {
		case there.Liveness().Ended():
			return nil, true, nil
		case there.Owner() != k.euid:
			return nil, false, nil // another daemon's, and believed
		}
		s, err = k.resume(there)
		if err == nil && !fits(s.h, g.Header()) {
			k.forget(s)
			s, err = nil, fmt.Errorf("want %s of the shape of what it shadows, got another", there.Path())
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, false, nil // held: by another daemon of this user's, for as long as it lives
		}
		return s, true, err
	}
	s, err = k.bear(g)
	return s, err == nil, err
}

// user is what is in use by the shadows of one user's segments.
func (k *Keeper) user(uid int) *Budget {
	if k.users[uid] == nil {
		k.users[uid] = &Budget{}
	}
	return k.users[uid]
}

// bear gives birth to the shadow of a segment.
func (k *Keeper) bear(g *reader.Segment) (*shadow, error) {
	from := g.Header()
	h, err := header(from, min(maxShadow, k.o.Total.Bytes-k.all.Bytes, k.o.PerUser.Bytes-k.user(g.UID()).Bytes))
	if err != nil {
		return nil, err
	}
	if from.Lanes.Length > maxLanes {
		return nil, fmt.Errorf("want at most %d bytes of lanes to sample, got %d: %w", maxLanes, from.Lanes.Length, errNoRoom)
	}
	rand.Read(h.SegmentID[:])
	h.UID = uint32(g.UID())
	words, path, err := writer.Birth(reader.Dir(k.o.Dir), "shadow-"+g.Job(), h, func([]uint64) {})
	if err != nil {
		return nil, err
	}
	s := &shadow{h: h, words: words, path: path}
	k.keep(s)
	for i := range h.Tables {
		t := table{tiers: make([]tier, h.Tables[i].Tiers)}
		for j := range t.tiers {
			t.tiers[j] = tier{time: h.BirthUnix, mono: h.BirthMono}
		}
		s.tables = append(s.tables, t)
	}
	k.stats.Begun++
	return s, nil
}

func (k *Keeper) keep(s *shadow) {
	s.uid = int(s.h.UID)
	k.count(s, Budget{Bytes: int64(s.h.TotalSize)})
}

// count adds to what is in use.
func (k *Keeper) count(s *shadow, more Budget) {
	for _, b := range []*Budget{&s.used, &k.all, k.user(s.uid)} {
		b.Bytes, b.Series, b.LabelBytes = b.Bytes+more.Bytes, b.Series+more.Series, b.LabelBytes+more.LabelBytes
	}
}

// room tells whether there is room for a further series.
func (k *Keeper) room(s *shadow, labels int64) bool {
	u := k.user(s.uid)
	return k.all.Series < k.o.Total.Series && k.all.LabelBytes+labels <= k.o.Total.LabelBytes &&
		u.Series < k.o.PerUser.Series && u.LabelBytes+labels <= k.o.PerUser.LabelBytes
}

// forget gives a shadow's mapping back, and with it the lock.
func (k *Keeper) forget(s *shadow) {
	if s.words != nil {
		unix.Munmap(layout.Bytes(s.words))
		s.words, s.tables = nil, nil
	}
	k.count(s, Budget{-s.used.Bytes, -s.used.Series, -s.used.LabelBytes})
	if *k.users[s.uid] == (Budget{}) {
		delete(k.users, s.uid)
	}
}

// fits tells whether a shadow has the shape of a segment: what is copied lies at the same places.
func fits(shadow, of *layout.Header) bool {
	same := shadow.ShadowOf == of.SegmentID && shadow.BootID == of.BootID && len(shadow.Tables) == len(of.Tables) &&
		shadow.Series.Count == of.Series.Count && shadow.Heap.Length == of.Heap.Length
	for i := range shadow.Tables {
		if !same {
			return false
		}
		a, b := &shadow.Tables[i], &of.Tables[i]
		same = a.Tiers > 0 && a.RowCells == b.RowCells && a.LaneCells == b.LaneCells && a.SharedCells == b.SharedCells
	}
	return same
}

// resume takes the lock of a shadow that another daemon of this user's left, and finds out where it was. unix.EAGAIN: it is held.
func (k *Keeper) resume(g *reader.Segment) (*shadow, error) {
	file, err := openOwn(g)
	if err != nil {
		return nil, fmt.Errorf("open %s to go on with it: %w", g.Path(), err)
	}
	defer file.Close() // the mapping keeps the lock
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(file.Fd()), 0, int(g.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", g.Path(), err)
	}
	if err := unix.Madvise(m, unix.MADV_DONTFORK); err != nil {
		unix.Munmap(m)
		return nil, fmt.Errorf("keep %s from children: %w", g.Path(), err)
	}
	s := &shadow{h: g.Header(), words: layout.Words(m), path: g.Path()}
	k.keep(s)
	s.findRows()
	k.stats.Resumed++
	return s, nil
}

// openOwn opens a shadow's file for writing. Its mode says that nobody may, so but for root it is lent a
// bit for a moment.
func openOwn(g *reader.Segment) (*os.File, error) {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open(g.Path(), unix.O_RDONLY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if dev, ino := g.Inode(); st.Dev != dev || st.Ino != ino || st.Size != g.Size() || int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("want inode %d of %d bytes and uid %d, got inode %d, %d bytes, uid %d", ino, g.Size(), os.Geteuid(), st.Ino, st.Size, st.Uid)
	}
	again := "/proc/self/fd/" + strconv.Itoa(fd)
	file, err := os.OpenFile(again, os.O_RDWR, 0)
	if errors.Is(err, unix.EACCES) {
		if err = unix.Fchmod(fd, 0o644); err == nil {
			file, err = os.OpenFile(again, os.O_RDWR, 0)
			err = errors.Join(err, unix.Fchmod(fd, 0o444))
		}
	}
	return file, err
}

// findRows finds the newest row of every ring. Heads are hints: who died between a row and its head left one more.
func (s *shadow) findRows() {
	for i := range s.h.Tables {
		d := &s.h.Tables[i]
		t := table{tiers: make([]tier, d.Tiers)}
		buf := make([]uint64, layout.RowWords+int(d.RowCells))
		for j := range t.tiers {
			t.tiers[j] = tier{time: s.h.BirthUnix, mono: s.h.BirthMono}
			ring, id := &d.Tier[j], s.h.RowIdentity(i, j)
			for slot := range uint64(ring.Rows) {
				words := s.words[(ring.Offset+slot*uint64(ring.RowStride))/8:][:len(buf)]
				no := layout.View[layout.RowHeader](words, 0).RowNo
				if no <= t.tiers[j].head || ring.Slot(no) != slot {
					continue
				}
				copy(buf, words)
				h, _, verdict := layout.DecodeRow(buf, id, no)
				if verdict != layout.RowOK {
					continue
				}
				t.tiers[j] = tier{head: no, time: h.T, mono: h.TMono}
				if j == 0 {
					t.row, t.epoch = no, h.Epoch
				}
			}
		}
		s.tables = append(s.tables, t)
	}
}
