// Package killtest kills the daemon while it archives: at each place that failpoint names, and at any other moment. Afterwards the
// archive is read by somebody else: no row is missing, none is there twice, and each has the values that its writer gave it.
package killtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/testenv"
	"github.com/shmts/shmts/layout"
)

// kills is how often the daemon is killed; SHMTS_KILLS says otherwise.
func kills(t *testing.T) int { return testenv.Number(t, "SHMTS_KILLS", 20, 12) }

// places at which the daemon is killed. TestPlaces holds them against the code.
var places = []string{
	"archiver.flush.gathered", "archiver.flush.written", "archiver.drain.written", "archiver.exemplars.written", "archiver.synced",
	"archive.append.encoded", "archive.append.placed", "archive.append.written", "archive.sync.done",
	"archiver.sweep.folded", "archiver.sweep.written", "archiver.sweep.mark", "archive.mark.written",
	"archive.seal.begun", "archive.seal.index", "archive.seal.trailer", "archive.seal.synced", "archive.reuse.folded", "archive.reuse.header", "archive.reuse.synced",
	"source.unlink.begun", "source.unlink.done",
}

var builtIn string

// built is the daemon with its places in.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shmts-killtest-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "shmtsd")
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace failpoint", "-o", path, "../../cmd/shmtsd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

type stage struct {
	t            *testing.T
	store, state string
	page         []uint64
	pagePath     string
	tier         string
	writers      *exec.Cmd
	log          bytes.Buffer // of the daemon that lived last
	diedAt       map[string]int
	more         []string // arguments of the daemon
}

// start starts a process that does not outlive the test.
func (s *stage) start(cmd *exec.Cmd) {
	s.t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func (s *stage) startWriters() {
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.writers = exec.Command(exe)
	s.writers.Env = append(os.Environ(), pageEnv+"="+s.pagePath, "SHMTS_DIR="+s.store)
	s.writers.Stderr = os.Stderr
	s.start(s.writers)
}

// rounds lets the writers do so many.
func (s *stage) rounds(n int) {
	atomic.AddUint64(&s.page[pageTarget], uint64(n))
}

// settled waits until the writers have done what they may.
func (s *stage) settled() {
	s.t.Helper()
	s.waitFor("the writers", func() error {
		if done, target := atomic.LoadUint64(&s.page[pageDone]), atomic.LoadUint64(&s.page[pageTarget]); done < target {
			return fmt.Errorf("want %d rounds done, got %d", target, done)
		}
		return nil
	})
}

func (s *stage) waitFor(what string, ok func() error) {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited 30 s for %s: %v\nthe daemon said:\n%s", what, err, s.log.String())
		}
		time.Sleep(3 * time.Millisecond)
	}
}

type daemon struct {
	s     *stage
	cmd   *exec.Cmd
	base  string
	ended chan struct{}
}

// daemon starts one. failpoints is what it dies of, if not of us.
func (s *stage) daemon(failpoints string) *daemon {
	s.t.Helper()
	path, err := built()
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.log.Reset()
	d := &daemon{s: s, base: "http://" + address, ended: make(chan struct{})}
	d.cmd = exec.Command(path, "--listen", address, "--store", s.store, "--archive.dir", s.state, "--archive.tiers", s.tier, "--archive.sync-interval", "100ms", "--archive.ephemeral=false",
		"--archive.user-bytes-per-second", "1GiB", "--poll-interval", "50ms", "--dead-ttl", "5s", "--self-metrics=false", "--log.level", "warn")
	d.cmd.Args = append(d.cmd.Args, s.more...)
	d.cmd.Env = append(os.Environ(), "SHMTS_FAILPOINTS="+failpoints)
	d.cmd.Stderr = &s.log
	s.start(d.cmd)
	go func() {
		d.cmd.Wait()
		close(d.ended)
	}()
	return d
}

