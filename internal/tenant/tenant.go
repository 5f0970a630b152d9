// Package tenant says who asks: which tenant of the configuration a request is of, by the user whose password was right, the certificate
// that was verified, the user id at the other end of a unix socket, or a header of somebody who is trusted to say it.
//
//	request ─▶ claims: user, certificate, uid, header ─▶ one tenant, or refused
//
// All claims of a request have to agree. What is not certain is no claim: a password that nobody checked, a certificate that nobody
// verified, a header of anybody.
package tenant

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/webconfig"
)

// Tenant is one of the configuration's, with all its limits.
type Tenant struct {
	Name string
	// All says that it sees everything, and the daemon's own settings and metrics as well.
	All   bool
	UIDs  []uint32     // whose segments it sees; nil: everybody's
	Scope *query.Scope // which series of those; nil: all

	Concurrency, Queue, MaxSamples int
	Weight                         float64
	Timeout                        time.Duration
	MaxMemory, MaxMemoryTotal      int64 // bytes: of a query, and of all
}

// SeesUID tells whether a user's segments may be seen.
func (t *Tenant) SeesUID(uid int) bool {
	return t.UIDs == nil || slices.Contains(t.UIDs, uint32(uid))
}

// Defaults are what a tenant has that says nothing else.
type Defaults struct {
	Concurrency, MaxSamples   int
	Timeout                   time.Duration
	MaxMemory, MaxMemoryTotal int64
}

// Listener is what can be known of those who call.
type Listener struct {
	Unix bool // their user ids
	Web  bool // their names and certificates, by a web configuration
}

// Tenants finds the tenant of a request. It is safe for concurrent use.
type Tenants struct {
	list    []*Tenant
	byName  map[string]*Tenant
	header  string // canonical; empty: none
	anyone  bool
	absent  *Tenant // of those who are none; nil: refused
	claims  claims[*Tenant]
	trusted claims[bool]
}

// claims are what is known of callers, by what they are known by.
type claims[T any] struct {
	users, certificates map[string]T
	uids                map[uint32]T
}

// mostTenants bounds what is kept for each: an engine, a history, metrics.
const mostTenants = 1000

// Other is not a tenant's name: metrics of those beyond some number are summed up under it.
const Other = "other"

// defaultQueue is how many queries of a tenant wait, in each lane.
const defaultQueue = 64

// names are those that Mimir takes.
var names = regexp.MustCompile(`^[a-zA-Z0-9!_.*'()-]{1,150}$`)

// New holds a configuration to the rules. Its error says where it breaks one, what was wanted and what was got.
func New(c *config.Tenants, d Defaults, l Listener) (*Tenants, error) {
	t := &Tenants{byName: map[string]*Tenant{}, anyone: c.Trusted.Anyone}
	t.claims = claims[*Tenant]{map[string]*Tenant{}, map[string]*Tenant{}, map[uint32]*Tenant{}}
	t.trusted = claims[bool]{map[string]bool{}, map[string]bool{}, map[uint32]bool{}}
	bad := func(format string, a ...any) (*Tenants, error) {
		return nil, fmt.Errorf("shmts: tenants: "+format, a...)
	}
	if n := len(c.List); n < 1 || n > mostTenants {
		return bad("list: want 1 to %d, got %d", mostTenants, n)
	}
	for i, one := range c.List {
		where := fmt.Sprintf("list[%d] (%q)", i, one.Name)
		if !names.MatchString(one.Name) || one.Name == "." || one.Name == ".." {
			return bad("%s: name: want 1 to 150 letters, digits and !-_.*'(), got %q", where, one.Name)
		}
		if one.Name == Other {
			return bad("%s: name: want another one: %s is all those together that have no metrics of their own", where, Other)
		}
		if t.byName[one.Name] != nil {
			return bad("%s: name: want each once, got it twice", where)
		}
		tenant, err := build(&one, d)
		if err != nil {
			return bad("%s: %w", where, err)
		}
		t.byName[one.Name], t.list = tenant, append(t.list, tenant)
		if err := t.claims.add(one.Who, l, func(of *Tenant) error {
			if of != nil {
				return fmt.Errorf("want it to be of one tenant, got it of %q too", of.Name)
			}
			return nil
		}, tenant); err != nil {
			return bad("%s: %w", where, err)
		}
	}
	trusts := c.Trusted.Anyone || len(c.Trusted.Users)+len(c.Trusted.Certificates)+len(c.Trusted.UIDs) > 0
	if (c.Header != "") != trusts {
		return bad("want header and trusted together: a header's name and who is trusted to say it; got header %q, and trusted: %v", c.Header, trusts)
	}
	if c.Header != "" && !httpguts.ValidHeaderFieldName(c.Header) {
		return bad("header: want a header's name, such as X-Scope-OrgID, got %q", c.Header)
	}
	t.header = http.CanonicalHeaderKey(c.Header)
	if t.header == "Authorization" || t.header == "Cookie" {
		return bad("header: want one that names tenants, got %q", c.Header)
	}
	if err := t.trusted.add(c.Trusted.Who, l, func(bool) error { return nil }, true); err != nil {
		return bad("trusted: %w", err)
	}
	if err := errors.Join(both(t.claims.users, t.trusted.users), both(t.claims.certificates, t.trusted.certificates), both(t.claims.uids, t.trusted.uids)); err != nil {
		return bad("trusted: %w", err)
	}
	if c.Default != "" {
		if t.absent = t.byName[c.Default]; t.absent == nil {
			return bad("default: want one of %s, got %q", strings.Join(t.Names(), ", "), c.Default)
		}
	}
	return t, nil
}

