package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/status"
)

func statusVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:  "status",
			Usage: "show a daemon's state at a glance: store, archive, and what leaves for where",
			Description: "recorded is what all writers record, series times rows of the finest tier; the line of a destination says how much of that it\n" +
				"is sent, and what became of the rest of its requests. Rates are over the last minute or so, totals since the daemon's start.",
			Flags: slices.Concat([]cli.Flag{jsonFlag(),
				&cli.StringFlag{Name: "url", Usage: "where shmtsd listens: `URL`, or unix:///path of a socket", Value: defaultURL, EnvVars: []string{"SHMTS_URL"}},
			}, clientFlags()),
			Action: statusAction,
		},
		json:     status.Daemon{},
		examples: []string{"shmctl status", "shmctl status --url unix:///run/shmtsd.sock --json"},
	}
}

func statusAction(c *cli.Context) error {
	if c.NArg() != 0 {
		return usagef(c, "want no arguments, got %d", c.NArg())
	}
	answer, err := ask[status.Daemon](c, http.MethodGet, "/api/v1/status/shmtsd", url.Values{})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSONLine(c, answer.Data)
	}
	printStatus(c, &answer.Data, time.Now())
	return nil
}

func printStatus(c *cli.Context, d *status.Daemon, now time.Time) {
	out := func(format string, args ...any) { fmt.Fprintf(c.App.Writer, format+"\n", args...) }
	state := "ready"
	if d.Ready != "" {
		state = "not ready: " + d.Ready
	} else if d.Degraded != "" {
		state = "degraded: " + d.Degraded
	}
	out("shmtsd %s, %s, since %s", d.Version, state, d.Started)
	s := d.Store
	out("store     %d segments alive, %d stalled, %d ended; %d sources, %d series, %s", s.Alive, s.Stalled, s.Ended, s.Sources, s.Series, sizeText(s.Bytes))
	if a := d.Archive; a == nil {
		out("archive   none")
	} else {
		if a.Stopped != "" {
			out("archive   STOPPED: %s", a.Stopped)
		}
		for _, t := range a.Tiers {
			from := "empty"
			if t.Oldest != "" {
				from = "from " + t.Oldest
			}
			out("archive   %-4s %s of %s, %s", t.Step, sizeText(t.Used), sizeText(t.Size), from)
		}
	}
	x := d.Export
	out("recorded  %.0f samples/s, %d in all", x.RecordedRate, x.Recorded)
	if len(x.Destinations) == 0 {
		out("export    none")
	}
	for i := range x.Destinations {
		t := &x.Destinations[i]
		share := ""
		if x.RecordedRate > 0 {
			share = fmt.Sprintf(" (%.1f%% of what is recorded)", 100*t.SentRate/x.RecordedRate)
		}
		out("export    %s, %s each %s to %s", t.Name, t.Protocol, t.Step, t.URL)
		out("  sent    %.0f samples/s%s, %d in all, %s", t.SentRate, share, t.Sent, sizeText(int64(t.Bytes)))
		out("  asked   %s", counts(t.Requests))
		if n := counts(t.Refused); n != none {
			out("  refused %s", n)
		}
		if n := counts(t.LostRows); n != none || t.LostExtents > 0 {
			out("  lost    rows: %s; extents of the archive: %d", n, t.LostExtents)
		}
		lag := "nothing left to send"
		if t.Behind {
			lag = fmt.Sprintf("catching up, %s behind", (time.Duration(t.Lag * float64(time.Second))).Round(time.Second))
		} else if t.Lag > 0 {
			lag = fmt.Sprintf("%s behind", (time.Duration(t.Lag * float64(time.Second))).Round(time.Second))
		}
		if at, err := time.Parse(time.RFC3339, t.LastSent); err == nil {
			lag += fmt.Sprintf("; last success %s ago", now.Sub(at).Round(time.Second))
		}
		out("  state   %s", lag)
		if t.LastError != "" {
			out("  error   %s", t.LastError)
		}
	}
}

const none = "none"

// counts are those of a map that are not 0, by name.
func counts(m map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
	}
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ")
}
