package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/internal/peers"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/server"
)

// nextToPrometheus asks the same of a Prometheus that holds what the queries select, of the same times and values, in turns with the archive: both
// over HTTP, warm.
func nextToPrometheus(engine *query.Engine, end time.Time) error {
	dir, err := os.MkdirTemp("", "shmts-archive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	theirs, cmd, err := peers.StartPrometheus(func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }, dir, "")
	if err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := sendHour(theirs); err != nil {
		return err
	}
	ours := httptest.NewServer(server.New(server.Options{Engine: engine, Now: func() time.Time { return end }}))
	defer ours.Close()
	for _, q := range hourQueries {
		var took [2][]time.Duration
		var last [2]float64
		for round := range q.rounds + 1 {
			for side, base := range []string{ours.URL, theirs} {
				begin := time.Now()
				v, err := askHTTP(base, q.query, end, q.step)
				if err != nil {
					return err
				}
				if last[side] = v; round > 0 { // the first is not warm
					took[side] = append(took[side], time.Since(begin))
				}
			}
		}
		if math.Abs(last[0]-last[1]) > 0.02*math.Abs(last[1]) { // rates of rows of 10 s and of 1 s differ a little
			return fmt.Errorf("shmts: query: %s: want what Prometheus answers, %g, got %g", q.query, last[1], last[0])
		}
		for side, who := range []string{"http", "prometheus"} {
			p50, _ := middle(took[side])
			print("query/"+q.name+"_"+who+"_ms", p50)
		}
	}
	return nil
}

// askHTTP answers the last value of the one series that there is.
func askHTTP(base, text string, end time.Time, step time.Duration) (float64, error) {
	at := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	r, err := http.PostForm(base+"/api/v1/query_range", url.Values{"query": {text}, "start": {at(end.Add(-time.Hour))}, "end": {at(end)}, "step": {fmt.Sprint(step.Seconds())}})
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) != 1 || len(answer.Data.Result[0].Values) < int(time.Hour/step)*95/100 {
		return 0, fmt.Errorf("shmts: query: %s: want one series, got %s %.200s", text, r.Status, body)
	}
	values := answer.Data.Result[0].Values
	number, _ := values[len(values)-1][1].(string)
	return strconv.ParseFloat(number, 64)
}

// sendHour sends what hourQueries select.
func sendHour(url string) error {
	w := peers.NewRemoteWrite(url)
	instance := func(i int) string { return fmt.Sprintf("vm-%06d", i) }
	var errs []error
	for i := range hourSources {
		var times []int64
		var values []float64
		for second := 1; second <= hourRows; second++ {
			times, values = append(times, hourTime(i, second)), append(values, float64(hourValue(i, 5, second)))
		}
		errs = append(errs, w.Floats(labels.FromStrings("__name__", "metric_05_total", "dev", "1", "instance", instance(i), "job", "vm"), times, values))
	}
	const rows = hourRows / 10
	for i := range hourHistograms {
		words := histogramWords(i, rows)
		var times []int64
		var values []*histogram.FloatHistogram
		for row := range rows {
			of := words[row*(hourBuckets+3) : (row+1)*(hourBuckets+3)]
			h := &histogram.FloatHistogram{Schema: 3, ZeroThreshold: math.Exp2(-hourBuckets / 2 / 8.0), Sum: math.Float64frombits(of[0]),
				PositiveSpans: []histogram.Span{{Offset: -hourBuckets/2 + 1, Length: hourBuckets}}}
			for _, n := range of[2 : 2+hourBuckets] {
				h.PositiveBuckets = append(h.PositiveBuckets, float64(n))
				h.Count += float64(n)
			}
			times, values = append(times, corpus.Begin+int64(row+1)*10_000-int64(i%4)), append(values, h.Compact(0))
		}
		errs = append(errs, w.Histograms(labels.FromStrings("__name__", "latency_seconds", "instance", instance(i), "job", "vm"), times, values))
	}
	return errors.Join(append(errs, w.Flush())...)
}
