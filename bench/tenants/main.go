// Command tenants measures whether one tenant's scans slow another's dashboard: real segments, written at 1 s by a process of their own, and real
// shmtsds over them. Tenant B asks for a dashboard of ten panels each second; tenant A has scans of seconds running all the time, more than it
// may have at once. One daemon knows them as tenants, another takes both as one; if asked, a third one is another build of shmtsd.
//
// The cases (each daemon alone, and beside scans) take turns in short rounds, in another order each time, since machines are noisy: of each
// round the p50 and p99 of the panels count, and of the rounds the median.
//
// It prints lines of name and value, separated by a tab: times are in ms. bench/run makes RESULTS.md of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shmts/shmts/writer"
)

type options struct {
	shmtsd, before string
	segments       int
	rounds         int
	round          time.Duration
	scans          int
	warm           time.Duration
	role, store    string
}

func main() {
	var o options
	flag.StringVar(&o.shmtsd, "shmtsd", "bin/shmtsd", "the daemon's `path`")
	flag.StringVar(&o.before, "before", "", "`path` of another build of it, to be measured as well, without tenants")
	flag.IntVar(&o.segments, "segments", 200, "segments, of 100 series each")
	flag.IntVar(&o.rounds, "rounds", 9, "of each case")
	flag.DurationVar(&o.round, "for", 5*time.Second, "how long a round takes")
	flag.IntVar(&o.scans, "scans", 8, "clients of tenant A, each with a scan at all times")
	flag.DurationVar(&o.warm, "warm", 60*time.Second, "time before measuring begins, in which rings fill")
	flag.StringVar(&o.role, "role", "", "internal: what a child process does")
	flag.StringVar(&o.store, "store", "", "internal: the writer's store")
	flag.Parse()
	err := error(nil)
	if o.role == "writer" {
		err = write(o.store, o.segments)
	} else {
		err = measure(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write holds segments until SIGTERM, and records every series once a second.
func write(store string, n int) error {
	var all []func(round int)
	for i := range n {
		w, err := writer.Open(writer.Options{Job: "fleet", Instance: fmt.Sprint(i), Dir: store})
		if err != nil {
			return err
		}
		defer w.Close()
		for k := range 60 {
			c := w.Counter(fmt.Sprintf("fleet_c%02d_total", k), writer.Label("queue", fmt.Sprint(k%8)), writer.Label("n", fmt.Sprint(k)))
			all = append(all, func(r int) { c.Add(uint64(1 + (r+k)%7)) })
		}
		for k := range 30 {
			g := w.Gauge(fmt.Sprintf("fleet_g%02d", k))
			all = append(all, func(r int) { g.Set(float64(r%100 + k)) })
		}
		for k := range 10 {
			h := w.Histogram(fmt.Sprintf("fleet_h%02d_seconds", k), writer.Buckets(0.001, 1))
			all = append(all, func(r int) { h.Record(float64(1+(r*7+k)%100) / 200) })
		}
		if err := w.Err(); err != nil {
			return err
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	fmt.Println("ready")
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for round := 0; ; round++ {
		for _, record := range all {
			record(round)
		}
		select {
		case <-second.C:
		case <-end:
			return nil
		}
	}
}

// daemon is one that is measured.
type daemon struct {
	name, base string
	cmd        *exec.Cmd
}

const tenants = `
tenants:
  header: X-Scope-OrgID
  trusted: {anyone: true}
  list:
    - {name: a, sees: {match: ['{job="fleet"}']}}
    - {name: b, sees: {match: ['{job="fleet"}']}}
`

func start(name, path, store string, args ...string) (*daemon, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	d := &daemon{name, "http://" + address, exec.Command(path, append([]string{"--store", store, "--listen", address, "--self-metrics=false"}, args...)...)}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Stderr = io.Discard
	return d, d.cmd.Start()
}

func (d *daemon) end() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// ask asks as a tenant, and answers how many series came.
func (d *daemon) ask(ctx context.Context, tenant, path string, form url.Values) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path+"?"+form.Encode(), nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Scope-OrgID", tenant)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var a struct {
		Data  struct{ Result []json.RawMessage }
		Error string
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("shmts: %s: %s: %s", d.name, res.Status, a.Error)
	}
	return len(a.Data.Result), nil
}

// panels are tenant B's dashboard: what is now, and the last two minutes of some of it.
var panels = []struct {
	query string
	span  time.Duration
}{
	{`sum(rate(fleet_c00_total[10s]))`, 2 * time.Minute},
	{`sum by (queue) (rate(fleet_c09_total[10s]))`, 2 * time.Minute},
	{`avg(fleet_g00)`, 2 * time.Minute},
	{`max(fleet_g01)`, 2 * time.Minute},
	{`topk(5, fleet_g02)`, 0},
	{`histogram_quantile(0.99, sum(rate(fleet_h00_seconds[30s])))`, 2 * time.Minute},
	{`fleet_g03{instance="7"}`, 2 * time.Minute},
	{`count(fleet_g04)`, 0},
	{`sum(fleet_c01_total)`, 0},
	{`quantile(0.9, fleet_g05)`, 0},
}

// panel asks for one.
func (d *daemon) panel(ctx context.Context, i int) (time.Duration, error) {
	begin := time.Now()
	form, path := url.Values{"query": {panels[i].query}}, "/api/v1/query"
	if span := panels[i].span; span > 0 {
		path = "/api/v1/query_range"
		form.Set("start", fmt.Sprint(begin.Add(-span).Unix()))
		form.Set("end", fmt.Sprint(begin.Unix()))
		form.Set("step", "2")
	} else {
		form.Set("time", fmt.Sprint(begin.Unix()))
	}
	n, err := d.ask(ctx, "b", path, form)
	if err == nil && n == 0 {
		err = fmt.Errorf("shmts: %s: no answer to %s", d.name, panels[i].query)
	}
	return time.Since(begin), err
}

// dashboard asks for all panels at once, each second, and answers how long each took.
func (d *daemon) dashboard(ctx context.Context, length time.Duration) ([]time.Duration, error) {
	var (
		mu   sync.Mutex
		took []time.Duration
		errs []error
		all  sync.WaitGroup
	)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		for i := range panels {
			all.Go(func() {
				t, err := d.panel(ctx, i)
				mu.Lock()
				defer mu.Unlock()
				took, errs = append(took, t), append(errs, err)
			})
		}
		<-second.C
	}
	all.Wait()
	return took, errors.Join(errs...)
}

// scan is tenant A's: every counter of every process, at each second of the last two minutes, and that over all of them again.
func (d *daemon) scan(ctx context.Context) error {
	_, err := d.ask(ctx, "a", "/api/v1/query", url.Values{"query": {`max_over_time(sum by (instance) (rate({__name__=~"fleet_c.*"}[20s]))[90s:1s])`}})
	return err
}

// result is what a case took, by round.
type result struct {
	p50, p99 []float64
	scans    []float64 // a second
}

func measure(o options) error {
	store, err := os.MkdirTemp("/dev/shm", "shmts-tenants-")
	if err != nil {
		return fmt.Errorf("shmts: no private store: %w", err)
	}
	defer os.RemoveAll(store)
	config := filepath.Join(store, "..", filepath.Base(store)+".yml")
	if err := os.WriteFile(config, []byte(tenants), 0o600); err != nil {
		return err
	}
	defer os.Remove(config)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w := exec.Command(self, "-role", "writer", "-store", store, "-segments", fmt.Sprint(o.segments))
	w.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.Stderr = os.Stderr
	if err := w.Start(); err != nil {
		return err
	}
	defer func() { _ = w.Process.Kill(); _ = w.Wait() }()

	isolated, err := start("isolated", o.shmtsd, store, "--config", config)
	if err != nil {
		return err
	}
	defer isolated.end()
	one, err := start("one", o.shmtsd, store)
	if err != nil {
		return err
	}
	defer one.end()
	daemons := []*daemon{isolated, one}
	if o.before != "" {
		before, err := start("before", o.before, store)
		if err != nil {
			return err
		}
		defer before.end()
		daemons = append(daemons, before)
	}
	time.Sleep(o.warm)
	for _, d := range daemons {
		if err := d.ready(o.segments); err != nil {
			return err
		}
	}
	results := map[string]*result{}
	var cases []string
	for _, d := range daemons {
		for _, c := range []string{"alone", "beside"} {
			cases = append(cases, d.name+"_"+c)
			results[d.name+"_"+c] = &result{}
		}
	}
	for range o.rounds {
		for _, k := range rand.Perm(len(cases)) {
			if err := round(o, daemons[k/2], k%2 == 1, results[cases[k]]); err != nil {
				return err
			}
		}
	}
	fmt.Printf("tenants_segments\t%d\n", o.segments)
	for _, c := range cases {
		r := results[c]
		fmt.Printf("tenants_%s_p50\t%.2f\ntenants_%s_p99\t%.2f\n", c, median(r.p50), c, median(r.p99))
		if strings.HasSuffix(c, "beside") {
			fmt.Printf("tenants_%s_scans\t%.3f\n", c, median(r.scans))
		}
	}
	return nil
}

// ready waits until a daemon sees everything.
func (d *daemon) ready(segments int) error {
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var n int
		if n, err = d.ask(context.Background(), "b", "/api/v1/query", url.Values{"query": {"fleet_g00"}}); err == nil && n == segments {
			return nil
		}
	}
	return fmt.Errorf("shmts: %s does not see %d segments: %w", d.name, segments, err)
}

func round(o options, d *daemon, beside bool, r *result) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var scans sync.WaitGroup
	var done, refused atomic.Int64
	var failed atomic.Pointer[error]
	begin := time.Now()
	if beside {
		for range o.scans {
			scans.Go(func() {
				for ctx.Err() == nil {
					if err := d.scan(ctx); err == nil {
						done.Add(1)
					} else if ctx.Err() == nil {
						refused.Add(1)
						failed.Store(&err)
						time.Sleep(100 * time.Millisecond)
					}
				}
			})
		}
		time.Sleep(time.Second) // they run
	}
	took, err := d.dashboard(ctx, o.round)
	length := time.Since(begin)
	cancel()
	scans.Wait()
	if err != nil {
		return err
	}
	if e := failed.Load(); e != nil && refused.Load() > done.Load() {
		return fmt.Errorf("shmts: %d scans were refused: %w", refused.Load(), *e)
	}
	ms := make([]float64, len(took))
	for i, t := range took {
		ms[i] = t.Seconds() * 1000
	}
	slices.Sort(ms)
	r.p50, r.p99 = append(r.p50, ms[len(ms)/2]), append(r.p99, ms[len(ms)*99/100])
	r.scans = append(r.scans, float64(done.Load())/length.Seconds())
	time.Sleep(300 * time.Millisecond) // cancelled ones end
	return nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
