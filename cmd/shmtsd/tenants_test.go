package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/writer"
)

// write writes a file of a test.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// callTo asks a daemon, and answers status and body.
func callTo(t *testing.T, c *http.Client, base, path, user string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, "secret")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

const jobs = "/api/v1/label/job/values"

// A real daemon with tenants by password and by a proxy's header: each sees its own, and nobody else's.
func TestTenants(t *testing.T) {
	dir, files := newStore(t), t.TempDir()
	for _, job := range []string{"a-web", "a-db", "b"} {
		w, err := writer.Open(writer.Options{Job: job, Instance: "1", Dir: dir, Attributes: map[string]string{"secret": job}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		w.Gauge("level", writer.Help("help of "+job)).Set(float64(len(job)))
		w.Counter("only_"+strings.ReplaceAll(job, "-", "_")).AddExemplar(1, writer.Exemplar{TraceID: [16]byte([]byte(fmt.Sprintf("%-16s", job)))})
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := "basic_auth_users:\n"
	for _, u := range []string{"alice", "bob", "grafana", "root", "mallory"} {
		users += "  " + u + ": " + string(hash) + "\n"
	}
	settings := write(t, filepath.Join(files, "shmtsd.yml"), `
tenants:
  header: X-Scope-OrgID
  trusted: {users: [grafana]}
  list:
    - {name: team-a, users: [alice], sees: {match: ['{job=~"a-.*"}']}, limits: {max_samples: 100000}}
    - {name: team-b, users: [bob], sees: {match: ['{job="b"}']}}
    - {name: operators, users: [root], sees: {all: true}}
`)
	d := startDaemonFor(t, "http", &http.Client{Transport: withLogin{"root", "secret", http.DefaultTransport}}, nil,
		"--store", dir, "--config", settings, "--web.config-file", write(t, filepath.Join(files, "web.yml"), users))
	waitFor(t, "four jobs", func() error {
		got, err := d.query("count(level)")
		if err == nil && got[""] != "3" {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	const org = "X-Scope-OrgID"
	for _, c := range []struct {
		name, user string
		headers    []string
		want       string // of jobs
		code       int
	}{
		{"a tenant", "alice", nil, `["a-db","a-web"]`, 200},
		{"another", "bob", nil, `["b"]`, 200},
		{"all", "root", nil, `["a-db","a-web","b","shmtsd"]`, 200},
		{"behind the proxy", "grafana", []string{org, "team-b"}, `["b"]`, 200},
		{"the proxy for nobody", "grafana", nil, "want somebody who is of a tenant", 403},
		{"the proxy for who is not there", "grafana", []string{org, "team-c"}, "want a tenant that there is", 403},
		{"spoofed", "alice", []string{org, "team-b"}, "want one tenant", 403},
		{"spoofed by nobody's user", "mallory", []string{org, "team-b"}, "trusted", 403},
		{"spoofed in pieces", "grafana", []string{org, "team-a", org, "team-b"}, "once", 403},
		{"spoofed at length", "grafana", []string{org, strings.Repeat("team-b", 8000)}, "want a tenant that there is", 403},
		{"of none", "mallory", nil, "of none", 403},
		{"no password", "", []string{org, "team-a"}, "Unauthorized", 401},
	} {
		code, text, h := callTo(t, http.DefaultClient, d.base, jobs, c.user, c.headers...)
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s: want %d and %q, got %d %.300s", c.name, c.code, c.want, code, text)
		}
		if c.code == 403 {
			var e struct{ Status, ErrorType, Error string }
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Status != "error" || e.ErrorType != "forbidden" || h.Get("Content-Type") != "application/json" || len(text) > 500 {
				t.Errorf("%s: want Prometheus's envelope, got %.300s", c.name, text)
			}
		}
	}
	// A header of more than 64 KiB gets no further than the server.
	if code, _, _ := callTo(t, http.DefaultClient, d.base, jobs, "grafana", org, strings.Repeat("x", 1<<20)); code != 431 {
		t.Errorf("a header of 1 MiB: want 431, got %d", code)
	}
	for path, code := range map[string]int{"/metrics": 403, "/api/v1/status/config": 403, "/api/v1/status/flags": 403, "/api/v1/status/runtimeinfo": 403,
		"/-/ready": 200, "/-/healthy": 200, "/api/v1/status/buildinfo": 200, "/api/v1/status/tsdb": 200, "/federate?match[]=level": 200, "/api/v1/metadata": 200} {
		for _, user := range []string{"alice", "root"} {
			want := code
			if user == "root" {
				want = 200
			}
			got, text, _ := callTo(t, http.DefaultClient, d.base, path, user)
			if got != want || user == "alice" && (strings.Contains(text, "only_b") || strings.Contains(text, `"b"`) || strings.Contains(text, "team-b")) {
				t.Errorf("%s of %s: want %d and nothing of others, got %d %.300s", path, user, want, got, text)
			}
		}
	}
	trace := func(job string) string { return fmt.Sprintf("%x", fmt.Sprintf("%-16s", job)) }
	waitFor(t, "exemplars", func() error {
		path := fmt.Sprintf("/api/v1/query_exemplars?query=%s&start=%d&end=%d", url.QueryEscape(`{__name__=~"only_.*"}`), time.Now().Unix()-300, time.Now().Unix()+60)
		for user, want := range map[string][3]bool{"alice": {true, true, false}, "bob": {false, false, true}, "root": {true, true, true}} {
			_, text, _ := callTo(t, http.DefaultClient, d.base, path, user)
			for i, job := range []string{"a-web", "a-db", "b"} {
				if strings.Contains(text, trace(job)) != want[i] {
					return fmt.Errorf("%s: want the trace of %s: %v, got %s", user, job, want[i], text)
				}
			}
		}
		return nil
	})
	if code, text, _ := callTo(t, http.DefaultClient, d.base, "/api/v1/query?query="+url.QueryEscape("max_over_time(vector(1)[1d:1s])"), "alice"); code != 422 || !strings.Contains(text, "too many samples") {
		t.Errorf("a tenant's samples: want 422, got %d %s", code, text)
	}
	waitFor(t, "what is asked, in /metrics", func() error {
		text, err := d.get("/metrics")
		for _, line := range []string{`shmtsd_queries_total{tenant="team-a"} [1-9]\d*`, `shmtsd_queries_running{tenant="team-b"} 0`, `shmtsd_requests_refused_total{reason="untrusted"} 1`,
			`shmtsd_requests_refused_total{reason="no_tenant"} 2`, `shmtsd_requests_refused_total{reason="disagree"} 2`, `shmtsd_requests_refused_total{reason="unknown"} 2`} {
			if err == nil && !regexp.MustCompile("(?m)^"+line+"$").MatchString(text) {
				err = fmt.Errorf("want %q in it", line)
			}
		}
		if strings.Contains(text, "team-c") {
			t.Error("want no names in it that a request says")
		}
		return err
	})
}

// dialAs connects to a socket as another user: this thread's alone, which ends with it.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocks
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			got <- result{nil, e}
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err == nil {
			if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
				syscall.Close(fd)
			}
		}
		if err != nil {
			got <- result{nil, err}
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		c, err := net.FileConn(f)
		got <- result{c, err}
	}()
	r := <-got
	return r.c, r.err
}

// Users of the host ask at a unix socket, and see their own processes, alive or archived: the kernel says who they are.
func TestTenantsByUID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("wants root, to be two users")
	}
	const other = 4321
	dir := newStore(t)
	files, err := os.MkdirTemp("/dev/shm", "shmtsd-sockets-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(files)
	if err := errors.Join(os.Chmod(files, 0o755), os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, fmt.Sprint(other)), 0o755), os.Chown(filepath.Join(dir, fmt.Sprint(other)), other, other)); err != nil {
		t.Fatal(err)
	}
	var writers []*writer.Writer
	had := map[string]bool{}
	for _, uid := range []int{0, other} { // of one job and instance: labels do not tell them apart
		w, err := writer.Open(writer.Options{Job: "twin", Instance: "1", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		writers = append(writers, w)
		w.Gauge("owner").Set(float64(uid))
		w.Gauge(fmt.Sprint("of_", uid)).Set(1)
		mine, err := filepath.Glob(filepath.Join(dir, "0", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range mine { // the second one becomes the other user's
			if !had[path] && uid != 0 {
				if err := errors.Join(os.Chown(path, uid, uid), os.Rename(path, filepath.Join(dir, fmt.Sprint(uid), filepath.Base(path)))); err != nil {
					t.Fatal(err)
				}
			}
			had[path] = true
		}
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(files, "s")
	var log bytes.Buffer
	cmd := exec.Command(path, "--listen", "unix:"+socket, "--store", dir, "--self-metrics=false", "--archive.dir", filepath.Join(files, "archive"), "--archive.tiers", "1s=1MiB,10s=1MiB",
		"--dead-ttl", "5s", "--config", write(t, filepath.Join(files, "shmtsd.yml"), fmt.Sprintf(`
tenants:
  list:
    - {name: zero, uids: [0], sees: {uids: [0]}}
    - {name: other, uids: [%d], sees: {uids: [%d]}}
`, other, other)))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "other is all those together") {
		t.Errorf("want a tenant named other refused, got %v: %s", err, out)
	}
	args := cmd.Args[1:]
	write(t, filepath.Join(files, "shmtsd.yml"), fmt.Sprintf("tenants:\n  list:\n    - {name: zero, uids: [0], sees: {uids: [0]}}\n    - {name: one, uids: [%d], sees: {uids: [%d]}}\n", other, other))
	cmd = exec.Command(path, args...)
	cmd.Stderr = &log // and no Pdeathsig: it is of a thread, and those of dialAs end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("shmtsd said:\n%s", log.String())
		}
	}()
	as := func(uid int) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return dialAs(uid, socket) }}}
	}
	waitFor(t, "the daemon", func() error {
		c, err := dialAs(0, socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	names := "/api/v1/label/__name__/values"
	see := func(what string) {
		t.Helper()
		for uid, c := range map[int]*http.Client{0: as(0), other: as(other)} {
			waitFor(t, fmt.Sprint(what, ", by ", uid), func() error {
				_, text, _ := callTo(t, c, "http://x", names, "")
				if want := fmt.Sprintf(`"data":["of_%d","owner"]`, uid); !strings.Contains(text, want) {
					return fmt.Errorf("want %s, got %s", want, text)
				}
				_, text, _ = callTo(t, c, "http://x", "/api/v1/query?query="+url.QueryEscape("last_over_time(owner[10m])"), "")
				if want := fmt.Sprintf(`"%d"]`, uid); !strings.Contains(text, want) || strings.Contains(text, "shmts_segment") {
					return fmt.Errorf("want one value, %s, got %s", want, text)
				}
				return nil
			})
		}
	}
	see("alive")
	if code, text, _ := callTo(t, as(7), "http://x", names, ""); code != 403 || !strings.Contains(text, "of none") {
		t.Errorf("another user: want 403, got %d %s", code, text)
	}
	for _, w := range writers {
		w.Close()
	}
	waitFor(t, "both unlinked", func() error {
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
			return fmt.Errorf("got %v", left)
		}
		return nil
	})
	see("archived")
}

// A tenant that takes whatever it can (heavy queries, more than may wait, clients that read nothing, bodies that do not come, remote reads)
// gets refused itself, and keeps nobody else waiting.
func TestTenantsBesideHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	dir, files := newStore(t), t.TempDir()
	w, err := writer.Open(writer.Options{Job: "hostile", Instance: "1", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 300 {
		w.Gauge("g", writer.Label("i", fmt.Sprint("value-", i))).Set(float64(i))
	}
	settings := write(t, filepath.Join(files, "shmtsd.yml"), `
tenants:
  header: X-Tenant
  trusted: {anyone: true}
  default: good
  list:
    - {name: good, sees: {all: true}}
    - {name: bad, sees: {all: true}, limits: {max_concurrency: 2, max_queue: 4, timeout: 20s}}
    - {name: worse, sees: {all: true}, limits: {max_concurrency: 2, max_queue: 4, timeout: 20s}}
`)
	d := startDaemon(t, nil, "--store", dir, "--config", settings)
	waitFor(t, "300 series", func() error {
		got, err := d.query("count(g)")
		if err == nil && got[""] != "300" {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	var crowd sync.WaitGroup
	var mu sync.Mutex
	codes, retry := map[int]int{}, 0
	now := time.Now().Unix()
	heavy := fmt.Sprintf("/api/v1/query_range?query=%s&start=%d&end=%d&step=1&lookback_delta=4h", url.QueryEscape("sort(g + g)"), now, now+9000)
	var conns []net.Conn
	for _, tenant := range []string{"bad", "worse"} {
		for range 30 {
			crowd.Go(func() {
				for ctx.Err() == nil {
					r, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.base+heavy, nil)
					r.Header.Set("X-Tenant", tenant)
					res, err := http.DefaultClient.Do(r)
					if err != nil {
						continue
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
					mu.Lock()
					codes[res.StatusCode]++
					if res.StatusCode == 503 && res.Header.Get("Retry-After") != "" {
						retry++
					}
					mu.Unlock()
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		for i := range 60 { // that read nothing, or send nothing
			c, err := net.Dial("tcp", strings.TrimPrefix(d.base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			if i%3 == 0 {
				fmt.Fprintf(c, "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nX-Tenant: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 900000\r\n\r\nquery=", tenant)
			} else {
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Tenant: %s\r\n\r\n", strings.Replace(heavy, "sort", "", 1), tenant)
			}
		}
	}
	time.Sleep(time.Second)
	var took []time.Duration
	body := strings.Repeat("x", 70_000)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		begin := time.Now()
		if got, err := d.query("count(g)"); err != nil || got[""] != "300" {
			t.Errorf("a cheap query: %v, %v", got, err)
		}
		took = append(took, time.Since(begin))
		// And what takes a place of those that they took: a large body, a heavy query.
		res, err := http.PostForm(d.base+"/api/v1/query", url.Values{"query": {"count(g)"}, "pad": {body}})
		if err != nil || res.StatusCode != 200 {
			t.Errorf("a large body: %v, %v", res, err)
		} else {
			res.Body.Close()
		}
		if len(took)%10 == 1 {
			if got, err := d.query("max_over_time(count(g)[100s:1s])"); err != nil || got[""] != "300" {
				t.Errorf("a query that is not light: %v, %v", got, err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	for _, c := range conns {
		c.Close()
	}
	crowd.Wait()
	slices.Sort(took)
	t.Logf("the crowd got %v; %d cheap queries, p50 %v, p99 %v; at most %d MB", codes, len(took), took[len(took)/2], took[len(took)*99/100], memory(t, d.cmd.Process.Pid, "VmHWM")>>20)
	if codes[503] == 0 || retry == 0 {
		t.Errorf("want some of the crowd refused with Retry-After, got %v, %d with it", codes, retry)
	}
	if p99 := took[len(took)*99/100]; p99 > 2*time.Second {
		t.Errorf("want cheap queries answered within 2 s, p99 is %v", p99)
	}
}

// The examples are configurations.
func TestTenantsExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/tenants.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	for path, more := range map[string][]string{write(t, filepath.Join(t.TempDir(), "c.yml"), example): {"--web.config-file", "web.yml"}, "../../contrib/tenants/shmtsd.yml": nil} {
		c, err := config.Load(append([]string{"--config", path}, more...), func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		if tenants, err := openTenants(c); err != nil || len(tenants.List()) != 3 {
			t.Errorf("%s: want three tenants, got %v, %v", path, tenants, err)
		}
	}
}

// What is wrong with tenants stops the start, as any setting does.
func TestTenantsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"tenants: {list: [{name: a}]}":                                "shmts: tenants: list[0] (\"a\"): sees: want",
		"tenants: {list: [{name: a, users: [u], sees: {all: true}}]}": "want web.config-file",
		"tenants: {lists: []}":                                        "want one of default, header, list, trusted, got \"lists\"",
	} {
		var out, errs bytes.Buffer
		if status := run([]string{"--config", write(t, filepath.Join(t.TempDir(), "c.yml"), text)}, func(string) string { return "" }, &out, &errs); status != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: want 2 and %q, got %d, %s", text, want, status, errs.String())
		}
	}
}
