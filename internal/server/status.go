package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/query"
)

// prometheusVersion is that of the engine inside. Grafana and others choose features by it.
const prometheusVersion = "3.16.0"

type object = map[string]any

// rules has none, and holds what it is asked for to Prometheus's rules all the same.
func (s *server) rules(r *http.Request) answer {
	if _, err := s.selectors(r); err != nil {
		return failed(badData, err)
	}
	if t := strings.ToLower(r.Form.Get("type")); t != "" && t != "alert" && t != "record" {
		return invalid("type", fmt.Errorf("not supported value %q", t))
	}
	if v := strings.ToLower(r.Form.Get("exclude_alerts")); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return invalid("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
		}
	}
	limit, token := r.Form.Get("group_limit"), r.Form.Get("group_next_token")
	if limit != "" {
		switch n, err := strconv.ParseInt(limit, 10, 32); {
		case err != nil:
			return invalid("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
		case n <= 0:
			return invalid("group_limit", errors.New("group_limit needs to be greater than 0"))
		}
	}
	if token != "" {
		if limit == "" {
			return invalid("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
		}
		return invalid("group_next_token", fmt.Errorf("invalid group_next_token '%v'. were rule groups changed?", token))
	}
	return answer{data: value{object{"groups": []any{}}}}
}

// statusOwn is no endpoint of Prometheus's.
func (s *server) statusOwn(*http.Request) answer {
	if s.Status == nil {
		return failed(notFound, errors.New("shmts: no such endpoint: /api/v1/status/shmtsd"))
	}
	return answer{data: value{s.Status()}}
}

func (s *server) alerts(*http.Request) answer {
	return answer{data: value{object{"alerts": []any{}}}}
}

// Nothing is scraped here: what would be targets are segments, which shmctl ls lists.

func (s *server) targets(r *http.Request) answer {
	counts := object{}
	switch strings.ToLower(r.Form.Get("state")) {
	case "", "any", "dropped":
	default:
		counts = nil // as Prometheus
	}
	return answer{data: value{object{"activeTargets": []any{}, "droppedTargets": []any{}, "droppedTargetCounts": counts}}}
}

func (s *server) targetMetadata(r *http.Request) answer {
	if v := r.Form.Get("limit"); v != "" {
		if _, err := strconv.Atoi(v); err != nil {
			return failed(badData, errors.New("limit must be a number"))
		}
	}
	if m := r.Form.Get("match_target"); m != "" {
		if _, err := s.Engine(r).Selectors([]string{m}); err != nil {
			return invalid("match_target", err)
		}
	}
	return answer{data: value{[]any{}}}
}

func (s *server) scrapePools(*http.Request) answer {
	return answer{data: value{object{"scrapePools": []any{}}}}
}

func (s *server) alertmanagers(*http.Request) answer {
	return answer{data: value{object{"activeAlertmanagers": []any{}, "droppedAlertmanagers": []any{}}}}
}

func (s *server) notifications(*http.Request) answer { return answer{data: value{[]any{}}} }

// notificationsLive is 204, which tells an EventSource that none will come.
func (s *server) notificationsLive(*http.Request) answer { return answer{} }

// buildInfo has no features, or Grafana takes this for Mimir.
func (s *server) buildInfo(*http.Request) answer {
	return answer{data: value{struct {
		Version   string `json:"version"`
		Revision  string `json:"revision"`
		Branch    string `json:"branch"`
		BuildUser string `json:"buildUser"`
		BuildDate string `json:"buildDate"`
		GoVersion string `json:"goVersion"`
	}{prometheusVersion, s.Revision, "shmts", "shmtsd " + s.Version, s.BuildDate, runtime.Version()}}}
}

func (s *server) runtimeInfo(*http.Request) answer {
	host, err := os.Hostname()
	if err != nil {
		return failed(internal, fmt.Errorf("error getting hostname: %w", err))
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "<error retrieving current working directory>" // Prometheus's words
	}
	_, at, ok := s.Config()
	var corruptions int64
	if s.Corruptions != nil {
		corruptions = s.Corruptions()
	}
	return answer{data: value{struct {
		StartTime           time.Time `json:"startTime"`
		CWD                 string    `json:"CWD"`
		Hostname            string    `json:"hostname"`
		ServerTime          time.Time `json:"serverTime"`
		ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
		LastConfigTime      time.Time `json:"lastConfigTime"`
		CorruptionCount     int64     `json:"corruptionCount"`
		GoroutineCount      int       `json:"goroutineCount"`
		GOMAXPROCS          int       `json:"GOMAXPROCS"`
		GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
		GOGC                string    `json:"GOGC"`
		GODEBUG             string    `json:"GODEBUG"`
		StorageRetention    string    `json:"storageRetention"`
	}{s.started.UTC(), cwd, host, s.Now().UTC(), ok, at.UTC().Truncate(time.Second), corruptions, runtime.NumGoroutine(), runtime.GOMAXPROCS(0),
		debug.SetMemoryLimit(-1), os.Getenv("GOGC"), os.Getenv("GODEBUG"), s.Retention}}}
}

func (s *server) statusConfig(*http.Request) answer {
	yaml, _, _ := s.Config()
	return answer{data: value{object{"yaml": yaml}}}
}

func (s *server) statusFlags(*http.Request) answer {
	flags := s.Flags
	if flags == nil {
		flags = map[string]string{}
	}
	return answer{data: value{flags}}
}

// stat is an entry of status/tsdb.
type stat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

func namedStats(list []query.NamedCount) []stat {
	out := make([]stat, len(list))
	for i, e := range list {
		out[i] = stat{e.Name, e.Count}
	}
	return out
}

const maxStats = 10_000

// statusTSDB tells where the series are. It counts all there are, so one at a time.
func (s *server) statusTSDB(r *http.Request) answer {
	limit := 10
	if v := r.Form.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		switch {
		case err != nil || n < 1:
			return failed(badData, errors.New("limit must be a positive number"))
		case n > maxStats:
			return failed(badData, fmt.Errorf("limit must not exceed %d", maxStats))
		}
		limit = n
	}
	counts := s.desk(r).counts
	select {
	case counts <- struct{}{}:
		defer func() { <-counts }()
	case <-r.Context().Done():
		return failed(classify(r.Context().Err(), internal), r.Context().Err())
	}
	c, err := s.Engine(r).Cardinality(r.Context(), limit)
	if err != nil {
		return failed(classify(err, execution), err)
	}
	type headStats struct {
		NumSeries     int   `json:"numSeries"`
		NumLabelPairs int   `json:"numLabelPairs"`
		ChunkCount    int64 `json:"chunkCount"` // rows are not in chunks
		MinTime       int64 `json:"minTime"`
		MaxTime       int64 `json:"maxTime"`
	}
	return answer{data: value{struct {
		HeadStats                   headStats `json:"headStats"`
		SeriesCountByMetricName     []stat    `json:"seriesCountByMetricName"`
		LabelValueCountByLabelName  []stat    `json:"labelValueCountByLabelName"`
		MemoryInBytesByLabelName    []stat    `json:"memoryInBytesByLabelName"`
		SeriesCountByLabelValuePair []stat    `json:"seriesCountByLabelValuePair"`
		Shmts                       useStats  `json:"shmts"`
	}{headStats{c.Series, c.Pairs, 0, c.Oldest, c.Newest}, namedStats(c.Metrics), namedStats(c.Labels), namedStats(c.Bytes), namedStats(c.LabelPairs), useOf(c)}}}
}

