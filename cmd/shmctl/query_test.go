package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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
