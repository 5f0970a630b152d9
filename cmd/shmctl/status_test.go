package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/status"
)

// What a daemon says of itself, for people and as it came.
func TestStatus(t *testing.T) {
	d := status.Daemon{Version: "1.2", Started: "2030-01-02T03:04:05Z", Degraded: "archiving is stopped: no room",
		Store:   status.Store{Alive: 1000, Ended: 2, Sources: 1001, Series: 100_200, Bytes: 5 << 30},
		Archive: &status.Archive{Stopped: "no room", Tiers: []status.Tier{{Step: "1s", Oldest: "2030-01-01T00:00:00Z", Size: 512 << 20, Used: 511 << 20}, {Step: "5m", Size: 1 << 20}}},
		Export: status.Export{Recorded: 4_000_000, RecordedRate: 91_000, Destinations: []status.Destination{
			{Name: "otlp", Protocol: "grpc", URL: "http://c:4317", Step: "10s", Sent: 300_000, SentRate: 9100, Bytes: 3 << 20, Requests: map[string]uint64{"ok": 30, "retry": 2, "refused": 0}},
			{Name: "mimir", Protocol: "remote_write", URL: "https://m/push", Step: "1m", Behind: true, Lag: 3723, Refused: map[string]uint64{"too_old": 5},
				LostRows: map[string]uint64{"aged_out": 7, "overrun": 0}, LostExtents: 1, LastError: "shmts: no", LastSent: time.Now().Add(-time.Hour).Format(time.RFC3339)}}}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/api/v1/status/shmtsd" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": d})
	}))
	defer server.Close()
	ask := func(args ...string) string {
		var out, errs strings.Builder
		if code := run(append([]string{"shmctl", "status", "--url", server.URL}, args...), nil, &out, &errs); code != exitDone {
			t.Fatalf("want status 0, got %d: %s", code, errs.String())
		}
		return out.String()
	}
	text := ask()
	for _, want := range []string{
		"shmtsd 1.2, degraded: archiving is stopped: no room, since 2030-01-02T03:04:05Z\n",
		"store     1000 segments alive, 0 stalled, 2 ended; 1001 sources, 100200 series, 5.00 GiB\n",
		"archive   STOPPED: no room\n", "archive   1s   511 MiB of 512 MiB, from 2030-01-01T00:00:00Z\n", "archive   5m   0 B of 1.00 MiB, empty\n",
		"recorded  91000 samples/s, 4000000 in all\n",
		"export    otlp, grpc each 10s to http://c:4317\n", "  sent    9100 samples/s (10.0% of what is recorded), 300000 in all, 3.00 MiB\n", "  asked   ok 30, retry 2\n", "  state   nothing left to send\n",
		"export    mimir, remote_write each 1m to https://m/push\n", "  refused too_old 5\n", "  lost    rows: aged_out 7; extents of the archive: 1\n",
		"  state   catching up, 1h2m3s behind; last success 1h0m", "  error   shmts: no\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	var back status.Daemon
	if err := json.Unmarshal([]byte(ask("--json")), &back); err != nil || back.Export.Destinations[1].LostExtents != 1 {
		t.Errorf("--json: got %+v, %v", back, err)
	}
}
