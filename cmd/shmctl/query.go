package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/layout"
)

// What query --json prints: what the daemon answered, as Prometheus documents it.
type queryJSON struct {
	ResultType string          `json:"resultType" doc:"vector, matrix, scalar or string"`
	Result     json.RawMessage `json:"result" doc:"as in Prometheus's HTTP API"`
}

// apiResponse is the envelope of Prometheus's HTTP API.
type apiResponse[T any] struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Data      T        `json:"data"`
	Warnings  []string `json:"warnings"`
	Infos     []string `json:"infos"`
}

// apiSeries is one element of a vector or matrix.
type apiSeries struct {
	Metric     map[string]string `json:"metric"`
	Value      apiPoint          `json:"value"`
	Values     []apiPoint        `json:"values"`
	Histogram  apiPoint          `json:"histogram"`
	Histograms []apiPoint        `json:"histograms"`
}

// apiPoint is [unix seconds, value]; the value is a string, or an object for a histogram.
type apiPoint struct {
	at    float64
	value string
	num   float64
	here  bool
}

func (p *apiPoint) UnmarshalJSON(b []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if err := json.Unmarshal(pair[0], &p.at); err != nil {
		return err
	}
	p.here = true
	if len(pair[1]) > 0 && pair[1][0] == '{' {
		var h struct{ Count, Sum string }
		if err := json.Unmarshal(pair[1], &h); err != nil {
			return err
		}
		p.value = "count=" + h.Count + " sum=" + h.Sum
		p.num, _ = strconv.ParseFloat(h.Count, 64)
		return nil
	}
	if err := json.Unmarshal(pair[1], &p.value); err != nil {
		return err
	}
	p.num, _ = strconv.ParseFloat(p.value, 64) // NaN and infinities parse; a string is drawn as 0
	return nil
}

const defaultURL = "http://127.0.0.1:9465"

// maxAnswer bounds what a daemon can make query hold.
const maxAnswer = 256 << 20

func queryVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "query",
			Usage:     "ask shmtsd in PromQL",
			ArgsUsage: "EXPRESSION",
			Description: "Without --last or --from the expression is answered at one instant, else at each step of a range. TIME is RFC 3339, unix\n" +
				"seconds, now, or a duration before now such as -5m. The daemon's warnings and infos, such as the tier that answered,\n" +
				"go to standard error.",
			Flags: slices.Concat([]cli.Flag{jsonFlag(),
				&cli.StringFlag{Name: "url", Usage: "where shmtsd, or any Prometheus, listens: `URL`, or unix:///path of a socket", Value: defaultURL, EnvVars: []string{"SHMTS_URL"}},
				&cli.StringFlag{Name: "time", Usage: "the instant: `TIME`", Value: "now"},
				&cli.DurationFlag{Name: "last", Usage: "the range from `DURATION` ago until now"},
				&cli.StringFlag{Name: "from", Usage: "the range begins at `TIME`"},
				&cli.StringFlag{Name: "to", Usage: "the range ends at `TIME`", Value: "now"},
				&cli.DurationFlag{Name: "step", Usage: "of a range: `DURATION`", DefaultText: "a 60th of the range, at least 1s"},
				&cli.BoolFlag{Name: "spark", Usage: "of a range, a line for each series: least, greatest and last value, and a sparkline"},
				&cli.BoolFlag{Name: "ascii", Usage: "sparklines in ASCII"},
			}, clientFlags()),
			Action: queryAction,
		},
		json: queryJSON{},
		examples: []string{
			"shmctl query 'sum by (job) (rate(rx_packets_total[10s]))'",
			"SHMTS_USER=ann:secret shmctl query --url https://db1:9465 --ca ca.pem up",
			"shmctl query --url unix:///run/shmtsd.sock --header 'X-Scope-OrgID: team-a' up",
			"shmctl query --last 5m --step 5s --spark 'histogram_quantile(0.99, rate(latency_seconds[30s]))'",
		},
	}
}

