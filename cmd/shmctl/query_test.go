package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// promAPI answers as Prometheus's HTTP API documents, and keeps what was asked.
func promAPI(t *testing.T, asked *atomic.Pointer[url.Values]) http.Handler {
	mux := http.NewServeMux()
	reply := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			code, body := 200, body
			if r.Method != http.MethodPost {
				t.Errorf("want POST, got %s", r.Method)
			}
			r.ParseForm()
			asked.Store(&r.Form)
			w.Header().Set("Content-Type", "application/json")
			switch r.Form.Get("query") {
			case "bad(":
				code, body = 400, `{"status":"error","errorType":"bad_data","error":"parse error: unclosed \u001b[31m("}`
			case "1":
				body = `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}`
			case "html":
				code, body = 502, `<html>Bad Gateway</html>`
			case "slow":
				<-r.Context().Done()
			case "none":
				body = `{"status":"success","data":{"resultType":"vector","result":[]}}`
			}
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	mux.Handle("/api/v1/query", reply(`{"status":"success","data":{"resultType":"vector","result":[
		{"metric":{"__name__":"up","job":"b","instance":"i"},"value":[1700000000.5,"1"]},
		{"metric":{"job":"a"},"value":[1700000000.5,"NaN"]},
		{"metric":{},"histogram":[1700000000.5,{"count":"3","sum":"1.5","buckets":[[0,"1","2","3"]]}]}]},
		"warnings":["w1"],"infos":["answered from tier 10s"]}`))
	mux.Handle("/api/v1/query_range", reply(`{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"__name__":"x"},"values":[[1700000000,"1"],[1700000001.25,"5"],[1700000002,"3"]]},
		{"metric":{"__name__":"h"},"histograms":[[1700000000,{"count":"4","sum":"2"}]]}]}}`))
	return mux
}

func TestQuery(t *testing.T) {
	var asked atomic.Pointer[url.Values]
	server := httptest.NewServer(promAPI(t, &asked))
	defer server.Close()
	query := func(args ...string) outcome {
		t.Helper()
		return shmctl(t, "", append([]string{"query", "--url", server.URL + "/"}, args...)...)
	}
	o := query("up", "--time", "1700000000.5").fails(exitDone, "shmts: warning: w1\n", "shmts: info: answered from tier 10s\n")
	if want := "SERIES                              VALUE\nup{instance=\"i\",job=\"b\"}                1\n{job=\"a\"}                             NaN\n{}                        count=3 sum=1.5\n"; o.out != want {
		t.Errorf("want\n%s\ngot\n%s", want, o.out)
	}
	if asked.Load().Get("time") != "1700000000.500" || asked.Load().Get("query") != "up" || asked.Load().Get("timeout") != "30s" {
		t.Errorf("want time, query and timeout asked, got %v", asked.Load())
	}
	o = query("x", "--last", "10m")
	if want := "TIME                      SERIES          VALUE\n2023-11-14T22:13:20.000Z  x                   1\n2023-11-14T22:13:21.250Z  x                   5\n2023-11-14T22:13:22.000Z  x                   3\n2023-11-14T22:13:20.000Z  h       count=4 sum=2\n"; o.ok().out != want {
		t.Errorf("want\n%s\ngot\n%s", want, o.out)
	}
	start, _ := strconv.ParseFloat(asked.Load().Get("start"), 64)
	end, _ := strconv.ParseFloat(asked.Load().Get("end"), 64)
	if asked.Load().Get("step") != "10" || end-start != 600 || time.Since(time.Unix(int64(end), 0)) > time.Minute {
		t.Errorf("want the last 600 s at a step of 10, got %v", asked.Load())
	}
	query("x", "--from", "-1h", "--to", "-30m", "--step", "500ms", "--spark").ok().contains("▁█▅", "LEAST")
	query("x", "--last", "1m", "--spark", "--ascii").ok().contains("_@+")
	if asked.Load().Get("step") != "1" {
		t.Errorf("want a step of at least 1 s, got %v", asked.Load())
	}
	if d := decode[queryJSON](query("up", "--json")); d.ResultType != "vector" || !strings.Contains(string(d.Result), `"count":"3"`) {
		t.Errorf("want the daemon's data as it is, got %+v", d)
	}
	if o := query("1").ok(); o.out != "1\n" {
		t.Errorf("want the scalar alone, got %q", o.out)
	}
	query("none").ok()
	o = query("bad(").fails(exitFailed, "shmts: query: bad_data: parse error: unclosed")
	if strings.Contains(o.errors, "\x1b") || o.out != "" {
		t.Errorf("want clean text on standard error alone, got %q and %q", o.out, o.errors)
	}
	query("html").fails(exitFailed, "want Prometheus's JSON, got 502 Bad Gateway")
	query("slow", "--timeout", "100ms").fails(exitFailed, "want an answer in 100ms")
}