// both finds who is a tenant and trusted to be any.
func both[K comparable](of map[K]*Tenant, trusted map[K]bool) error {
	for k := range trusted {
		if t := of[k]; t != nil {
			return fmt.Errorf("want those who say which tenant they ask for to be none, got %v, who is of %q too", k, t.Name)
		}
	}
	return nil
}

func (c *claims[T]) add(who config.Who, l Listener, check func(T) error, to T) error {
	if err := put(c.users, "users", who.Users, l.Web, "web.config-file, where passwords are checked", check, to); err != nil {
		return err
	}
	if err := put(c.certificates, "certificates", who.Certificates, l.Web, "web.config-file, where certificates are verified", check, to); err != nil {
		return err
	}
	return put(c.uids, "uids", who.UIDs, l.Unix, "listen: unix:PATH, where user ids are known", check, to)
}

func put[K comparable, T any](in map[K]T, what string, list []K, known bool, by string, check func(T) error, to T) error {
	if len(list) > 0 && !known {
		return fmt.Errorf("%s: want %s, got none", what, by)
	}
	for _, k := range list {
		switch fmt.Sprint(k) {
		case "":
			return fmt.Errorf("%s: want names, got an empty one", what)
		case overflowUID:
			if what == "uids" {
				return fmt.Errorf("%s: want users of this host, got %s, which is what those of other user namespaces look like", what, overflowUID)
			}
		}
		if of, ok := in[k]; ok {
			if err := check(of); err != nil {
				return fmt.Errorf("%s: %v: %w", what, k, err)
			}
		}
		in[k] = to
	}
	return nil
}

func build(c *config.Tenant, d Defaults) (*Tenant, error) {
	m := c.Limits
	if m.MaxConcurrency < 0 || m.MaxQueue < 0 || m.Weight < 0 || m.MaxSamples < 0 || m.Timeout < 0 {
		return nil, fmt.Errorf("limits: want none below 0, got max_concurrency %d, max_queue %d, weight %g, max_samples %d, timeout %v",
			m.MaxConcurrency, m.MaxQueue, m.Weight, m.MaxSamples, m.Timeout)
	}
	if m.Weight > 1000 || m.Weight != 0 && m.Weight < 0.001 {
		return nil, fmt.Errorf("limits: weight: want 0.001 to 1000, got %g", m.Weight)
	}
	if m.MaxQueue > 10_000 {
		return nil, fmt.Errorf("limits: max_queue: want at most 10000, got %d", m.MaxQueue)
	}
	if m.MaxConcurrency > d.Concurrency {
		return nil, fmt.Errorf("limits: max_concurrency: want at most query.max-concurrency, %d, got %d", d.Concurrency, m.MaxConcurrency)
	}
	if m.Timeout > d.Timeout {
		return nil, fmt.Errorf("limits: timeout: want at most query.timeout, %v, got %v", d.Timeout, m.Timeout)
	}
	if int64(m.MaxMemory) > d.MaxMemoryTotal {
		return nil, fmt.Errorf("limits: max_memory: want at most query.max-memory-total, %d, got %d", d.MaxMemoryTotal, m.MaxMemory)
	}
	t := &Tenant{
		Name: c.Name, Concurrency: cmp.Or(m.MaxConcurrency, max(1, d.Concurrency/2)), Queue: cmp.Or(m.MaxQueue, defaultQueue),
		MaxSamples: cmp.Or(m.MaxSamples, d.MaxSamples), Weight: cmp.Or(m.Weight, 1), Timeout: cmp.Or(m.Timeout, d.Timeout),
		MaxMemory: cmp.Or(int64(m.MaxMemoryPerQuery), d.MaxMemory), MaxMemoryTotal: cmp.Or(int64(m.MaxMemory), max(1, d.MaxMemoryTotal/2)),
	}
	t.MaxMemory = min(t.MaxMemory, t.MaxMemoryTotal)
	switch s := c.Sees; {
	case s == nil || !s.All && s.UIDs == nil && s.Match == nil:
		return nil, errors.New("sees: want what it may see: all: true, or uids, or match, or both; got nothing")
	case s.All && (s.UIDs != nil || s.Match != nil):
		return nil, errors.New("sees: want all: true, or uids and match, got both")
	case s.All:
		t.All = true
		return t, nil
	case s.UIDs != nil && len(s.UIDs) == 0 || s.Match != nil && len(s.Match) == 0:
		return nil, errors.New("sees: want no empty list: it would be nothing at all")
	default:
		t.UIDs = s.UIDs
	}
	if c.Sees.Match == nil {
		return t, nil
	}
	scope, err := parse(c.Sees.Match)
	if err != nil {
		return nil, fmt.Errorf("sees: match: %w", err)
	}
	t.Scope = scope
	return t, nil
}

