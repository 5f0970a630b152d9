package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// flush has writers of 100 series each tick under a clock of its own, and archives their rows as the daemon does, on a disk: what a sample
// costs from the rings to the disk, with and without what is folded of it, and how much the disk is given for it.
func flush(o options) error {
	for _, folding := range []bool{false, true} {
		f, err := newFlusher(o.segments, folding)
		if err != nil {
			return err
		}
		err = f.run(max(o.rounds, 5))
		if err := errors.Join(err, f.close()); err != nil {
			return err
		}
	}
	return nil
}

type flusher struct {
	folding  bool
	dir      string // the archive's
	store    string
	clock    atomic.Int64
	began    int64
	writers  []*appWriter
	register *source.Register
	archive  archive.Writer
	archiver *archiver.Archiver
	closers  []func() error

	written int64 // bytes handed to the files
}

// appWriter records the application mix: as hostmix.App draws it, but through record calls.
type appWriter struct {
	w        *writer.Writer
	counters []*writer.Counter
	sums     []*writer.FloatCounter
	gauges   []*writer.Gauge
	rates    []int
	r        *rand.Rand
}

func newFlusher(segments int, folding bool) (f *flusher, err error) {
	f = &flusher{folding: folding}
	if f.dir, err = scratch(); err != nil {
		return nil, err
	}
	if f.store, err = os.MkdirTemp("/dev/shm", "shmts-flush-"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.dir))
	}
	f.began = time.Now().Truncate(time.Minute).UnixNano()
	f.clock.Store(f.began)
	now := func() time.Time { return time.Unix(0, f.clock.Load()) }
	tiers := []archive.TierOptions{{Step: time.Second, Budget: 512 << 20}, {Step: 10 * time.Second, Budget: 256 << 20}, {Step: 5 * time.Minute, Budget: 256 << 20}}
	w, err := archive.Open(archive.Options{Dir: f.dir, Tiers: tiers, Files: counted{archive.SystemFiles(), f}})
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	f.archive = w
	f.closers = append(f.closers, w.Close)
	f.register, err = source.Open(source.Options{Store: reader.Options{Dir: f.store, MapBytes: 4 << 20}, Now: now})
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	f.closers = append(f.closers, f.register.Close)
	ao := archiver.Options{Archive: w, Now: now, SyncInterval: 5 * time.Second}
	segmentsOf := func() (out []archiver.Segment) {
		for _, s := range f.register.Segments() {
			out = append(out, s)
		}
		return out
	}
	if folding { // as cmd/shmtsd has them
		sweeper := archiver.NewSweeper(archiver.SweepOptions{Archive: w, Ephemeral: true})
		ao.Archive, ao.Missing, ao.Swept = sweeper, sweeper.Missing, sweeper.Sweep
		f.archiver = archiver.New(ao, segmentsOf)
		sweeper.Through(f.archiver.Writer(), f.archiver.Live)
	} else {
		f.archiver = archiver.New(ao, segmentsOf)
	}
	for i := range segments {
		a := &appWriter{r: rand.New(rand.NewPCG(uint64(i), 7))}
		a.w, err = writer.Open(writer.Options{Job: "flush", Instance: strconv.Itoa(i), Dir: f.store, NoTicker: true, Histograms: -1, Stats: -1, Series: 100,
			Clock: func() (int64, int64) { now := f.clock.Load(); return now, now - f.began + 1e12 }})
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.closers = append(f.closers, func() error { a.w.Close(); return nil })
		for k := range 100 {
			switch k % 10 {
			case 0, 1, 2, 3, 4:
				a.counters = append(a.counters, a.w.Counter(fmt.Sprintf("requests_%02d", k)))
				a.rates = append(a.rates, 1+a.r.IntN(50))
			case 5, 6:
				a.sums = append(a.sums, a.w.FloatCounter(fmt.Sprintf("seconds_%02d", k)))
			default:
				a.gauges = append(a.gauges, a.w.Gauge(fmt.Sprintf("level_%02d", k)))
			}
		}
		if err := a.w.Err(); err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.writers = append(f.writers, a)
	}
	return f, nil
}

func (a *appWriter) record() {
	for i, c := range a.counters {
		c.Add(uint64(a.r.IntN(2 * a.rates[i])))
	}
	for _, s := range a.sums {
		s.Add(a.r.ExpFloat64() / 100)
	}
	for i, g := range a.gauges {
		g.Set(float64(a.r.IntN(100*(1+i%3))) / 10)
	}
}

// run lets minutes pass, and measures the archiver alone: not the writers, not the register's polls.
func (f *flusher) run(minutes int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	warm := 150 * time.Second // rings are full, cohorts spread, first extents open
	var used time.Duration
	var before archiver.Stats
	var bytes, device int64
	for second := 0; ; second++ {
		if second == int(warm/time.Second) {
			before, bytes, device = f.archiver.Stats(), f.written, deviceBytes()
			used = 0
		}
		if second == int(warm/time.Second)+60*minutes {
			break
		}
		f.clock.Add(1e9)
		for _, w := range f.writers {
			w.record()
			w.w.Tick()
		}
		if err := f.register.Poll(); err != nil {
			return err
		}
		begin := threadTime()
		f.archiver.Poll()
		used += threadTime() - begin
		if second%60 == 59 {
			debug.FreeOSMemory()
		}
	}
	after := f.archiver.Stats()
	if why := f.archiver.Stopped(); why != nil {
		return why
	}
	payload, samples := uint64(0), after.Tiers[0].Samples-before.Tiers[0].Samples
	for i := range after.Tiers {
		payload += after.Tiers[i].Bytes - before.Tiers[i].Bytes
	}
	if want := uint64(len(f.writers)) * 100 * 60 * uint64(minutes); samples < want*9/10 || samples > want*11/10 {
		return fmt.Errorf("shmts: flush: want about %d samples in the archive, got %d", want, samples)
	}
	name := "flush"
	if f.folding {
		name = "flush_folding"
	}
	print(name+"/ns_a_sample", float64(used)/float64(samples))
	print(name+"/bytes_a_sample", float64(payload)/float64(samples))
	// Payload is blocks, as the archiver counts them; the rest are extents' headers, indexes and trailers.
	print(name+"/written_to_payload", float64(f.written-bytes)/float64(payload))
	if now := deviceBytes(); device > 0 && now > device {
		print(name+"/device_to_payload", float64(now-device)/float64(payload))
	}
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	print(name+"/peak_kB", peak)
	return nil
}

func (f *flusher) close() error {
	var errs []error
	for i := len(f.closers) - 1; i >= 0; i-- {
		errs = append(errs, f.closers[i]())
	}
	return errors.Join(append(errs, os.RemoveAll(f.store), os.RemoveAll(f.dir))...)
}

// threadTime is the processor time of this thread, which the goroutine is locked to: of the archiver's own work, not of
// collections that others pay for, nor of whoever else is busy.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// deviceBytes is what this process has caused to be written to disks, as the kernel accounts it; 0 where it does not.
func deviceBytes() int64 {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

func peakMemory() (kB float64, err error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
		}
	}
	return 0, fs.ErrNotExist
}

// counted are the system's files, and what is written to them.
type counted struct {
	archive.Files
	to *flusher
}

type countedFile struct {
	archive.File
	to *flusher
}

func (c counted) Open(path string, create bool) (archive.File, error) {
	f, err := c.Files.Open(path, create)
	if err != nil || filepath.Ext(path) != ".tier" {
		return f, err
	}
	return countedFile{f, c.to}, nil
}

func (f countedFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	f.to.written += int64(n)
	return n, err
}