func TestQueryConnections(t *testing.T) {
	var asked atomic.Pointer[url.Values]
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: promAPI(t, &asked)}
	go server.Serve(listener)
	defer server.Close()
	shmctl(t, "", "query", "1", "--url", "unix://"+socket).ok()
	cmd := command("", "query", "1")
	cmd.Env = append(cmd.Env, "SHMTS_URL=unix://"+socket)
	if out, err := cmd.Output(); err != nil || string(out) != "1\n" {
		t.Errorf("want $SHMTS_URL taken, got %q, %v", out, err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
	shmctl(t, "", "query", "1", "--url", "http://"+address).fails(exitFailed, "is shmtsd running?", "connection refused")
}

// A daemon behind TLS, a client's certificate and a password, and what is said where one of them is missing.
func TestQueryProtected(t *testing.T) {
	var asked atomic.Pointer[url.Values]
	api := promAPI(t, &asked)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != "se:cret" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		api.ServeHTTP(w, r)
	}))
	// In TLS 1.3 a client may be writing when it is refused, and then it may see its connection reset, not why.
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()

	// httptest's certificate is its own CA; it serves as the client's as well.
	dir := t.TempDir()
	raw, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key, both, empty := file("c.pem", certPEM), file("c.key", keyPEM), file("both.pem", append(certPEM, keyPEM...)), file("empty", nil)
	query := func(url string, args ...string) outcome {
		t.Helper()
		return shmctl(t, "", append([]string{"query", "1", "--url", url}, args...)...)
	}
	login := strings.Replace(server.URL, "//", "//ann:se%3Acret@", 1)
	for _, o := range []outcome{
		query(server.URL, "--user", "ann:se:cret", "--ca", cert, "--cert", cert, "--key", key),
		query(server.URL, "--user", "ann:se:cret", "--ca", cert, "--cert", both),
		query(login, "--ca", cert, "--cert", both),
	} {
		if o.ok().out != "1\n" {
			t.Errorf("want the answer, got %q", o.out)
		}
	}
	cmd := command("", "query", "1")
	cmd.Env = append(cmd.Env, "SHMTS_URL="+server.URL, "SHMTS_USER=ann:se:cret", "SHMTS_CA="+cert, "SHMTS_CERT="+cert, "SHMTS_KEY="+key)
	if out, err := cmd.Output(); err != nil || string(out) != "1\n" {
		t.Errorf("want all of it taken from the environment, got %q, %v", out, err)
	}

	query(server.URL, "--ca", cert, "--cert", both).fails(exitFailed, "want a user and a password", "401 Unauthorized")
	wrong := strings.Replace(server.URL, "//", "//ann:guess@", 1)
	if o := query(wrong, "--ca", cert, "--cert", both).fails(exitFailed, "401 Unauthorized"); strings.Contains(o.errors, "guess") {
		t.Errorf("want no password in the error, got %q", o.errors)
	}
	query(login).fails(exitFailed, "failed to verify certificate", "--ca says")
	query(login, "--ca", cert).fails(exitFailed, "remote error: tls: ", "--cert shows")
	query(login, "--ca", empty).fails(exitFailed, "want certificates in PEM in "+empty+", got none")
	query(login, "--ca", cert, "--cert", cert).fails(exitFailed, "want a certificate and its key in "+cert+" and "+cert)
	query(login, "--key", key).fails(exitUsage, "key: want --cert with it")
	query("http://localhost:1", "--ca", cert).fails(exitUsage, "want https:// with --ca")
	query("unix:///s", "--ca", cert).fails(exitUsage, "want https:// with --ca")
	query(server.URL, "--user", "ann", "--ca", cert).fails(exitUsage, "want NAME:PASSWORD")
}

// Headers that are said are sent, each as it is, and what a daemon says of one that it refuses is said.
func TestQueryHeader(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch got := r.Header.Get("X-Scope-OrgID"); {
		case got == "":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"status":"error","errorType":"unauthorized","error":"shmts: tenants: want somebody"}`)
		default:
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"string","result":[1,%q]}}`, got+"|"+strings.Join(r.Header.Values("X-More"), "|"))
		}
	}))
	defer h.Close()
	query := func(args ...string) outcome {
		t.Helper()
		return shmctl(t, "", append([]string{"query", "--url", h.URL, "--json", "x"}, args...)...)
	}
	query("--header", "X-Scope-OrgID: team-a", "--header", "X-More:a, b", "--header", "x-more: c:d").ok().contains(`"team-a|a, b|c:d"`)
	query().fails(exitFailed, "unauthorized: shmts: tenants: want somebody")
	for _, bad := range []string{"X", ": v", "X Y: v", "X: a\nB: c"} {
		query("--header", bad).fails(exitUsage, "want NAME: VALUE")
	}
}
