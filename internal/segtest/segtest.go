// Package segtest builds small segments for tests, to the byte and by hand: every
// time, id and cell is the caller's, nothing reads a clock. It is no writer: it records into
// cells directly, and publishes rows when told to.
package segtest

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// Birth is the time of birth of every segment built here, unless Options say otherwise.
const Birth = int64(1_700_000_000_000_000_000)

// BirthMono is its monotonic time.
const BirthMono = int64(1_000_000_000_000)

// Options of a Segment. The zero value is a table of 8 cells each with 2 lanes, 1 s x 8 and 4 s x 4.
type Options struct {
	Job, Instance     string // "test", "0"
	Labels            []layout.Pair
	Attributes        []layout.Pair
	ID                byte // every byte of the segment id; 0 is 1
	Group             byte // every byte of the group id; 0 is ID
	BirthUnix         int64
	BirthMono         int64
	Tables            []layout.TableSchema
	Series, HeapBytes int
	Sampled           bool
	Exemplars         int // slots of their ring; 0: none
}

// Segment is a segment in the making: W is its memory, private or mapped.
type Segment struct {
	H    *layout.Header
	W    []uint64
	Path string // once it is in a store

	heap   uint32
	used   uint32
	next   []cells
	series []layout.SeriesInfo
	file   *os.File
	mapped []byte
}

type cells struct{ row, lane, shared uint32 }

// New lays a segment out in private memory.
func New(tb testing.TB, o Options) *Segment {
	tb.Helper()
	h, err := header(o)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Segment{H: h, next: make([]cells, len(h.Tables))}
	s.W = make([]uint64, h.TotalSize/8)
	h.Encode(s.W)
	h.InitControl(s.W)
	return s
}

func header(o Options) (*layout.Header, error) {
	if o.Job == "" {
		o.Job = "test"
	}
	if o.Instance == "" {
		o.Instance = "0"
	}
	if o.ID == 0 {
		o.ID = 1
	}
	if o.Group == 0 {
		o.Group = o.ID
	}
	if o.BirthUnix == 0 {
		o.BirthUnix = Birth
	}
	if o.BirthMono == 0 {
		o.BirthMono = BirthMono
	}
	if o.Series == 0 {
		o.Series = 8
	}
	if o.HeapBytes == 0 {
		o.HeapBytes = 64 * o.Series
	}
	if o.Tables == nil {
		o.Tables = []layout.TableSchema{{Name: "scalars", Series: 8, Lanes: 2, RowCells: 8, LaneCells: 8, SharedCells: 8,
			Tiers: []layout.TierSchema{{Step: time.Second, Rows: 8}, {Step: 4 * time.Second, Rows: 4}}}}
	}
	h, err := layout.NewHeader(layout.Schema{Tables: o.Tables, Series: o.Series, HeapBytes: o.HeapBytes, Sampled: o.Sampled, Exemplars: o.Exemplars,
		Labels:     append([]layout.Pair{{Name: "job", Value: o.Job}, {Name: "instance", Value: o.Instance}}, o.Labels...),
		Attributes: o.Attributes})
	if err != nil {
		return nil, err
	}
	for i := range h.SegmentID {
		h.SegmentID[i], h.GroupID[i] = o.ID, o.Group
	}
	h.BirthUnix, h.BirthMono = o.BirthUnix, o.BirthMono
	h.Pid, h.UID = uint32(os.Getpid()), uint32(os.Getuid())
	copy(h.Writer[:], "segtest")
	return h, nil
}

// Series registers a series in a table and gives it the next free cells. Buckets is for histograms.
func (s *Segment) Series(tb testing.TB, table int, name string, k layout.Kind, n layout.Number, buckets layout.BucketRange, labels ...layout.Pair) *layout.SeriesInfo {
	tb.Helper()
	info := layout.SeriesInfo{Name: name, Labels: labels, Index: int(s.used)}
	info.Kind, info.Number, info.Table = k, n, uint16(table)
	if k == layout.Histogram {
		info.Scale, info.Buckets, info.BucketMin = int8(buckets.Scale), uint16(buckets.Count), int16(buckets.Min)
	}
	at := &s.next[table]
	c := k.Cells(buckets.Count)
	info.RowCell = at.row
	if c.Lane > 0 {
		info.LaneCell = at.lane
	}
	if c.Shared > 0 {
		info.SharedCell = at.shared
		s.Set(&info, n.Unset())
	}
	at.row, at.lane, at.shared = at.row+uint32(c.Row), at.lane+uint32(c.Lane), at.shared+uint32(c.Shared)
	info.BornUnix, info.BornRow = s.H.BirthUnix, s.OpenRow(table)
	strings, err := info.AppendStrings(nil)
	if err != nil {
		tb.Fatal(err)
	}
	info.Strings = s.heap
	s.Place(tb, &info, strings)
	return &info
}