// metric is the value of one of its metrics.
func (d *daemon) metric(name string) (float64, error) {
	select {
	case <-d.ended:
		return 0, errors.New("the daemon has ended")
	default:
	}
	resp, err := http.Get(d.base + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("want %s, got no such line", name)
}

// calm waits until everything that is due was written.
func (d *daemon) calm() {
	d.s.t.Helper()
	first := -1.0
	d.s.waitFor("looks at the store", func() error {
		n, err := d.metric("shmtsd_archive_polls_total")
		if err != nil {
			return err
		}
		if first < 0 {
			first = n
		}
		if n < first+3 {
			return fmt.Errorf("got %v, at first %v", n, first)
		}
		return nil
	})
}

func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.ended
}

// newStage is one for so many lives of the daemon.
func newStage(t *testing.T, lives int) *stage {
	store, err := os.MkdirTemp("/dev/shm", "shmts-killtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	s := &stage{t: t, store: store, state: filepath.Join(t.TempDir(), "archive"), pagePath: filepath.Join(t.TempDir(), "page"), diedAt: map[string]int{}}
	// Small extents are sealed often; none is reused as long as there are enough.
	s.tier = fmt.Sprintf("100ms=%dKiB,1s=%dKiB", 1100+lives*50, 1100+lives*50)
	if s.page, err = openPage(s.pagePath, true); err != nil {
		t.Fatal(err)
	}
	return s
}

// finish kills the writers, has everything drained, and checks it.
func (s *stage) finish() {
	t := s.t
	s.settled()
	s.writers.Process.Kill()
	s.writers.Wait()
	d := s.daemon("")
	s.waitFor("everything drained", func() error {
		left, err := filepath.Glob(filepath.Join(s.store, "*", "*.shmts"))
		if err != nil {
			return err
		}
		drained, err := d.metric("shmtsd_archive_segments_drained_total")
		if err == nil && int(drained) < len(left) {
			err = fmt.Errorf("want %d, got %v", len(left), drained)
		}
		return err
	})
	d.pass()
	s.waitFor("everything folded", func() error {
		n, err := d.metric("shmtsd_archive_unfolded_tables")
		if err == nil && n > 0 {
			err = fmt.Errorf("got %v that are not", n)
		}
		return err
	})
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	if !d.cmd.ProcessState.Success() {
		t.Errorf("after SIGTERM: want status 0, got %v\n%s", d.cmd.ProcessState, s.log.String())
	}
	s.check()
}

// One daemon after another is killed at each place, whatever it takes until it comes there.
func TestEachPlace(t *testing.T) {
	s := newStage(t, 0)
	s.startWriters()
	for _, place := range places {
		if place == "source.unlink.begun" && os.Getenv("SHMTS_KILLS") == "" {
			continue // five seconds for each of the two: the other one will do
		}
		d := s.daemon(place + ":1")
		deadline := time.Now().Add(60 * time.Second)
		for alive := true; alive; {
			if strings.HasPrefix(place, "source.") {
				time.Sleep(20 * time.Millisecond)
			} else {
				s.rounds(4)
				s.settled()
				d.pass()
			}
			select {
			case <-d.ended:
				alive = false
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: want the daemon killed there, got it alive after 60 s\n%s", place, s.log.String())
			}
		}
		if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: want SIGKILL, got %v\n%s", place, d.cmd.ProcessState, s.log.String())
		}
	}
	s.finish()
}

// pass waits until the archiver has looked once more, or the daemon has ended.
func (d *daemon) pass() {
	first := -1.0
	d.s.waitFor("a look at the store", func() error {
		n, err := d.metric("shmtsd_archive_polls_total")
		select {
		case <-d.ended:
			return nil
		default:
		}
		if err == nil && first < 0 {
			first = n
		}
		if err == nil && n <= first {
			err = fmt.Errorf("got %v", n)
		}
		return err
	})
}

func TestDaemonKilled(t *testing.T) {
	n := kills(t)
	s := newStage(t, n)
	s.startWriters()
	for i := range n {
		place := places[i%len(places)]
		d := s.daemon(fmt.Sprintf("%s:%d", place, 1+rand.IntN(2)))
		s.rounds(1 + rand.IntN(8))
		if i%12 == 5 { // the writers die as well
			s.settled()
			s.writers.Process.Kill()
			s.writers.Wait()
			s.startWriters()
		}
		select {
		case <-d.ended:
			s.diedAt[place]++
		case <-time.After(60*time.Millisecond + time.Duration(rand.IntN(200))*time.Millisecond):
			d.kill()
		}
		if s.log.Len() > 0 && strings.Contains(s.log.String(), "panic") {
			t.Fatalf("the daemon said:\n%s", s.log.String())
		}
		if i%4 == 3 { // so that no ring goes round unread
			d := s.daemon("")
			s.settled()
			d.calm()
			d.kill()
		}
	}
	s.finish()
	t.Logf("died at %v", s.diedAt)
}

