package remotewrite

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/httpclient"
)

// Reasons for which a receiver does not take samples, beside status_ and its number: what Prometheus, and Mimir, say in the text
// of a 400.
const (
	RefusedOutOfOrder = "out_of_order" // a newer sample of the series is there
	RefusedTooOld     = "too_old"      // older than the receiver takes any
	RefusedDuplicate  = "duplicate"    // another value is there at that time
	RefusedUnwritten  = "unwritten"    // a 2xx, which counted fewer samples as written than were sent
)

// reasons are found by what stands in a line of the answer, in lower case.
var reasons = []struct{ text, reason string }{
	{"out of order sample", RefusedOutOfOrder},
	{"out-of-order", RefusedOutOfOrder},
	{"too old sample", RefusedTooOld},
	{"out of bounds", RefusedTooOld},
	{"too-old", RefusedTooOld},
	{"duplicate sample for timestamp", RefusedDuplicate},
	{"duplicate-timestamp", RefusedDuplicate},
}

var writtenHeaders = [...]string{"X-Prometheus-Remote-Write-Samples-Written", "X-Prometheus-Remote-Write-Histograms-Written",
	"X-Prometheus-Remote-Write-Exemplars-Written"}

// written is how many samples and histograms a receiver says that it wrote; false if it does not say.
func written(h http.Header) (n int, said bool) {
	for i, name := range writtenHeaders {
		v := h.Get(name)
		if v == "" {
			continue
		}
		said = true
		if k, err := strconv.Atoi(v); err == nil && k > 0 && i < 2 {
			n += min(k, 1<<30)
		}
	}
	return n, said
}

// message makes what is to be sent next of a shard: all of it as 2.0, or its next layer as 1.0.
func (e *Encoder) message(s *shard, v1 bool) {
	if v1 {
		s.scratch = e.translate(s.scratch[:0], s.symbols, s.layers[s.sent].series)
	} else {
		s.scratch = append(s.scratch[:0], s.symbols...)
		for _, l := range s.layers[:s.used] {
			s.scratch = append(s.scratch, l.series...)
		}
	}
	s.body = snappy.Encode(s.body[:cap(s.body)], s.scratch)
	s.v1, s.ready = v1, true
}

// left is how many points are in a shard that are not done with.
func (s *shard) left() (n int) {
	for _, l := range s.layers[s.sent:s.used] {
		n += l.points
	}
	return n
}

// sendShard sends a shard's request once, and once more if it turns out that the receiver takes 1.0 alone; in 1.0 one request for each layer.
func (e *Encoder) sendShard(ctx context.Context, s *shard) (out export.Result) {
	for s.sent < s.used {
		// Of what 1.0 took a part, the rest goes by it too.
		v1 := e.speaksV1() || s.sent > 0
		if !s.ready || s.v1 != v1 {
			e.message(s, v1)
		}
		points := s.left()
		if v1 {
			points = s.layers[s.sent].points
		}
		if points > 0 {
			r, unsupported := e.attempt(ctx, s, points)
			out.Bytes += r.Bytes
			if unsupported != "" {
				e.fallBack(unsupported)
				continue
			}
			gather(&out, r)
			if r.Err != nil {
				out.Err = r.Err
			}
			if r.Retry {
				out.Retry, out.After = true, r.After
				return out
			}
		}
		if s.attempts, s.ready = 0, false; !v1 {
			break
		}
		s.sent++
	}
	return out
}

// gather adds what a part of a request came to.
func gather(out *export.Result, r export.Result) {
	out.Taken += r.Taken
	for reason, n := range r.Refused {
		if out.Refused == nil {
			out.Refused = map[string]int{}
		}
		out.Refused[reason] += n
	}
	if r.Message != "" {
		out.Message = r.Message
	}
}