// parse makes a scope of selectors as PromQL has them.
func parse(match []string) (*query.Scope, error) {
	var all [][]*labels.Matcher
	p := parser.NewParser(parser.Options{})
	for _, text := range match {
		matchers, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("want a selector, such as {job=\"a\"}, got %q: %w", text, err)
		}
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, fmt.Errorf("want a selector that does not accept everything, got %q: all: true says that", text)
		}
		all = append(all, matchers)
	}
	return query.NewScope(all)
}

// ByUID tells whether any caller is known by a user id.
func (t *Tenants) ByUID() bool { return t != nil && len(t.claims.uids)+len(t.trusted.uids) > 0 }

// List is all tenants, in the order of the configuration.
func (t *Tenants) List() []*Tenant { return t.list }

// Names of all, sorted.
func (t *Tenants) Names() []string { return slices.Sorted(maps.Keys(t.byName)) }

// Refused says why a request is of no tenant. Status is 401 where the caller is nobody that is known, else 403.
type Refused struct {
	Status int
	Reason string // one of a few
	err    error
}

// The reasons.
const (
	Unknown   = "unknown"   // of no tenant
	Untrusted = "untrusted" // names a tenant in a header, and is not trusted to
	NoTenant  = "no_tenant" // names one that there is not
	Disagree  = "disagree"  // is of two
)

// Reasons are all.
var Reasons = []string{Unknown, Untrusted, NoTenant, Disagree}

func (r *Refused) Error() string { return r.err.Error() }

// Unauthorized tells whether it is for want of credentials.
func (r *Refused) Unauthorized() bool { return r.Status == http.StatusUnauthorized }

// claim is one of a request's.
type claim struct {
	of *Tenant
	by string // such as: the user "alice"
}

// shown is how much of what a caller says is said back.
func shown(s string) string { return strconv.Quote(s[:min(len(s), 64)]) }

// Of finds the tenant of a request. An error is a *Refused. It says no more than the caller said or is: not which tenants there are.
func (t *Tenants) Of(r *http.Request) (*Tenant, error) {
	refuse := func(status int, reason, format string, a ...any) (*Tenant, error) {
		return nil, &Refused{status, reason, fmt.Errorf("shmts: tenants: "+format, a...)}
	}
	var made []claim
	known, trusted := false, t.anyone
	user, isUser := webconfig.User(r.Context())
	if isUser {
		known, trusted = true, trusted || t.trusted.users[user]
		if of := t.claims.users[user]; of != nil {
			made = append(made, claim{of, "the user " + shown(user)})
		}
	}
	for _, name := range certified(r) {
		known, trusted = true, trusted || t.trusted.certificates[name]
		if of := t.claims.certificates[name]; of != nil {
			made = append(made, claim{of, "the certificate " + shown(name)})
		}
	}
	if uid, ok := peer(r.Context()); ok {
		known, trusted = true, trusted || t.trusted.uids[uid]
		if of := t.claims.uids[uid]; of != nil {
			made = append(made, claim{of, "the user id " + strconv.FormatUint(uint64(uid), 10)})
		}
	}
	for i := range made[min(1, len(made)):] {
		if a, b := made[0], made[i+1]; a.of != b.of {
			return refuse(http.StatusForbidden, Disagree, "want one tenant, got %s for %s and %s for %s", shown(a.of.Name), a.by, shown(b.of.Name), b.by)
		}
	}
	if said := r.Header.Values(t.header); t.header != "" && len(said) > 0 {
		name := said[0]
		switch of := t.byName[name]; {
		case len(said) > 1:
			return refuse(http.StatusForbidden, Disagree, "want %s once, got it %d times", t.header, len(said))
		case len(made) > 0 && made[0].of != of:
			return refuse(http.StatusForbidden, Disagree, "want one tenant, got %s for %s and %s in %s", shown(made[0].of.Name), made[0].by, shown(name), t.header)
		case len(made) > 0: // says what is known
		case !trusted:
			return refuse(http.StatusForbidden, Untrusted, "want %s of those who are trusted to say it, got it of somebody else", t.header)
		case of == nil:
			return refuse(http.StatusForbidden, NoTenant, "want a tenant that there is in %s, got %s", t.header, shown(name))
		default:
			return of, nil
		}
	}
	switch {
	case len(made) > 0:
		return made[0].of, nil
	case t.absent != nil:
		return t.absent, nil
	case known:
		return refuse(http.StatusForbidden, Unknown, "want somebody who is of a tenant, got one who is of none")
	default:
		return refuse(http.StatusUnauthorized, Unknown, "want somebody who is of a tenant, got nobody that is known")
	}
}
