package config

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

func env(kv ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) string { return m[k] }
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shmtsd.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever can be said by a flag can be said by the environment and by the file, with the same effect.
func TestThreeWays(t *testing.T) {
	values := map[string]string{
		"store": "/tmp/s", "listen": "127.0.0.1:1", "web.config-file": "/web.yml", "poll-interval": "2s", "dead-ttl": "7s", "hold-limit": "3m", "trust-uids": "1,2",
		"any-owner": "true", "no-map": "true", "self-metrics": "false", "service-name": "d", "resource-attributes": "a=b,c=d",
		"log.level": "debug", "log.format": "json", "query.timeout": "3s", "query.max-concurrency": "3", "query.max-samples": "1000", "query.max-sources": "77", "query.max-memory": "7MiB", "exemplars.max": "500", "query.max-memory-total": "70MiB", "query.experimental-functions": "true",
		"otlp.endpoint": "http://h:1/x", "otlp.protocol": "grpc", "otlp.headers": "k=v,l=a%2Cb", "otlp.timeout": "4s", "otlp.compression": "none",
		"otlp.insecure": "true", "otlp.certificate": "/ca", "otlp.client-certificate": "/c", "otlp.client-key": "/k", "otlp.interval": "11s",
		"budget.user.segments": "7", "budget.user.bytes": "3GiB", "budget.user.series": "9", "budget.user.label-bytes": "5KiB",
		"budget.total.segments": "70", "budget.total.bytes": "1TiB", "budget.total.series": "90", "budget.total.label-bytes": "65536",
		"archive.dir": "/var/lib/a", "archive.tiers": "2s=3MiB,1m=4MiB", "archive.sync-interval": "7s", "archive.user-bytes-per-second": "64KiB", "archive.ephemeral": "false",
		"otlp.temporality": "delta", "export.dir": "/var/lib/e", "otlp.batch-bytes": "5000", "otlp.batch-points": "7",
	}
	def, err := Load(nil, env())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings(&Config{}) {
		if s.name == configFlag {
			continue
		}
		v, ok := values[s.name]
		if !ok {
			t.Errorf("no value for %s: give this test one", s.name)
			continue
		}
		pair := map[string]string{"otlp.client-certificate": "otlp.client-key", "otlp.client-key": "otlp.client-certificate"}[s.name]
		args, vars, yml := []string{"--" + s.name + "=" + v}, []string{envName(s.name), v}, s.name+": "+v+"\n"
		if group, name, ok := strings.Cut(s.name, "."); ok {
			yml = group + ":\n  " + name + ": " + v + "\n"
			if pair != "" {
				yml += "  " + strings.TrimPrefix(pair, "otlp.") + ": /p\n"
			}
		}
		if pair != "" {
			args = append(args, "--"+pair, "/p")
			vars = append(vars, envName(pair), "/p")
		}
		byFlag, err1 := Load(args, env())
		byEnv, err2 := Load(nil, env(vars...))
		byFile, err3 := Load([]string{"--config", file(t, yml)}, env())
		if err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("%s: %v, %v, %v", s.name, err1, err2, err3)
			continue
		}
		if reflect.DeepEqual(byFlag, def) {
			t.Errorf("%s changes nothing", s.name)
		}
		if !reflect.DeepEqual(byFlag, byEnv) || !reflect.DeepEqual(byFlag, byFile) {
			t.Errorf("%s: flag, environment and file differ:\n%+v\n%+v\n%+v", s.name, byFlag, byEnv, byFile)
		}
	}
}

func TestPrecedence(t *testing.T) {
	path := file(t, "otlp: {interval: 1s}\nlog:\n  level: warn\n")
	all := []string{"SHMTS_OTLP_INTERVAL", "3s", "OTEL_METRIC_EXPORT_INTERVAL", "2000", "SHMTS_CONFIG", path}
	for _, c := range []struct {
		args []string
		env  []string
		want time.Duration
	}{
		{nil, nil, 10 * time.Second},
		{nil, all[4:], time.Second},
		{nil, all[2:], 2 * time.Second},
		{nil, all, 3 * time.Second},
		{[]string{"-otlp.interval", "4s"}, all, 4 * time.Second},
	} {
		got, err := Load(c.args, env(c.env...))
		if err != nil {
			t.Fatal(err)
		}
		if got.OTLP.Interval != c.want {
			t.Errorf("args %v, env %v: got %v, want %v", c.args, c.env, got.OTLP.Interval, c.want)
		}
	}
	if got, _ := Load(nil, env(all...)); got.LogLevel != slog.LevelWarn {
		t.Errorf("log.level of the file: got %v", got.LogLevel)
	}
}

