package config

import (
	"maps"
	"strings"
	"testing"
)

// What is shown says the same when it is read back, and has no secrets.
func TestShow(t *testing.T) {
	getenv := env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hush@collector:4318", "SHMTS_OTLP_HEADERS", "authorization=Bearer%20hush", "SHMTS_ARCHIVE_DIR", "/var/lib/x")
	c, err := Load([]string{"--otlp.interval", "15s", "--no-map"}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	shown := c.Settings()
	for name, want := range map[string]string{"otlp.interval": "15s", "no-map": "true", "archive.dir": "/var/lib/x", "poll-interval": "1s", "otlp.headers": secret} {
		if shown[name] != want {
			t.Errorf("%s: want %q, got %q", name, want, shown[name])
		}
	}
	text := c.YAML()
	if strings.Contains(text, "hush") || !strings.Contains(shown["otlp.endpoint"], "collector:4318") {
		t.Errorf("want an endpoint without its password, got %s", text)
	}
	again, err := Load([]string{"--config", file(t, strings.Replace(text, secret, "a=b", 1))}, env())
	if err != nil {
		t.Fatalf("read back: %v\n%s", err, text)
	}
	if got := again.Settings(); !maps.Equal(got, shown) {
		t.Errorf("read back:\nwant %v\ngot  %v", shown, got)
	}
	c, err = Load(nil, env("OTEL_EXPORTER_OTLP_HEADERS", "a=b"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Settings()["otlp.headers"] != secret {
		t.Error("headers are shown")
	}
}