// check reads the archive and holds it against what the writers did.
func (s *stage) check() {
	t := s.t
	a, err := archive.OpenReader(s.state)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if tier := a.Tiers()[0]; tier.Skipped > 0 || tier.Evicted > 0 || tier.Generation > uint64(tier.Extents) {
		t.Errorf("want nothing skipped and nothing evicted, got %+v", tier)
	}
	exemplars := s.exemplars(a)
	rows, segments := 0, 0
	for slot := range int(s.page[pageSlots]) {
		w := s.page[pageFirst+slot*slotWords:][:slotWords]
		id := [16]byte(layout.Bytes(w[:2]))
		found, err := a.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 && w[3] == 0 {
			continue // killed before its birth
		}
		if len(found) != 1 {
			t.Errorf("segment %x, %d rows, state %d: want one incarnation, got %d", id, w[2], w[3], len(found))
			continue
		}
		segments++
		n := s.hold(a, found[0], w[2], w[3] == stateClosed)
		rows += n
		s.holdFolded(a, found[0], n)
		least, most := w[2], w[2]+1
		if w[3] == stateClosed {
			least++
		}
		if got := exemplars[id]; got < least || got > most {
			t.Errorf("segment %x: want exemplars 1 to %d or %d, got %d", id, least, most, got)
		}
	}
	if segments < writersAtOnce {
		t.Errorf("want at least %d segments, got %d", writersAtOnce, segments)
	}
	total := uint64(0)
	for _, n := range exemplars {
		total += n
	}
	t.Logf("%d segments, %d rows, %d exemplars, %d extents", segments, rows, total, a.Tiers()[0].Generation)
}

// exemplars reads all exemplars: of each segment all from 1 on, each once, as its writer left it. It answers how many.
func (s *stage) exemplars(a *archive.Archive) map[[16]byte]uint64 {
	last := map[[16]byte]uint64{}
	for p, err := range a.Exemplars(context.Background(), archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			s.t.Fatal(err)
		}
		id := p.Source.Segment
		for _, x := range p.List {
			if x.Number != last[id]+1 {
				s.t.Errorf("segment %x: want exemplar %d, got %d", id, last[id]+1, x.Number)
			}
			last[id] = x.Number
			if want := exemplar(x.Number); x.Value != 1 || x.TraceID != want.TraceID || x.SpanID != want.SpanID || p.Schema.Series[x.Series].Name != "c0" {
				s.t.Errorf("segment %x: exemplar %d: got %+v of %s", id, x.Number, x, p.Schema.Series[x.Series].Name)
			}
		}
	}
	return last
}

// hold holds one segment's rows against the number of rows ticked.
func (s *stage) hold(a *archive.Archive, inc *archive.Incarnation, ticked uint64, closed bool) (rows int) {
	t := s.t
	var cols []archive.Column
	for _, sr := range inc.Series {
		cols = append(cols, archive.Column{Series: sr})
	}
	next, final, estimated := uint64(1), false, false
	for c, err := range a.Read(inc, 0, 0, math.MinInt64, math.MaxInt64, cols) {
		if err != nil {
			t.Fatal(err)
		}
		if final || estimated {
			t.Errorf("segment %x: want the end at the end, got rows from %d on behind it", inc.Segment, c.Numbers[0])
		}
		final, estimated = c.Final, c.Estimated
		for i, no := range c.Numbers {
			if no != next {
				t.Errorf("segment %x: want row %d, got %d", inc.Segment, next, no)
			}
			next = no + 1
			for j, col := range cols {
				k, least := uint64(0), uint64(no)
				if estimated && i == len(c.Numbers)-1 {
					least = no - 1 // killed before it recorded
				}
				v, present := uint64(0), c.Cells[j] != nil && (c.Present[j] == nil || c.Present[j][i])
				if present {
					v = c.Cells[j][i]
				}
				fmt.Sscan(col.Series.Name[1:], &k)
				low, high := math.Float64bits(noise(least, int(k))), math.Float64bits(noise(no, int(k)))
				if strings.HasPrefix(col.Series.Name, "c") {
					low, high = least*(k+1), no*(k+1)
				} else if least == 0 && !present {
					continue // never set
				}
				if v != low && v != high {
					t.Errorf("segment %x, row %d, %s: want %d or %d, got %d", inc.Segment, no, col.Series.Name, low, high, v)
				}
			}
			rows++
		}
	}
	switch last := next - 1; {
	case closed && (!final || last != ticked+1):
		t.Errorf("segment %x: want %d rows, the last one final, got %d, %v", inc.Segment, ticked+1, last, final)
	case !closed && (!estimated && !final || last < ticked+1 || last > ticked+2):
		t.Errorf("segment %x: want %d rows, the last one last words, got %d, %v", inc.Segment, ticked+1, last, estimated)
	}
	return rows
}