func TestEndpoint(t *testing.T) {
	const base, exact = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
	for _, c := range []struct {
		args []string
		env  []string
		want string
	}{
		{[]string{"--otlp.endpoint=http://h:4318"}, nil, "http://h:4318/v1/metrics"},
		{[]string{"--otlp.endpoint=http://h:4318/api/otlp"}, nil, "http://h:4318/api/otlp"},
		{[]string{"--otlp.endpoint=h:4318", "--otlp.insecure"}, nil, "http://h:4318/v1/metrics"},
		{nil, []string{base, "http://h:4318"}, "http://h:4318/v1/metrics"},
		{nil, []string{base, "https://h/otlp/"}, "https://h/otlp/v1/metrics"},
		{nil, []string{base, "http://no", exact, "http://h:4318"}, "http://h:4318/"},
		{nil, []string{exact, "http://h:4318/custom"}, "http://h:4318/custom"},
		{nil, []string{base, "http://h:4317/", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, "http://h:4317"},
		{nil, []string{base, "h:4317", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_INSECURE", "true"}, "http://h:4317"},
		{nil, []string{base, "h:4317", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, "https://h:4317"},
	} {
		got, err := Load(c.args, env(c.env...))
		if err != nil {
			t.Errorf("%v %v: %v", c.args, c.env, err)
		} else if got.OTLP.Endpoint != c.want {
			t.Errorf("%v %v: got %q, want %q", c.args, c.env, got.OTLP.Endpoint, c.want)
		}
	}
}

func TestFileShapes(t *testing.T) {
	got, err := Load([]string{"--config", file(t, `
trust-uids: [1000, 1001]
resource-attributes: {host.name: "a,b", percent: "5%"}
otlp:
  endpoint: http://h:1
  headers: {authorization: "Bearer x=y"}
  batch-bytes: 8192
`)}, env())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.TrustUIDs, []int{1000, 1001}) || got.OTLP.Headers["authorization"] != "Bearer x=y" ||
		got.Attributes["host.name"] != "a,b" || got.Attributes["percent"] != "5%" || got.OTLP.BatchBytes != 8192 {
		t.Errorf("got %+v", got)
	}
}

// An error says where, what was wanted and what was got.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		env   []string
		parts []string
	}{
		{"flag", []string{"--dead-ttl=1s"}, nil, []string{"dead-ttl", "5s", `"1s"`, "flag --dead-ttl"}},
		{"environment", nil, []string{"SHMTS_LOG_LEVEL", "loud"}, []string{"log.level", "debug, info, warn or error", `"loud"`, "environment SHMTS_LOG_LEVEL"}},
		{"OTEL environment", nil, []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"}, []string{"otlp.timeout", "milliseconds", `"10s"`, "OTEL_EXPORTER_OTLP_TIMEOUT"}},
		{"protocol", nil, []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"}, []string{"http/protobuf or grpc", `"http/json"`}},
		{"temporality", nil, []string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Gamma"}, []string{"cumulative or delta", `"gamma"`}},
		{"file", []string{"--config", file(t, "otlp: {interval: never}")}, nil, []string{"otlp.interval", "such as 10s", `"never"`, "file "}},
		{"unknown key", []string{"--config", file(t, "otlp: {intervall: 1s}")}, nil, []string{`"otlp.intervall"`, "otlp.interval"}},
		{"key twice", []string{"--config", file(t, "listen: a:1\nlisten: b:1\n")}, nil, []string{"listen", "twice"}},
		{"no file", []string{"--config", "/nonexistent/x.yml"}, nil, []string{"/nonexistent/x.yml"}},
		{"config in the file", []string{"--config", file(t, "config: other.yml")}, nil, []string{`"config"`}},
		{"unknown flag", []string{"--stor=x"}, nil, []string{"-stor", "--help"}},
		{"argument", []string{"run"}, nil, []string{"flags only", "run"}},
		{"key without certificate", []string{"--otlp.client-key=k"}, nil, []string{"together", `"k"`}},
		{"endpoint", []string{"--otlp.endpoint=ftp://x"}, nil, []string{"http://host:port", `"ftp://x"`}},
		{"kept too short", []string{"--otlp.endpoint=http://h", "--otlp.interval=10m"}, nil, []string{"hold-limit", "20m0s", "11m0s"}},
		{"size without a unit that it knows", []string{"--budget.user.bytes=64MB"}, nil, []string{"budget.user.bytes", "4KiB to 1024TiB", "64MiB", `"64MB"`}},
		{"size too small", nil, []string{"SHMTS_BUDGET_TOTAL_LABEL_BYTES", "1KiB"}, []string{"budget.total.label-bytes", "4KiB", `"1KiB"`, "environment SHMTS_BUDGET_TOTAL_LABEL_BYTES"}},
		{"no budget", []string{"--config", file(t, "budget: {user: {segments: 0}}")}, nil, []string{"budget.user.segments", "1 to", `"0"`}},
		{"listen", []string{"--listen=9465"}, nil, []string{"host:port", `"9465"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(c.args, env(c.env...))
			if err == nil {
				t.Fatal("want an error, got none")
			}
			for _, p := range append(c.parts, "shmts: ") {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("want %q in it, got: %v", p, err)
				}
			}
		})
	}
}

func TestUsageNamesEverything(t *testing.T) {
	var b bytes.Buffer
	Usage(&b)
	for _, s := range settings(&Config{}) {
		for _, want := range []string{"--" + s.name, s.env, s.help} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%q is not in the usage", want)
			}
		}
		for _, o := range s.otel {
			if !strings.Contains(b.String(), o.env) {
				t.Errorf("%q is not in the usage", o.env)
			}
		}
	}
	if c, err := Load([]string{"--help", "--dead-ttl", "x"}, env()); err != nil || !c.Help {
		t.Errorf("--help: got %+v, %v", c, err)
	}
}

// A size is a number of bytes, or one of KiB, MiB, GiB, TiB.
func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64 // -1: an error
	}{{"0", 0}, {"1", 1}, {"4096", 4096}, {"4096B", 4096}, {"4KiB", 4096}, {"4 KiB", 4096}, {"64MiB", 64 << 20}, {"16GiB", 16 << 30}, {"1TiB", 1 << 40},
		{"", -1}, {"KiB", -1}, {"B", -1}, {"-1", -1}, {"1.5GiB", -1}, {"64MB", -1}, {"64mib", -1}, {"2TiB", -1}, {"9223372036854775807TiB", -1},
		{"9223372036854775808", -1}, {"1KiBB", -1}, {"0x10", -1}, {"1e6", -1}} {
		got := int64(-1)
		err := size(&got, 0, 1<<40)(c.text)
		if got != c.want || (err != nil) != (c.want < 0) {
			t.Errorf("%q: want %d, got %d, %v", c.text, c.want, got, err)
		}
		if err == nil {
			var again int64
			if err := size(&again, 0, 1<<40)(sizeText(got)); err != nil || again != got {
				t.Errorf("%q: want %q to mean the same, got %d, %v", c.text, sizeText(got), again, err)
			}
		}
	}
	if c, err := Load([]string{"--config", file(t, "budget:\n  user: {segments: 5, bytes: 1GiB}\n  total:\n    series: 12\n")}, env()); err != nil ||
		c.PerUser.Segments != 5 || c.PerUser.Bytes != 1<<30 || c.Total.Series != 12 || c.Total.Segments != reader.DefaultTotal().Segments {
		t.Errorf("budgets of a file: got %+v, %+v, %v", c.PerUser, c.Total, err)
	}
}

func TestArchive(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  []string
		dir  string
	}{
		{nil, nil, ""},
		{nil, []string{"STATE_DIRECTORY", "/var/lib/shmtsd:/var/lib/more"}, "/var/lib/shmtsd/archive"},
		{[]string{"--archive.dir", "/a"}, []string{"STATE_DIRECTORY", "/var/lib/shmtsd"}, "/a"},
		{nil, []string{"SHMTS_ARCHIVE_DIR", "none", "STATE_DIRECTORY", "/var/lib/shmtsd"}, ""},
	} {
		got, err := Load(c.args, env(c.env...))
		if err != nil || got.Archive.Dir != c.dir {
			t.Errorf("%v, %v: want directory %q, got %q, %v", c.args, c.env, c.dir, got.Archive.Dir, err)
		}
	}
	got, err := Load([]string{"--config", file(t, "archive:\n  tiers: {5m: 2MiB, 1s: 1GiB}\n")}, env())
	if want := []ArchiveTier{{time.Second, 1 << 30}, {5 * time.Minute, 2 << 20}}; err != nil || !reflect.DeepEqual(got.Archive.Tiers, want) {
		t.Errorf("tiers of a file: want %v, got %v, %v", want, got, err)
	}
	for v, want := range map[string]string{
		"1s":                    "STEP=SIZE",
		"1s=1KiB":               "1MiB to",
		"50ms=1MiB":             "100ms to 1h0m0s",
		"1s=1MiB,1s=2MiB":       "each step once",
		"1s=1MiB,1500ms=2MiB":   "multiple",
		"":                      "1 to 8 tiers",
		"1s=1MiB,100000us1=MiB": "duration",
	} {
		if _, err := Load([]string{"--archive.tiers=" + v}, env()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, got %v", v, want, err)
		}
	}
}
