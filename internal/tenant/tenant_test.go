package tenant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/webconfig"
)

var defaults = Defaults{Concurrency: 4, MaxSamples: 5_000_000, Timeout: 2 * time.Minute, MaxMemory: 256 << 20, MaxMemoryTotal: 1 << 30}

func open(t *testing.T, text string) (*Tenants, error) {
	t.Helper()
	c := &config.Tenants{}
	if err := yaml.UnmarshalStrict([]byte(text), c); err != nil {
		t.Fatal(err)
	}
	return New(c, defaults, Listener{Unix: true, Web: true})
}

const three = `
header: X-Scope-OrgID
trusted: {users: [proxy], certificates: [proxy.example], uids: [99]}
list:
  - {name: team-a, users: [alice, ann], certificates: [a.example, "spiffe://x/a"], uids: [1000], sees: {uids: [1000, 1001], match: ['{job=~"a-.*"}', 'up']}}
  - {name: team-b, users: [bob], certificates: [b.example], uids: [1002], sees: {match: ['{job="b"}']}, limits: {max_concurrency: 1, max_queue: 7, weight: 2.5, max_samples: 1000, timeout: 30s, max_memory_per_query: 1MiB, max_memory: 2MiB}}
  - {name: ops, users: [root], sees: {all: true}}
`

// who is a caller, with what is certain of him.
type who struct {
	user   string
	cert   *x509.Certificate
	false  bool // nobody verified it
	uid    uint32
	header []string
}

func (w who) request() *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query", nil)
	ctx := r.Context()
	if w.user != "" {
		ctx = webconfig.WithUser(ctx, w.user)
	}
	if w.uid != 0 {
		ctx = context.WithValue(ctx, peerKey{}, w.uid)
	}
	r = r.WithContext(ctx)
	if w.cert != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{w.cert}}
		if !w.false {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{w.cert}}
		}
	}
	for _, h := range w.header {
		r.Header.Add("x-scope-orgid", h)
	}
	return r
}

func cn(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}}
}

func TestOf(t *testing.T) {
	a, _ := url.Parse("spiffe://x/a")
	huge := strings.Repeat("x", 60_000)
	for _, c := range []struct {
		name   string
		who    who
		want   string // tenant, or reason
		status int
		parts  []string
	}{
		{"a user", who{user: "alice"}, "team-a", 0, nil},
		{"a user id", who{uid: 1002}, "team-b", 0, nil},
		{"a common name", who{cert: cn("b.example")}, "team-b", 0, nil},
		{"a DNS name", who{cert: &x509.Certificate{DNSNames: []string{"other", "a.example"}}}, "team-a", 0, nil},
		{"a URI", who{cert: &x509.Certificate{URIs: []*url.URL{a}}}, "team-a", 0, nil},
		{"all agree", who{user: "ann", cert: cn("a.example"), uid: 1000}, "team-a", 0, nil},
		{"nobody", who{}, Unknown, 401, nil},
		{"a user of none", who{user: "mallory"}, Unknown, 403, nil},
		{"a certificate that nobody verified", who{cert: cn("a.example"), false: true}, Unknown, 401, nil},
		{"two tenants", who{user: "alice", cert: cn("b.example")}, Disagree, 403, []string{`"team-a" for the user "alice"`, `"team-b" for the certificate "b.example"`}},
		{"two tenants in one certificate", who{cert: &x509.Certificate{Subject: pkix.Name{CommonName: "a.example"}, DNSNames: []string{"b.example"}}}, Disagree, 403, nil},
		{"the proxy", who{user: "proxy", header: []string{"team-b"}}, "team-b", 0, nil},
		{"the proxy by certificate", who{cert: cn("proxy.example"), header: []string{"team-a"}}, "team-a", 0, nil},
		{"the proxy by user id", who{uid: 99, header: []string{"ops"}}, "ops", 0, nil},
		{"the proxy says nothing", who{user: "proxy"}, Unknown, 403, nil},
		{"the proxy says nothing, at length", who{user: "proxy", header: []string{""}}, NoTenant, 403, nil},
		{"the proxy names none", who{user: "proxy", header: []string{"team-c"}}, NoTenant, 403, []string{`"team-c"`}},
		{"the proxy names two", who{user: "proxy", header: []string{"team-a|team-b"}}, NoTenant, 403, nil},
		{"two headers", who{user: "proxy", header: []string{"team-a", "team-b"}}, Disagree, 403, []string{"once"}},
		{"two headers that agree", who{user: "proxy", header: []string{"team-a", "team-a"}}, Disagree, 403, nil},
		{"a huge header", who{user: "proxy", header: []string{huge}}, NoTenant, 403, nil},
		{"somebody else says it", who{header: []string{"team-a"}}, Untrusted, 403, nil},
		{"somebody else names none", who{header: []string{"team-c"}}, Untrusted, 403, nil},
		{"a tenant says what it is", who{user: "alice", header: []string{"team-a"}}, "team-a", 0, nil},
		{"a tenant says another", who{user: "alice", header: []string{"team-b"}}, Disagree, 403, []string{`"team-a" for the user "alice"`, `"team-b" in X-Scope-Orgid`}},
		{"a tenant says one that is not there", who{user: "alice", header: []string{"team-c"}}, Disagree, 403, nil},
		{"the proxy at a tenant's end of a socket", who{user: "proxy", uid: 1000, header: []string{"team-b"}}, Disagree, 403, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenants, err := open(t, three)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tenants.Of(c.who.request())
			if c.status == 0 {
				if err != nil || got.Name != c.want {
					t.Fatalf("want %s, got %+v, %v", c.want, got, err)
				}
				return
			}
			var r *Refused
			if got != nil || !errors.As(err, &r) || r.Reason != c.want || r.Status != c.status {
				t.Fatalf("want refused as %s with %d, got %+v, %+v", c.want, c.status, got, err)
			}
			if len(err.Error()) > 400 {
				t.Errorf("want a short message, got %d bytes", len(err.Error()))
			}
			for _, p := range append(c.parts, "shmts: tenants: want ") {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("want %q in it, got %v", p, err)
				}
			}
		})
	}
	// Whether there is a tenant of a name is not to be found out by who may not say one.
	tenants, _ := open(t, three)
	_, here := tenants.Of(who{header: []string{"team-a"}}.request())
	_, not := tenants.Of(who{header: []string{"team-c"}}.request())
	if here.Error() != not.Error() {
		t.Errorf("want one answer, got %v and %v", here, not)
	}
}