// attempt posts a shard's body. unsupported says why the receiver does not take 2.0.
func (e *Encoder) attempt(ctx context.Context, s *shard, points int) (r export.Result, unsupported string) {
	h := e.header(s.v1)
	if s.attempts > 0 {
		h["Retry-Attempt"] = []string{strconv.Itoa(s.attempts)}
	}
	s.attempts++
	a, err := e.client.Post(ctx, h, s.body)
	r.Bytes = len(s.body)
	if a == nil {
		r.Err, r.Retry = err, true
		return r, ""
	}
	n, said := written(a.Header)
	n = min(n, points)
	switch {
	case a.Code/100 == 2 && s.v1:
		r.Taken = points
		return r, ""
	case a.Code/100 == 2 && said:
		r.Taken = n
		if n < points {
			r.Refused = map[string]int{RefusedUnwritten: points - n}
			r.Message = a.Text()
		}
		return r, ""
	case a.Code/100 == 2:
		return r, "it does not say how much it has written"
	case a.Code == http.StatusUnsupportedMediaType && !s.v1:
		return r, "status " + a.Status
	}
	err = fmt.Errorf("shmts: %s: want status 2xx of %s, got %s: %q", e.o.HTTP.Who, e.client.URL(), a.Status, a.Text())
	if a.Code/100 == 5 || a.Code == http.StatusTooManyRequests && !e.o.NoRetryOn429 {
		r.Err, r.Retry, r.After = err, true, httpclient.RetryAfter(a.Header.Get("Retry-After"), e.o.Now())
		return r, ""
	}
	if s.v1 || !said {
		n = 0
	}
	r.Taken, r.Refused = n, refused(a, points-n)
	if n > 0 {
		r.Message = a.Text()
	} else {
		r.Err = err
	}
	return r, ""
}

// refused says why so many were not taken: 2.0 has a line for each, 1.0 one for all.
func refused(a *httpclient.Answer, points int) map[string]int {
	if points == 0 {
		return nil
	}
	out := map[string]int{}
	main, left := "", points
	if a.Code == http.StatusBadRequest {
		for line := range strings.Lines(strings.ToLower(string(a.Body))) {
			for _, r := range reasons {
				if strings.Contains(line, r.text) {
					if main == "" {
						main = r.reason
					}
					if left > 0 {
						out[r.reason]++
						left--
					}
					break
				}
			}
		}
	}
	if main == "" {
		main = "status_" + strconv.Itoa(a.Code)
	}
	if left > 0 {
		out[main] += left // 1.0's one line is for all, and of 2.0's the answer is cut
	}
	return out
}

func (e *Encoder) header(v1 bool) http.Header {
	h := http.Header{
		"User-Agent":                        {"shmtsd/" + e.o.Version},
		"Content-Encoding":                  {"snappy"},
		"Content-Type":                      {"application/x-protobuf;proto=" + MessageV2},
		"X-Prometheus-Remote-Write-Version": {"2.0.0"},
	}
	if v1 {
		h["Content-Type"] = []string{"application/x-protobuf"}
		h["X-Prometheus-Remote-Write-Version"] = []string{"0.1.0"}
	}
	return h
}

// sendMetadata sends what is known of metrics, where 1.0 is spoken and it is time to. One that fails is sent with the next.
func (e *Encoder) sendMetadata(ctx context.Context) (bytes int) {
	if e.o.NoMetadata || !e.speaksV1() {
		return 0
	}
	for _, m := range e.dueMetadata(e.o.Now()) {
		body := snappy.Encode(nil, m)
		bytes += len(body)
		a, err := e.client.Post(ctx, e.header(true), body)
		if a != nil && a.Code/100 == 2 {
			continue
		}
		if a != nil {
			err = fmt.Errorf("want status 2xx, got %s: %q", a.Status, a.Text())
		}
		e.log.Debug("metadata were not taken", "err", err)
		return bytes
	}
	if bytes > 0 {
		e.forgetMetadata()
	}
	return bytes
}

// families are metrics of which there is something to say in 1.0. They belong to their Encoder under its mutex.
type families struct {
	of   map[string]family
	next time.Time
}

type family struct {
	typ        uint64
	help, unit string
}

// maxFamilies bounds those between two requests.
const maxFamilies = 20_000