// holdFolded holds the coarser tier's rows against the number of finer ones: each is in one of them, and counts are those of the last.
func (s *stage) holdFolded(a *archive.Archive, inc *archive.Incarnation, rows int) {
	t := s.t
	var cols []archive.Column
	for _, sr := range inc.Series {
		if sr.Name == "c2" {
			cols = append(cols, archive.Column{Series: sr})
		}
	}
	if len(inc.Tables[0].Tiers) != 2 {
		t.Errorf("segment %x: want two tiers, got %+v", inc.Segment, inc.Tables[0].Tiers)
		return
	}
	n := uint64(0)
	for c, err := range a.Read(inc, 0, 1, math.MinInt64, math.MaxInt64, cols) {
		if err != nil {
			t.Fatal(err)
		}
		for i, cover := range c.Coverage {
			n += cover
			if v := c.Cells[0][i]; v != 3*n && (v != 3*(n-1) || n < uint64(rows)) {
				t.Errorf("segment %x: up to row %d: want %d, got %d", inc.Segment, n, 3*n, v)
			}
		}
	}
	if n != uint64(rows) {
		t.Errorf("segment %x: want %d rows folded, got %d", inc.Segment, rows, n)
	}
}

// Every place of the code is in the list.
func TestPlaces(t *testing.T) {
	for _, dir := range []string{"../archive", "../archiver", "../source"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range strings.Split(string(text), `failpoint.Here("`)[1:] {
				name, _, _ := strings.Cut(part, `"`)
				// These two are seldom come to: archiver's own tests of the Sweeper end it before and after whatever it writes.
				known := name == "archiver.copy" || name == "archiver.sweep.ephemeral"
				for _, p := range places {
					known = known || p == name
				}
				if !known {
					t.Errorf("%s: %s is a place at which nobody kills the daemon: add it to places", f, name)
				}
			}
		}
	}
}

// The disk fails at a write or a sync, from then on: the daemon serves, says what is wrong, and unlinks nothing; the next one, whose
// disk works, has every row.
func TestDiskFails(t *testing.T) {
	for _, place := range []string{"archive.write", "archive.sync"} {
		t.Run(place, func(t *testing.T) {
			s := newStage(t, 30)
			s.startWriters()
			s.rounds(30)
			d := s.daemon(place + ":2:error")
			stopped := func() error {
				s.rounds(1)
				n, err := d.metric(`shmtsd_archive_stopped{reason="other"}`)
				if err == nil && n != 1 {
					err = fmt.Errorf("got %v", n)
				}
				time.Sleep(20 * time.Millisecond)
				return err
			}
			s.waitFor("archiving to stop", stopped)
			s.settled()
			resp, err := http.Get(d.base + "/-/ready")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || !strings.Contains(string(text), "archiving is stopped: ") {
				t.Errorf("/-/ready: want 200 and that archiving is stopped, got %s, %q, %v", resp.Status, text, err)
			}
			if n := strings.Count(s.log.String(), "archiving stopped"); n != 1 {
				t.Errorf("want it said once, got %d times\n%s", n, s.log.String())
			}
			d.kill()
			s.finish()
		})
	}
}