// The header of anyone is believed where that is said; who is known is still no other.
func TestAnyone(t *testing.T) {
	tenants, err := open(t, strings.Replace(three, "trusted: {users: [proxy], certificates: [proxy.example], uids: [99]}", "trusted: {anyone: true}\ndefault: team-b", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who  who
		want string
	}{
		{who{header: []string{"team-a"}}, "team-a"}, {who{}, "team-b"}, {who{user: "mallory"}, "team-b"}, {who{user: "alice"}, "team-a"},
		{who{user: "alice", header: []string{"team-b"}}, ""}, {who{header: []string{"team-c"}}, ""},
	} {
		if got, err := tenants.Of(c.who.request()); (err == nil) != (c.want != "") || err == nil && got.Name != c.want {
			t.Errorf("%+v: want %q, got %+v, %v", c.who, c.want, got, err)
		}
	}
}

// Without a header in the configuration, none is looked at.
func TestNoHeader(t *testing.T) {
	tenants, err := open(t, "default: a\nlist: [{name: a, sees: {all: true}}, {name: b, sees: {all: true}}]")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tenants.Of(who{header: []string{"b"}}.request()); err != nil || got.Name != "a" {
		t.Errorf("want a, got %+v, %v", got, err)
	}
}

func TestLimits(t *testing.T) {
	tenants, err := open(t, three)
	if err != nil {
		t.Fatal(err)
	}
	a, b, ops := tenants.List()[0], tenants.List()[1], tenants.List()[2]
	if a.Concurrency != 2 || a.Queue != 64 || a.Weight != 1 || a.MaxSamples != 5_000_000 || a.Timeout != 2*time.Minute || a.MaxMemory != 256<<20 || a.MaxMemoryTotal != 512<<20 {
		t.Errorf("defaults: got %+v", a)
	}
	if b.Concurrency != 1 || b.Queue != 7 || b.Weight != 2.5 || b.MaxSamples != 1000 || b.Timeout != 30*time.Second || b.MaxMemory != 1<<20 || b.MaxMemoryTotal != 2<<20 {
		t.Errorf("what was said: got %+v", b)
	}
	if !ops.All || ops.UIDs != nil || ops.Scope != nil || !ops.SeesUID(7) || a.SeesUID(7) || !a.SeesUID(1001) || a.All || !b.SeesUID(7) {
		t.Errorf("got %+v, %+v, %+v", a, b, ops)
	}
	if got := a.Scope.String(); got != `{job=~"a-.*"} or {__name__="up"}` {
		t.Errorf("scope: got %s", got)
	}
}

// What is wrong in a configuration is refused, with what was wanted and what was got.
func TestErrors(t *testing.T) {
	one := "list: [{name: a, users: [u], sees: {all: true}}"
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "list: want 1 to 1000, got 0"},
		{"no name", "list: [{sees: {all: true}}]", `name: want 1 to 150 letters`},
		{"a name with a bar", "list: [{name: 'a|b', sees: {all: true}}]", `got "a|b"`},
		{"a name kept", "list: [{name: other, sees: {all: true}}]", `want another one`},
		{"twice", one + ", {name: a, sees: {all: true}}]", `list[1] ("a"): name: want each once`},
		{"a user of two", one + ", {name: b, users: [u], sees: {all: true}}]", `list[1] ("b"): users: u: want it to be of one tenant, got it of "a" too`},
		{"a user id of two", "list: [{name: a, uids: [5], sees: {all: true}}, {name: b, uids: [5], sees: {all: true}}]", `uids: 5: want`},
		{"an empty user", "list: [{name: a, users: [''], sees: {all: true}}]", "want names, got an empty one"},
		{"the overflow uid", "list: [{name: a, uids: [65534], sees: {all: true}}]", "other user namespaces"},
		{"sees nothing", "list: [{name: a}]", "sees: want what it may see"},
		{"sees nothing at all", "list: [{name: a, sees: {}}]", "sees: want what it may see"},
		{"sees no uid", "list: [{name: a, sees: {uids: []}}]", "want no empty list"},
		{"all and some", "list: [{name: a, sees: {all: true, uids: [1]}}]", "got both"},
		{"a selector", "list: [{name: a, sees: {match: ['{']}}]", `want a selector, such as {job="a"}, got "{"`},
		{"a selector of everything", `list: [{name: a, sees: {match: ['{job=~".*"}']}}]`, "does not accept everything"},
		{"overlap", `list: [{name: a, sees: {match: ['{job="a",shmts_segment=""}']}}]`, "shmts_segment"},
		{"default", one + "]\ndefault: b", `default: want one of a, got "b"`},
		{"a header and nobody", one + "]\nheader: X-Tenant", "header and trusted together"},
		{"somebody and no header", one + "]\ntrusted: {anyone: true}", "header and trusted together"},
		{"a header's name", one + "]\nheader: 'X Tenant'\ntrusted: {anyone: true}", `got "X Tenant"`},
		{"a header of another kind", one + "]\nheader: authorization\ntrusted: {anyone: true}", "want one that names tenants"},
		{"trusted and a tenant", one + "]\nheader: X-Tenant\ntrusted: {users: [u]}", `got u, who is of "a" too`},
		{"concurrency", "list: [{name: a, sees: {all: true}, limits: {max_concurrency: 5}}]", "want at most query.max-concurrency, 4, got 5"},
		{"below 0", "list: [{name: a, sees: {all: true}, limits: {max_queue: -1}}]", "want none below 0"},
		{"weight", "list: [{name: a, sees: {all: true}, limits: {weight: 1e9}}]", "weight: want 0.001 to 1000"},
		{"timeout", "list: [{name: a, sees: {all: true}, limits: {timeout: 1h}}]", "want at most query.timeout"},
		{"memory", "list: [{name: a, sees: {all: true}, limits: {max_memory: 2GiB}}]", "want at most query.max-memory-total"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := open(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "shmts: tenants: ") {
				t.Errorf("want %q in it, got %v", c.want, err)
			}
		})
	}
	c := &config.Tenants{}
	if err := yaml.UnmarshalStrict([]byte(three), c); err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]Listener{"web.config-file": {Unix: true}, "unix:PATH": {Web: true}} {
		if _, err := New(c, defaults, l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: want %q in it, got %v", l, want, err)
		}
	}
}

// The kernel says who is at the other end of a unix socket.
func TestPeer(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan uint32, 1)
	s := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		uid, ok := peer(r.Context())
		if !ok {
			uid = 1<<32 - 1
		}
		got <- uid
	})}
	defer s.Close()
	go s.Serve(l)
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.Addr().String())
	}}}
	res, err := c.Get("http://x/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if uid := <-got; int(uid) != os.Getuid() {
		t.Errorf("want %d, got %d", os.Getuid(), uid)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, ok := peer(ConnContext(t.Context(), a)); ok {
		t.Error("want nobody known of another connection")
	}
}
