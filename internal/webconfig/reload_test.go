package webconfig

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func serial(a answer) int64 { return a.tls.PeerCertificates[0].SerialNumber.Int64() }

// A certificate that is renewed is shown to the next who connects; while only one half of it is there, the old one.
func TestRenewed(t *testing.T) {
	p := serve(t, serverPair)
	first := serial(p.want(200, "HTTP/2.0", nil))
	cert, key := p.ca.issue("localhost")
	p.write("s.pem", cert)
	if got := serial(p.want(200, "HTTP/2.0", nil)); got != first {
		t.Errorf("half renewed: want the old certificate %d, got %d", first, got)
	}
	if want := "private key does not match public key"; strings.Count(p.log.String(), want) != 1 {
		t.Errorf("want %q in the log once", want)
	}
	p.write("s.key", key)
	p.eventually("the new certificate", func() bool {
		a, err := p.get(nil)
		return err == nil && serial(a) == first+1
	})
	p.renew()
	p.want(200, "HTTP/2.0", nil)
	if got := serial(p.want(200, "HTTP/2.0", nil)); got != first+2 {
		t.Errorf("want the certificate of now, %d, got %d", first+2, got)
	}
	if err := os.Remove(filepath.Join(p.dir, "s.pem")); err != nil {
		t.Fatal(err)
	}
	if got := serial(p.want(200, "HTTP/2.0", nil)); got != first+2 {
		t.Errorf("want the last certificate after its file is gone, %d, got %d", first+2, got)
	}
}

// Another CA of the clients counts at once.
func TestClientCAChanged(t *testing.T) {
	p := serve(t, serverPair+"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n")
	next := newAuthority(t, "next")
	old, young := p.ca.pair("old"), next.pair("young")
	p.want(200, "HTTP/2.0 old", with(old))
	p.write("ca.pem", next.pem)
	p.want(200, "HTTP/2.0 young", with(young))
	p.refused(with(old), "failed to verify certificate")
	p.write("ca.pem", []byte("no PEM"))
	p.want(200, "HTTP/2.0 young", with(young))
	p.refused(with(old), "want certificates in PEM in ca.pem, got none")
}

func TestUsersChanged(t *testing.T) {
	line := func(user, password string) string {
		return "  " + user + ": " + hash(t, password, bcrypt.MinCost) + "\n"
	}
	p := serve(t, "basic_auth_users:\n"+line("alice", "a"))
	p.want(200, "HTTP/1.1", nil, "alice", "a")
	p.write("web.yml", []byte("basic_auth_users:\n"+line("alice", "b")+line("bob", "b")))
	p.want(401, "Unauthorized", nil, "alice", "a")
	p.want(200, "HTTP/1.1", nil, "alice", "b")
	p.want(200, "HTTP/1.1", nil, "bob", "b")
	p.write("web.yml", []byte("basic_auth_users:\n"+line("bob", "b")))
	p.want(401, "Unauthorized", nil, "alice", "b")

	// Broken, or without a user: the last good one stays, and the log says so once.
	p.write("web.yml", []byte("basic_auth_users: {bob: x}\n"))
	for range 3 {
		p.want(200, "HTTP/1.1", nil, "bob", "b")
		p.want(401, "Unauthorized", nil)
	}
	if n := strings.Count(p.log.String(), "level=ERROR"); n != 1 || !strings.Contains(p.log.String(), "bob: want a bcrypt hash of 60 characters") {
		t.Errorf("want one error in the log, got %d", n)
	}
	p.write("web.yml", nil)
	p.eventually("the next error", func() bool {
		p.want(401, "Unauthorized", nil)
		return strings.Contains(p.log.String(), "want basic_auth_users as before, got none")
	})
	p.write("web.yml", []byte("basic_auth_users:\n"+line("carol", "c")))
	p.eventually("the new user", func() bool {
		a, err := p.get(nil, "carol", "c")
		return err == nil && a.status == 200
	})
	p.want(401, "Unauthorized", nil, "bob", "b")
}

// While certificate and users are changed again and again, whoever is in all of them is let in each time.
func TestChangedUnderLoad(t *testing.T) {
	bob := "  bob: " + hash(t, "b", bcrypt.MinCost) + "\n"
	texts := []string{serverPair + "basic_auth_users:\n" + bob, serverPair + "basic_auth_users:\n" + bob + "  alice: " + hash(t, "a", bcrypt.MinCost) + "\n"}
	p := serve(t, texts[0])
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p.want(200, "HTTP/2.0", nil, "bob", "b")
				p.want(401, "Unauthorized", nil, "bob", "a")
			}
		})
	}
	for i := range 40 {
		if i%4 == 0 {
			p.renew()
		}
		p.write("web.yml", []byte(texts[i%2]))
		p.want(200, "HTTP/2.0", nil, "bob", "b")
	}
	close(stop)
	all.Wait()
}

// Every beginning of a file, which is what is read while it is being written, lets nobody in whom the whole one would not.
func TestHalfWritten(t *testing.T) {
	whole := serverPair + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [alice]\nbasic_auth_users:\n  alice: " + hash(t, "a", bcrypt.MinCost) + "\n"
	p := newPlace(t, whole)
	good, err := load(p.path())
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for n := range whole {
		p.write("web.yml", []byte(whole[:n]))
		half, err := load(p.path())
		if err == nil {
			err = good.keeps(half, p.path())
		}
		if err != nil {
			continue
		}
		taken++
		if len(half.Users) != 1 || half.Users["alice"] != good.Users["alice"] || half.tls.ClientAuth != tls.RequireAndVerifyClientCert || len(half.TLS.ClientAllowedSANs) != 1 {
			t.Errorf("the first %d bytes of %d were taken: %+v", n, len(whole), half.settings)
		}
	}
	if taken != 1 { // without the last newline
		t.Errorf("want the whole file alone taken, got %d beginnings of it", taken)
	}
}