// useStats is what status/tsdb has beside what Prometheus has: what is not shown, why, and how full segments are.
type useStats struct {
	Dropped             []dropStat   `json:"droppedSeries"`
	DroppedByMetricName []dropStat   `json:"droppedSeriesByMetricName"`
	DroppedBySource     []dropStat   `json:"droppedSeriesBySource"`
	Sources             []sourceStat `json:"sources"`
}

type dropStat struct {
	Reason   string `json:"reason"`
	Rule     int    `json:"rule,omitempty"`
	Action   string `json:"action,omitempty"`
	Name     string `json:"name,omitempty"`
	Job      string `json:"job,omitempty"`
	Instance string `json:"instance,omitempty"`
	Value    uint64 `json:"value"`
}

type sourceStat struct {
	Job      string      `json:"job"`
	Instance string      `json:"instance"`
	UID      int         `json:"uid"`
	Series   int         `json:"series"`
	Segments int         `json:"segments"`
	Grown    int         `json:"grownSegments"`
	Slots    partStat    `json:"seriesSlots"`
	Heap     partStat    `json:"heapBytes"`
	Tables   []tableStat `json:"tables"`
	Dropped  uint64      `json:"droppedSeries"`
	Skipped  uint64      `json:"skippedSeries"`
}

type tableStat struct {
	Name  string   `json:"name"`
	Cells partStat `json:"cells"`
}

type partStat struct {
	Used uint64 `json:"used"`
	Size uint64 `json:"size"`
}

func useOf(c *query.Cardinality) useStats {
	drops := func(list []query.Dropped) []dropStat {
		out := make([]dropStat, len(list))
		for i, d := range list {
			out[i] = dropStat{d.Reason, d.Rule, d.Action, d.Name, d.Job, d.Instance, d.Series}
		}
		return out
	}
	u := useStats{drops(c.Dropped), drops(c.DroppedNames), drops(c.DroppedSources), make([]sourceStat, len(c.Sources))}
	for i, s := range c.Sources {
		o := sourceStat{Job: s.Job, Instance: s.Instance, UID: s.UID, Series: s.Series, Segments: s.Segments, Grown: s.Grown, Slots: partStat(s.Room.Series), Heap: partStat(s.Room.Heap),
			Tables: make([]tableStat, len(s.Room.Tables)), Dropped: s.Counters.DroppedSeries, Skipped: s.Counters.SkippedSeries}
		for k, t := range s.Room.Tables {
			o.Tables[k] = tableStat{t.Name, partStat(t.Cells)}
		}
		u.Sources[i] = o
	}
	return u
}

func (s *server) statusBlocks(*http.Request) answer {
	return answer{data: value{object{"blocks": []any{}}}}
}

// walReplay is over: there is none.
func (s *server) walReplay(*http.Request) answer {
	return answer{data: value{object{"min": 0, "max": 0, "current": 0}}}
}