// Place puts a descriptor of the caller's own making, and its strings, where Index and Strings say.
func (s *Segment) Place(tb testing.TB, info *layout.SeriesInfo, strings []byte) {
	tb.Helper()
	if uint64(info.Strings)+uint64(len(strings)) > s.H.Heap.Length || info.Index >= int(s.H.Series.Count) {
		tb.Fatalf("segtest: want series %d and its %d bytes of strings at %d inside %d series and a heap of %d bytes",
			info.Index, len(strings), info.Strings, s.H.Series.Count, s.H.Heap.Length)
	}
	layout.StoreSeries(s.W, s.H, info, strings)
	s.heap = max(s.heap, info.Strings+uint32(len(strings)))
	s.used = max(s.used, uint32(info.Index)+1)
	atomic.StoreUint64(&s.W[s.ctl(layout.CtlUsed)], uint64(s.used)|uint64(s.heap)<<32)
	t, at := s.table(int(info.Table)), s.next[info.Table]
	atomic.StoreUint64(&s.W[t+layout.TctlCellsUsed], uint64(at.row)|uint64(at.lane)<<32)
	atomic.StoreUint64(&s.W[t+layout.TctlSharedUsed], uint64(at.shared))
	s.series = append(s.series, *info)
}

func (s *Segment) ctl(word int) int { return int(s.H.Control.Offset/8) + word }
func (s *Segment) table(n int) int  { return s.ctl(layout.CtlTables + n*layout.TctlWords) }

// Control stores one word of the control block: Word numbers are layout's.
func (s *Segment) Control(word int, v uint64) { atomic.StoreUint64(&s.W[s.ctl(word)], v) }

// OpenRow is the number of the row being filled.
func (s *Segment) OpenRow(table int) uint64 {
	return atomic.LoadUint64(&s.W[s.table(table)+layout.TctlOpenRow])
}

// SetOpenRow stores it, as a tick's second step does.
func (s *Segment) SetOpenRow(table int, row uint64) {
	atomic.StoreUint64(&s.W[s.table(table)+layout.TctlOpenRow], row)
}

// SetHead stores a tier's head.
func (s *Segment) SetHead(table, tier int, row uint64) {
	atomic.StoreUint64(&s.W[s.table(table)+layout.TctlHead+tier], row)
}

// Lane is lane k of a table, Lanes being the overflow lane.
func (s *Segment) Lane(table, k int) []uint64 {
	t := &s.H.Tables[table]
	return s.W[(t.LanesOffset+uint64(k)*uint64(t.LaneStride))/8:][:t.LaneCells]
}

// Shared is the shared lane of a table.
func (s *Segment) Shared(table int) []uint64 {
	t := &s.H.Tables[table]
	return s.W[t.SharedOffset/8:][:t.SharedCells]
}

// Slot is the slot of exemplar n.
func (s *Segment) Slot(n uint64) []uint64 {
	return s.W[s.H.ExemplarOffset(n)/8:][:layout.ExemplarWords]
}

// Exemplar takes the next number and stores an exemplar of the series under it, as a writer does. Trace is every byte of the
// trace id, its complement every byte of the span id.
func (s *Segment) Exemplar(info *layout.SeriesInfo, value float64, t int64, trace byte) (n uint64) {
	x := layout.Exemplar{Series: uint32(info.Index), Generation: info.Generation(), Value: value, T: t}
	for i := range x.TraceID {
		x.TraceID[i] = trace
	}
	for i := range x.SpanID {
		x.SpanID[i] = ^trace
	}
	return s.StoreExemplar(&x)
}

// StoreExemplar takes the next number and stores x under it.
func (s *Segment) StoreExemplar(x *layout.Exemplar) (n uint64) {
	n = atomic.AddUint64(&s.W[s.ctl(layout.CtlExemplars)], 1)
	if !layout.StoreExemplar(s.Slot(n), s.H.ExemplarIdentity(), n, x) {
		atomic.AddUint64(&s.W[s.ctl(layout.CtlExemplarsDropped)], 1)
	}
	return n
}

