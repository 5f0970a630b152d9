package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/internal/shadow"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/internal/tenant"
	"github.com/shmts/shmts/internal/webconfig"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// lastExport bounds what a receiver that is slow can make the end take.
const lastExport = 5 * time.Second

// controlBytes bounds what of the segments is mapped, and counts as this process's memory: a thousand control blocks, so that the
// polls of those take half of what they would with pread (0.18 % of a core, not 0.37). Rows are read with that.
const controlBytes = 4 << 20

// freeEvery is how often memory may be given back while an archive is written, where it is freeLeast bytes: what flushes and folds leave behind is so
// little that collections are minutes apart, and giving it back takes a collection of some 10 ms.
const (
	freeEvery = time.Minute
	freeLeast = 4 << 20
)

// daemon is the organs, put together.
type daemon struct {
	log       *slog.Logger
	self      *writer.Writer // nil: it was told not to
	register  *source.Register
	exports   *exports
	history   *history // nil: no archive
	metrics   *selfMetrics
	exemplars *exemplars.Store // nil: none are kept
	traced    view[exemplars.Segment]
	listener  net.Listener
	http      *http.Server
	ready     atomic.Pointer[error] // nil: not polled yet
	burst     burst
	image     image
	freed     time.Time // when memory was given back last, or there was little to give

	web      *webconfig.File // nil: plain HTTP
	settings *reloadable
	rules    *query.Rules
}

func newDaemon(c *config.Config, settings *reloadable, web *webconfig.File, tenants *tenant.Tenants, log *slog.Logger) (*daemon, error) {
	l, err := listen(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("shmts: listen: %w", err)
	}
	if tenants.ByUID() {
		// The kernel says who connects: nobody needs to be kept out by the file's mode.
		if err := os.Chmod(l.Addr().String(), 0o666); err != nil {
			l.Close()
			return nil, fmt.Errorf("shmts: listen: %w", err)
		}
	}
	d := &daemon{log: log, listener: l, web: web, settings: settings, rules: query.NewRules(settings.rules)}
	if d.image, err = ownImage(); err != nil {
		log.Debug("the program's own memory is not given back", "err", err)
	}
	if err := d.build(c, tenants); err != nil {
		l.Close()
		d.self.Close()
		return nil, err
	}
	log.Info("shmtsd starts", "version", version, "store", reader.Dir(c.Store), "listen", l.Addr().String(), "destinations", len(c.Destinations))
	return d, nil
}

// build makes the organs, and hands each what it needs of the others.
func (d *daemon) build(c *config.Config, tenants *tenant.Tenants) (err error) {
	if c.SelfMetrics {
		if d.self, err = openSelf(c, d.listener.Addr()); err != nil {
			d.log.Warn("shmtsd's own metrics are not in the store", "err", err)
		}
	}
	h := health.New(d.self)
	d.metrics = newSelfMetrics(h)
	d.register, err = source.Open(source.Options{
		Store: reader.Options{Dir: c.Store, TrustUIDs: c.TrustUIDs, NoMap: c.NoMap, AnyOwner: c.AnyOwner, MapBytes: -1, ControlBytes: controlBytes,
			PerUser: c.PerUser, Total: c.Total},
		Shadows: &shadow.Options{}, Every: c.PollInterval, DeadTTL: c.DeadTTL, HoldLimit: c.HoldLimit, Logger: d.log, Polled: d.polled,
	})
	if err != nil {
		return err
	}
	if c.Exemplars > 0 {
		d.exemplars = exemplars.New(c.Exemplars)
		d.traced.register = d.register
		d.metrics.exemplars = newExemplarMetrics(h, d.exemplars, c.Archive.Dir != "")
	}
	d.metrics.relabel = newRelabelMetrics(h, d.settings, d.rules, d.register)
	if c.Archive.Dir != "" {
		if d.history, err = openHistory(&c.Archive, d.register, d.rules, d.exemplars, d.log); err != nil {
			d.register.Close()
			return err
		}
		d.metrics.archive = newArchiveMetrics(h, d.history)
	} else {
		d.log.Info("no archive: history reaches back as far as the segments' rings (archive.dir says where to keep more)")
	}
	if d.exports, err = openExports(c, d); err != nil {
		if d.history != nil {
			d.history.close()
		}
		d.register.Close()
		return err
	}
	ask := d.openAskers(c, tenants, h)
	d.metrics.askers = ask.metrics
	revision, date := buildInfo()
	d.http = &http.Server{
		Handler: server.New(server.Options{
			Engine: ask.engine, Tenants: ask.tenants, Who: ask.who, Metrics: h, Ready: d.isReady, Degraded: d.degraded, Logger: d.log, Observe: d.metrics.answered,
			Version: version, Revision: revision, BuildDate: date, Timeout: c.QueryTimeout, MaxHeld: 2 * c.QueryMaxSamples,
			Flags: c.Settings(), Config: d.settings.shown, Retention: retention(c), Corruptions: d.corruptions, Status: d.status,
		}),
		ConnContext:       tenant.ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	return nil
}

// run works until the context ends or HTTP can't be served any more.
func (d *daemon) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { d.register.Run(ctx) })
	work.Go(func() { d.exports.run(ctx) })
	if d.history != nil {
		work.Go(func() { d.history.archiver.Run(ctx) })
	}
	served := make(chan error, 1)
	go func() { served <- d.web.Serve(d.http, d.listener) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	cancel()
	d.log.Info("shmtsd ends")
	work.Wait()

	// Its own last values, and everybody's, go out before it ends.
	d.metrics.update(d.register, d.exports, d.history)
	d.self.Close()
	if len(d.exports.all) > 0 {
		_ = d.register.Poll()
		last, done := context.WithTimeout(context.Background(), lastExport)
		if err := d.exports.flush(last); err != nil {
			d.log.Warn("the last export did not end in time", "err", err)
		}
		done()
	}
	err = errors.Join(err, d.exports.close())
	stop, done := context.WithTimeout(context.Background(), lastExport)
	defer done()
	if d.http.Shutdown(stop) != nil {
		d.http.Close()
	}
	if d.history != nil {
		err = errors.Join(err, d.history.close())
	}
	return errors.Join(err, d.register.Close())
}