// clientFlags are those of who asks a daemon, beside --url.
func clientFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "user", Usage: "log in as `NAME:PASSWORD`; others on this host can read it, unless it is in the environment", EnvVars: []string{"SHMTS_USER"}},
		&cli.GenericFlag{Name: "header", Usage: "send it, such as X-Scope-OrgID: team-a, which names a tenant: `NAME: VALUE`; again for more", Value: &headers{}, EnvVars: []string{"SHMTS_HEADER"}},
		&cli.StringFlag{Name: "ca", Usage: "hold shmtsd's certificate against this CA, in PEM: `FILE`", DefaultText: "those of the system", EnvVars: []string{"SHMTS_CA"}},
		&cli.StringFlag{Name: "cert", Usage: "show this certificate, in PEM: `FILE`", EnvVars: []string{"SHMTS_CERT"}},
		&cli.StringFlag{Name: "key", Usage: "its key, in PEM: `FILE`", DefaultText: "in the file of --cert", EnvVars: []string{"SHMTS_KEY"}},
		&cli.DurationFlag{Name: "timeout", Usage: "give up after this `DURATION`", Value: 30 * time.Second},
	}
}

// headers are those that are sent beside our own. Commas are theirs: one flag is one header.
type headers struct{ list [][2]string }

func (h *headers) Set(v string) error {
	name, value, ok := strings.Cut(v, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsAny(v, "\r\n\x00") {
		return fmt.Errorf("want NAME: VALUE, got %q", v)
	}
	h.list = append(h.list, [2]string{name, value})
	return nil
}

func (h *headers) String() string { return "" }

func queryAction(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want one EXPRESSION, got %d arguments: quote it", c.NArg())
	}
	ranged := c.IsSet("last") || c.IsSet("from")
	form := url.Values{"query": {c.Args().First()}, "timeout": {c.Duration("timeout").String()}}
	now := time.Now()
	at := func(flag string) (time.Time, error) {
		t, err := parseTime(c.String(flag), now)
		if err != nil {
			return t, usagef(c, "%s: %s", flag, strings.TrimPrefix(err.Error(), "shmts: "))
		}
		return t, nil
	}
	path := "/api/v1/query"
	if !ranged {
		for _, f := range []string{"to", "step", "spark"} {
			if c.IsSet(f) {
				return usagef(c, "--%s: want a range with --last or --from, got none", f)
			}
		}
		t, err := at("time")
		if err != nil {
			return err
		}
		form.Set("time", unixText(t))
	} else {
		path = "/api/v1/query_range"
		end, err := at("to")
		if err != nil {
			return err
		}
		start := end.Add(-c.Duration("last"))
		if c.IsSet("from") {
			if start, err = at("from"); err != nil {
				return err
			}
		}
		if !end.After(start) {
			return usagef(c, "want a range that begins before it ends, got %s to %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
		}
		step := c.Duration("step")
		if !c.IsSet("step") {
			step = max(time.Second, end.Sub(start)/60).Truncate(time.Millisecond)
		}
		if step <= 0 {
			return usagef(c, "step: want a duration above 0, got %v", step)
		}
		form.Set("start", unixText(start))
		form.Set("end", unixText(end))
		form.Set("step", strconv.FormatFloat(step.Seconds(), 'f', -1, 64))
	}
	answer, err := ask[queryJSON](c, http.MethodPost, path, form)
	if err != nil {
		return err
	}
	for _, w := range answer.Warnings {
		warn(c, "warning: %s", w)
	}
	for _, i := range answer.Infos {
		warn(c, "info: %s", i)
	}
	if c.Bool("json") {
		return printJSONLine(c, answer.Data)
	}
	return printAnswer(c, &answer.Data)
}

func unixText(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// ask asks a daemon and opens the envelope.
func ask[T any](c *cli.Context, method, path string, form url.Values) (*apiResponse[T], error) {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	base := strings.TrimRight(c.String("url"), "/")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if socket, ok := strings.CutPrefix(base, "unix://"); ok {
		base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef(c, "url: want http://, https:// or unix:///path, got %q", c.String("url"))
	}
	where := u.Redacted()
	if transport.DialContext != nil {
		where = c.String("url")
	}
	if transport.TLSClientConfig, err = clientTLS(c, u); err != nil {
		return nil, err
	}
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else {
		path += "?" + form.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, usagef(c, "url: %s", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("User-Agent", "shmctl/"+version)
	for _, h := range c.Generic("header").(*headers).list {
		request.Header.Add(h[0], h[1])
	}
	if user := c.String("user"); user != "" {
		name, password, ok := strings.Cut(user, ":")
		if !ok {
			return nil, usagef(c, "user: want NAME:PASSWORD, got no colon")
		}
		request.SetBasicAuth(name, password)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("shmts: %s: want an answer in %v, got none", where, c.Duration("timeout"))
		}
		return nil, fmt.Errorf("shmts: %w (%s)", err, connectHint(err))
	}
	defer response.Body.Close()
	var answer apiResponse[T]
	if response.StatusCode == http.StatusUnauthorized && response.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("shmts: %s: want a user and a password that it knows (--user, or $SHMTS_USER), got %s", where, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("shmts: %s: %w", where, err)
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("shmts: %s: want an answer of at most %d bytes, got more", where, maxAnswer)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("shmts: %s: want Prometheus's JSON, got %s: %.120q", where, response.Status, bytes.TrimSpace(text))
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("shmts: "+c.Command.Name+": %s: %s", cmp.Or(answer.ErrorType, response.Status), answer.Error)
	}
	return &answer, nil
}

// clientTLS is what --ca, --cert and --key say; nil where they say nothing.
func clientTLS(c *cli.Context, u *url.URL) (*tls.Config, error) {
	ca, cert, key := c.String("ca"), c.String("cert"), c.String("key")
	switch {
	case ca == "" && cert == "" && key == "":
		return nil, nil
	case u.Scheme != "https":
		return nil, usagef(c, "url: want https:// with --ca, --cert or --key, got %q", u.Redacted())
	case cert == "" && key != "":
		return nil, usagef(c, "key: want --cert with it, got none")
	}
	config := &tls.Config{}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("shmts: ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("shmts: ca: want certificates in PEM in %s, got none", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, cmp.Or(key, cert))
		if err != nil {
			return nil, fmt.Errorf("shmts: cert: want a certificate and its key in %s and %s: %w", cert, cmp.Or(key, cert), err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// connectHint says what may help.
func connectHint(err error) string {
	var verification *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &verification):
		return "--ca says whose certificates are good"
	case errors.As(err, &op) && op.Op == "remote error":
		return "--cert shows it a certificate, if it wants one"
	}
	return "is shmtsd running? --url says where"
}

func printAnswer(c *cli.Context, d *queryJSON) error {
	if d.ResultType == "scalar" || d.ResultType == "string" {
		var p apiPoint
		if err := json.Unmarshal(d.Result, &p); err != nil {
			return fmt.Errorf("shmts: query: a %s: %w", d.ResultType, err)
		}
		fmt.Fprintln(c.App.Writer, oneLine(p.value))
		return nil
	}
	var series []apiSeries
	if err := json.Unmarshal(d.Result, &series); err != nil {
		return fmt.Errorf("shmts: query: a %s: %w", d.ResultType, err)
	}
	var g *grid
	switch {
	case d.ResultType == "matrix" && c.Bool("spark"):
		levels := sparkLevels(c)
		g = newGrid("SERIES", ">POINTS", ">LEAST", ">GREATEST", ">LAST", "TREND")
		for _, s := range series {
			points := s.points()
			if len(points) == 0 {
				continue
			}
			var values []float64
			for _, p := range points {
				values = append(values, p.num)
			}
			g.add(metricText(s.Metric), strconv.Itoa(len(points)), shortText(slices.Min(values)), shortText(slices.Max(values)),
				shortText(values[len(values)-1]), spark(values, min(60, len(values)), levels))
		}
	case d.ResultType == "matrix":
		g = newGrid("TIME", "SERIES", ">VALUE")
		for _, s := range series {
			for _, p := range s.points() {
				g.add(timeText(int64(p.at*1e3)*1e6), metricText(s.Metric), p.value)
			}
		}
	default:
		g = newGrid("SERIES", ">VALUE")
		for _, s := range series {
			for _, p := range s.points() {
				g.add(metricText(s.Metric), p.value)
			}
		}
	}
	g.print(c.App.Writer)
	return nil
}

// points are all of a series', oldest first.
func (s *apiSeries) points() []apiPoint {
	all := slices.Concat(s.Values, s.Histograms)
	for _, p := range []apiPoint{s.Value, s.Histogram} {
		if p.here {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b apiPoint) int { return cmp.Compare(a.at, b.at) })
	return all
}

func metricText(m map[string]string) string {
	var pairs []layout.Pair
	for k, v := range m {
		if k != "__name__" {
			pairs = append(pairs, layout.Pair{Name: k, Value: v})
		}
	}
	slices.SortFunc(pairs, func(a, b layout.Pair) int { return strings.Compare(a.Name, b.Name) })
	if m["__name__"] == "" && len(pairs) == 0 {
		return "{}"
	}
	return seriesText(m["__name__"], pairs)
}

// sparkLevels are blocks, unless asked otherwise or the locale is plainly another.
func sparkLevels(c *cli.Context) []rune {
	locale := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"), "C.UTF-8")
	if c.Bool("ascii") || locale == "C" || locale == "POSIX" {
		return sparkASCII
	}
	return sparkBlocks
}