// Set stores a gauge, or a stat's last.
func (s *Segment) Set(info *layout.SeriesInfo, bits uint64) {
	atomic.StoreUint64(&s.Shared(int(info.Table))[info.SharedCell], bits)
}

// Publish publishes row no of a tier, with the cells as given and times on the steps after birth.
func (s *Segment) Publish(table, tier int, no uint64, row []uint64) layout.RowHeader {
	step := int64(s.H.Tables[table].Tier[tier].Step)
	h := layout.RowHeader{RowNo: no, BaseRow: no,
		TBegin: s.H.BirthUnix + int64(no-1)*step, T: s.H.BirthUnix + int64(no)*step, TMono: s.H.BirthMono + int64(no)*step}
	if tier > 0 {
		h.BaseRow = no * uint64(step/int64(s.H.Tables[table].Tier[0].Step))
	}
	s.PublishRow(table, tier, &h, row)
	return h
}

// PublishRow publishes a row of the caller's own making, then head, open_row and, for the base tier, the heartbeat.
func (s *Segment) PublishRow(table, tier int, h *layout.RowHeader, row []uint64) {
	t := &s.H.Tables[table].Tier[tier]
	if tier == 0 {
		s.SetOpenRow(table, h.RowNo+1)
	}
	layout.PublishRow(s.W[t.RowOffset(h.RowNo)/8:][:t.RowStride/8], s.H.RowIdentity(table, tier), h, row)
	s.SetHead(table, tier, h.RowNo)
	if tier == 0 {
		s.Control(layout.CtlHeartbeat, uint64(h.TMono))
		atomic.AddUint64(&s.W[s.ctl(layout.CtlTicks)], 1)
	}
}

// Retire retires a series as of the next row.
func (s *Segment) Retire(info *layout.SeriesInfo) {
	info.RetiredRow = s.OpenRow(int(info.Table)) + 1
	layout.RetireSeries(s.W, s.H, info.Index, info.RetiredRow)
}

// Close says that the writer closed.
func (s *Segment) Close() {
	w := s.W[s.ctl(layout.CtlState)]
	s.Control(layout.CtlState, w&^0xffffffff|layout.StateClosed)
}

// Bytes are the segment's.
func (s *Segment) Bytes() []byte { return layout.Bytes(s.W) }

// Name is the file name that FORMAT.md 2 gives it.
func (s *Segment) Name() string {
	return fmt.Sprintf("%s.%s.shmts", layout.Value(s.H.Labels, "job"), hex.EncodeToString(s.H.SegmentID[:]))
}

// Birth puts the segment into a store as its own writer would, complete and locked; W is the file, mapped, from
// then on. The user's directory is made if it is missing. Die ends it, and so does the end of the test.
func (s *Segment) Birth(tb testing.TB, store string) {
	tb.Helper()
	if err := s.Give(store); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Die)
}

// Give is Birth outside of tests.
func (s *Segment) Give(store string) error {
	dir := filepath.Join(store, strconv.Itoa(os.Geteuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, s.Name())
	f, err := os.OpenFile(filepath.Join(dir, "."+s.Name()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	size := int64(len(s.W)) * 8
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		f.Close()
		return err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		f.Close()
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return err
	}
	copy(m, s.Bytes())
	s.W, s.mapped, s.file, s.Path = layout.Words(m), m, f, path
	return os.Rename(f.Name(), path)
}

// Leave writes the segment's bytes as a file that nobody holds a lock of: what a dead writer leaves behind.
func (s *Segment) Leave(tb testing.TB, store string) string {
	tb.Helper()
	dir := filepath.Join(store, strconv.Itoa(os.Geteuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	s.Path = filepath.Join(dir, s.Name())
	tmp := filepath.Join(dir, "."+s.Name())
	if err := os.WriteFile(tmp, s.Bytes(), 0o444); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(tmp, s.Path); err != nil {
		tb.Fatal(err)
	}
	return s.Path
}

// Die frees the lock as a kill does, and leaves the file as it is. W is private memory again.
func (s *Segment) Die() {
	if s.mapped == nil {
		return
	}
	w := make([]uint64, len(s.W))
	copy(w, s.W)
	s.W = w
	s.file.Close()
	unix.Munmap(s.mapped)
	s.mapped, s.file = nil, nil
}

// Store makes a private store: below /dev/shm where there is one, since tests of readers want tmpfs.
func Store(tb testing.TB) string {
	tb.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "shmts-test-"); err == nil {
		tb.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return tb.TempDir()
}