// polled is called after each poll.
func (d *daemon) polled(took time.Duration, err error) {
	d.ready.Store(&err)
	if d.exemplars != nil {
		d.exemplars.Collect(d.traced.Segments())
	}
	if d.history != nil {
		d.history.archiver.Kick()
	}
	d.metrics.polled(took, d.register, d.exports, d.history)
	free := d.burst.over(d.register.Stats().Found)
	if now := time.Now(); free || d.history != nil && now.Sub(d.freed) >= freeEvery {
		d.freed = now
		if free || spare() >= freeLeast {
			d.image.giveBack()
		}
	}
}

// burst watches for many segments found at once, as at the start: reading their series leaves garbage behind, and as
// polls allocate nothing, no collection would come to give it back.
type burst struct {
	last, settled uint64 // segments found: at the last poll, and when it was calm
	calm          int    // polls since
}

// over tells, once, that a burst has come to its end.
func (b *burst) over(found uint64) bool {
	const many, polls = 64, 5
	if found != b.last {
		b.last, b.calm = found, 0
		return false
	}
	b.calm++
	if b.calm != polls || found-b.settled < many {
		return false
	}
	b.settled = found
	return true
}

func (d *daemon) isReady() error {
	switch err := d.ready.Load(); {
	case err == nil:
		return errors.New("the store was not looked at yet")
	default:
		return *err
	}
}

// view is the register's snapshot as those who look at it want it: as a slice of their own interface,
// made once a snapshot.
type view[T any] struct {
	register *source.Register
	as       func(*source.Segment) T                   // nil: a *source.Segment is one
	keep     func([]*source.Segment) []*source.Segment // nil: all
	made     atomic.Pointer[made[T]]
}

type made[T any] struct {
	of  []*source.Segment
	out []T
}

// Segments is the newest snapshot.
func (v *view[T]) Segments() []T {
	now := v.register.Segments()
	if m := v.made.Load(); m != nil && len(m.of) == len(now) && (len(now) == 0 || &m.of[0] == &now[0]) {
		return m.out
	}
	kept := now
	if v.keep != nil {
		kept = v.keep(now)
	}
	m := &made[T]{of: now, out: make([]T, len(kept))}
	for i, s := range kept {
		if v.as != nil {
			m.out[i] = v.as(s)
		} else {
			m.out[i] = any(s).(T)
		}
	}
	v.made.Store(m)
	return m.out
}

// listen takes host:port or unix:PATH. A socket that nobody listens on any more is replaced.
func listen(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return net.Listen("tcp", address)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("want %s free, got an answer from it", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}

// openSelf makes shmtsd a writer of its own store.
func openSelf(c *config.Config, address net.Addr) (*writer.Writer, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	instance := host
	if tcp, ok := address.(*net.TCPAddr); ok {
		instance = net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	}
	attributes := map[string]string{"service.version": version}
	for k, v := range c.Attributes {
		attributes[k] = v
	}
	return writer.Open(writer.Options{Job: c.ServiceName, Instance: instance, Dir: c.Store, Attributes: attributes})
}

// retention says what is kept: of segments their rings, and in the archive what fits.
func retention(c *config.Config) string {
	kept := "the segments' rings"
	if c.Archive.Dir == "" {
		return kept
	}
	return kept + " or " + strings.ReplaceAll(c.Settings()["archive.tiers"], ",", ", ")
}

// corruptions counts what was found to be broken, in the store and in the archive.
func (d *daemon) corruptions() (n int64) {
	s := d.register.Stats()
	n = int64(s.Refused[source.ReasonCorrupt]) + int64(s.Readers.SkippedRows)
	if d.history != nil {
		for _, t := range d.history.archive.Tiers() {
			n += int64(t.Skipped)
		}
	}
	return n
}

func buildInfo() (revision, date string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.time":
			date = s.Value
		}
	}
	return revision, date
}