// What protects stays until a restart.
func TestKeeps(t *testing.T) {
	clients := serverPair + "  client_ca_file: ca.pem\n  client_auth_type: "
	user := "basic_auth_users: {a: " + hash(t, "a", bcrypt.MinCost) + "}\n"
	for _, c := range []struct{ name, was, now, want string }{
		{"the same", clients + "RequireAndVerifyClientCert\n", clients + "RequireAndVerifyClientCert\n", ""},
		{"more", clients + "RequestClientCert\n", clients + "RequireAndVerifyClientCert\n" + user, ""},
		{"plain", serverPair, "", "want tls_server_config as before, got none"},
		{"TLS", "", serverPair, "want no tls_server_config as before, got one"},
		{"no user", serverPair + user, serverPair, "want basic_auth_users as before"},
		{"no certificate", clients + "RequireAnyClientCert\n", clients + "VerifyClientCertIfGiven\n", "requires certificates as before"},
		{"any certificate", clients + "RequireAndVerifyClientCert\n", clients + "RequireAnyClientCert\n", "verifies them as before"},
		{"any name", clients + "RequireAnyClientCert\n  client_allowed_sans: [a]\n", clients + "RequireAndVerifyClientCert\n", "client_allowed_sans as before"},
	} {
		p := newPlace(t, c.was)
		was, err := load(p.path())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p.write("web.yml", []byte(c.now))
		now, err := load(p.path())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := was.keeps(now, p.path()); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", c.name, c.want, err)
		}
	}
}

// counting is an auth whose comparisons are counted, by hash.
func counting() (*auth, *sync.Map) {
	a, seen := newAuth(), &sync.Map{}
	a.compare = func(hash, password []byte) error {
		n, _ := seen.LoadOrStore(string(hash), new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return a, seen
}

func total(seen *sync.Map) (n int64) {
	seen.Range(func(_, v any) bool { n += v.(*atomic.Int64).Load(); return true })
	return n
}

// bcrypt is asked once for a login, however often and by however many it is used, and once for a guess, whether the name is known or not.
func TestComparisons(t *testing.T) {
	a, seen := counting()
	users := map[string]string{"alice": hash(t, "a", 4), "bob": hash(t, "b", 5)}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if ok, err := a.check(t.Context(), users, "alice", "a"); !ok || err != nil {
				t.Errorf("want alice let in, got %v, %v", ok, err)
			}
		})
	}
	all.Wait()
	if n := total(seen); n != 1 {
		t.Errorf("50 requests: want 1 comparison, got %d", n)
	}
	for i, login := range [][2]string{{"alice", "x"}, {"nobody", "x"}, {"nobody", "a"}, {"nobody", "b"}, {"", ""}} {
		for range 2 {
			if ok, err := a.check(t.Context(), users, login[0], login[1]); ok || err != nil {
				t.Errorf("%q: want nobody let in, got %v, %v", login, ok, err)
			}
		}
		if n := total(seen); n != int64(i+2) {
			t.Errorf("%q: want a comparison for a new guess, and none for its repetition: %d in all, got %d", login, i+2, n)
		}
	}
	seen.Range(func(hash, _ any) bool {
		if hash != users["alice"] && hash != users["bob"] {
			t.Errorf("want hashes of the file tried, which cost what they cost, got %q", hash)
		}
		return true
	})
	for first, i := a.standIn(users, "nobody"), 0; i < 20; i++ {
		if again := a.standIn(users, "nobody"); again != first {
			t.Errorf("want the same stand-in each time, %q, got %q", first, again)
		}
	}
	// A changed password is another question.
	users["alice"] = hash(t, "z", 4)
	if ok, _ := a.check(t.Context(), users, "alice", "a"); ok {
		t.Error("want the old password refused")
	}
}

// Guesses take a bounded memory, and do not push out who is let in.
func TestMemory(t *testing.T) {
	a, seen := counting()
	users := map[string]string{"alice": hash(t, "a", 4)}
	a.check(t.Context(), users, "alice", "a")
	for i := range 3 * keepLogins {
		a.remember(a.digest("alice", string(rune(i))), false)
	}
	if len(a.wrong) > keepLogins {
		t.Errorf("want at most %d guesses kept, got %d", keepLogins, len(a.wrong))
	}
	before := total(seen)
	if ok, _ := a.check(t.Context(), users, "alice", "a"); !ok || total(seen) != before {
		t.Errorf("want alice remembered, got %v after %d comparisons", ok, total(seen)-before)
	}
}

// Who waits for bcrypt and goes away does not wait on.
func TestGoneWhileWaiting(t *testing.T) {
	f, err := Open(newPlace(t, "basic_auth_users: {a: "+hash(t, "a", 4)+"}\n").path(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f.auth.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.SetBasicAuth("a", "a")
	w := httptest.NewRecorder()
	f.handler(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("want 503, got %d", w.Code)
	}
}

func BenchmarkRequest(b *testing.B) {
	path := filepath.Join(b.TempDir(), "web.yml")
	h, err := bcrypt.GenerateFromPassword([]byte("a"), 10)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Join([][]byte{[]byte("basic_auth_users: {a: "), h, []byte("}\n")}, nil), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	handler := f.handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth("a", "a")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	w := httptest.NewRecorder()
	for b.Loop() {
		handler.ServeHTTP(w, r)
	}
}
