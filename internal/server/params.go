package server

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/query"
)

// The times that Prometheus takes for the beginning and end of time, and accepts as text too.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()

	minTimeText = minTime.Format(time.RFC3339Nano)
	maxTimeText = maxTime.Format(time.RFC3339Nano)
)

// parseTime reads unix seconds, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if t, err := strconv.ParseFloat(s, 64); err == nil {
		// Beyond this the engine's milliseconds would overflow, and what is not a number is no time.
		if !(t >= float64(minTime.Unix()) && t <= float64(maxTime.Unix())) {
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
		}
		sec, frac := math.Modf(t)
		frac = math.Round(frac*1000) / 1000
		return time.Unix(int64(sec), int64(frac*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	switch s { // years of more than four digits, which the time package does not read
	case minTimeText:
		return minTime, nil
	case maxTimeText:
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

func timeParam(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.Form.Get(name)
	if s == "" {
		return absent, nil
	}
	t, err := parseTime(s)
	if err != nil {
		err = fmt.Errorf("invalid time value for '%s': %w", name, err)
	}
	return t, err
}

// span is start and end, both optional.
func span(r *http.Request) (start, end time.Time, bad *answer) {
	start, err := timeParam(r, "start", minTime)
	if err != nil {
		a := invalid("start", err)
		return start, end, &a
	}
	if end, err = timeParam(r, "end", maxTime); err != nil {
		a := invalid("end", err)
		return start, end, &a
	}
	return start, end, nil
}

// parseDuration reads seconds, or Prometheus's 1h30m.
func parseDuration(s string) (time.Duration, error) {
	if d, err := strconv.ParseFloat(s, 64); err == nil {
		ns := d * float64(time.Second)
		if !(ns >= math.MinInt64 && ns < math.MaxInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// limitParam reads limit; 0: none.
func limitParam(r *http.Request) (int, error) {
	s := r.Form.Get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	return n, err
}

// oneMore than a limit tells whether something was cut off.
func oneMore(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

const truncated = "results truncated due to limit"

// selectors reads match[]. Each must have a matcher that does not accept everything.
func (s *server) selectors(r *http.Request) ([][]*labels.Matcher, error) {
	sets, err := s.Engine(r).Selectors(r.Form["match[]"])
	if err != nil {
		return nil, err
	}
next:
	for _, set := range sets {
		for _, m := range set {
			if !m.Matches("") {
				continue next
			}
		}
		return nil, errors.New("match[] must contain at least one non-empty matcher")
	}
	return sets, nil
}

// queryOptions reads lookback_delta, stats and max_source_resolution.
func queryOptions(r *http.Request) (o query.QueryOptions, err error) {
	o.PerStepStats = r.Form.Get("stats") == "all"
	if s := r.Form.Get("lookback_delta"); s != "" {
		if o.Lookback, err = parseDuration(s); err != nil {
			return o, fmt.Errorf("error parsing lookback delta duration: %w", err)
		}
	}
	switch s := r.Form.Get("max_source_resolution"); s {
	case "", "auto":
	default: // Thanos's parameter: 0s is the finest
		d, err := parseDuration(s)
		if err != nil || d < 0 {
			return o, fmt.Errorf("error parsing max_source_resolution: cannot parse %q to a duration of at least 0", s)
		}
		o.MaxSourceResolution = max(d, time.Millisecond)
	}
	return o, nil
}
