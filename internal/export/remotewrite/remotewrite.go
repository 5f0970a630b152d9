// Package remotewrite writes rows as Prometheus's remote-write has them, 2.0 (io.prometheus.write.v2.Request) and 1.0
// (prometheus.WriteRequest), and sends them: the export.Encoder of a destination that speaks it.
//
// Series go out under the names and labels that PromQL has for them on this host:
//
//	counter     x_total, with its start
//	updown      x, a gauge
//	gauge       x
//	stat x      x (last), x_min and x_max of the time since the row before as gauges, x_count, and x_sum, which is a counter
//	            if the stat is declared non-negative and else a gauge
//	histogram   x, a native histogram: schema is the scale, the zero threshold the lowest bucket's lower bound, and what lies
//	            above the last bucket one bucket more behind it. Or, for receivers that have no native ones, the classic
//	            x_bucket with every le, x_sum and x_count
//	a source    target_info, if it has attributes that job and instance do not say
//
// A counter or histogram that begins is 0 at its start, and then what it is in its first row: in 2.0 samples carry their start
// as well, but a receiver that does not look at it, as Prometheus without the feature use-start-timestamps, would otherwise not
// see the first increase. Where a value ends a staleness marker is sent: at the process's end, 1 ms behind its last row; where a
// series is retired; where a gauge is unset again; and where in the time of a row nothing was recorded into a stat, of whose
// minimum and maximum PromQL then says nothing either.
//
// Everything is written as 2.0, and translated for a receiver that takes 1.0.
package remotewrite

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/internal/relabel"
)

// The names of protobuf_message.
const (
	MessageV1 = "prometheus.WriteRequest"
	MessageV2 = "io.prometheus.write.v2.Request"
)

// Options of New.
type Options struct {
	HTTP    httpclient.Options // Timeout 0: 30 s
	Message string             // MessageV2 (also if empty), which falls back to 1.0 where the receiver does not take it, or MessageV1

	MaxSamples int // of one request; 0: 2000
	MaxBytes   int // a request is sent when it is so large, uncompressed; 0: 1 MiB
	MaxShards  int // so many requests at once, each with series of its own; 0: 8

	NoRetryOn429 bool // a 429 refuses samples for good
	Exemplars    bool // send them
	Classic      bool // histograms as x_bucket, x_sum and x_count, not as native ones
	NoMetadata   bool // no requests with metadata in 1.0; in 2.0 it is with the series
	// MetadataInterval is how often metadata goes out in 1.0. 0: 1 min.
	MetadataInterval time.Duration
	// Rules answers what is done to series before they go out, write_relabel_configs behind metric_relabel_configs: the same pointer until
	// that is something else. nil: nothing.
	Rules func() *relabel.Rules
	// Step is the destination's: a start further back than it explains is not sent as a sample of 0. 0: 1 min.
	Step time.Duration

	Version string // of the program, for the User-Agent
	Logger  *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Encoder is an export.Encoder for remote-write.
type Encoder struct {
	o      Options
	client *httpclient.Client
	log    *slog.Logger

	schemas map[any]*schema
	scratch []byte
	rules   *relabel.Rules   // those that schemas were made with
	lives   map[uint64]*life // by the hash of a source's labels

	shards  []*shard // the first of which are used
	used    int
	batch   uint64
	points  int      // in all of them
	wanted  bool     // the request is to be sent, or was, because there is more
	layered bool     // the batch is made for 1.0
	left    int      // points that were left out, since newer ones of their series were sent, and are not counted yet
	prefix  []uint64 // counts of a histogram's row up to each bucket

	mu       sync.Mutex
	v1Until  time.Time // 1.0 is spoken until then
	metadata families
}

var _ export.Encoder = (*Encoder)(nil)

// life is what is known of a source: of its segments, which a successor has others of, and one that grows several.
type life struct {
	segments []*sent // the last few
	target   int64   // time of the last target_info, ms

	// Of the batch in the making: the layers from base on are of the segment of, and those from top on are empty.
	batch     uint64
	base, top int
	of        *sent
}

// sent is what is known of a segment of a source.
type sent struct {
	id      string
	schemas []*schema
	last    int64   // time of the last sample, ms
	tables  []int64 // of the last row of each table, ms
	levels  []int   // of each table: the layer of its next row
}

// maxSegments bounds those of a source that are remembered.
const maxSegments = 8

// maxLives bounds those that are remembered: what is forgotten is how a source that ended joins on to its successor.
const maxLives = 1 << 13

// New makes an encoder. Its error says which option is wrong.
func New(o Options) (*Encoder, error) {
	if o.HTTP.Who == "" {
		o.HTTP.Who = "remote_write"
	}
	if o.HTTP.Timeout == 0 {
		o.HTTP.Timeout = 30 * time.Second
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 2000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	if o.MaxShards == 0 {
		o.MaxShards = 8
	}
	if o.MetadataInterval == 0 {
		o.MetadataInterval = time.Minute
	}
	if o.Step == 0 {
		o.Step = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.HTTP.HTTP, o.HTTP.Connections = httpclient.HTTP1, o.MaxShards
	e := &Encoder{o: o, log: o.Logger, schemas: map[any]*schema{}, lives: map[uint64]*life{}, used: 1, batch: 1}
	switch o.Message {
	case MessageV2, "":
	case MessageV1:
		e.v1Until = never
	default:
		return nil, errOption(o.HTTP.Who, "protobuf_message", MessageV2+" or "+MessageV1, o.Message)
	}
	var err error
	if e.client, err = httpclient.New(o.HTTP); err != nil {
		return nil, err
	}
	for range o.MaxShards {
		e.shards = append(e.shards, newShard())
	}
	e.layered = e.speaksV1()
	return e, nil
}

// Add implements export.Encoder.
func (e *Encoder) Add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	return e.add(src, row, false, at)
}

// End implements export.Encoder.
func (e *Encoder) End(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	return e.add(src, row, true, at)
}

// Full implements export.Encoder.
func (e *Encoder) Full() bool {
	if e.wanted { // a row did not fit
		return true
	}
	for _, s := range e.shards[:e.used] {
		most := s.points
		if e.layered { // each layer is a request
			if most = s.points / maxRequests; most < e.o.MaxSamples {
				for _, l := range s.layers[:s.used] {
					most = max(most, l.points)
				}
			}
		}
		if most >= e.o.MaxSamples || s.size >= e.o.MaxBytes {
			e.wanted = true
			return true
		}
	}
	return false
}

// maxRequests is how many a batch is in 1.0, about: what is in memory is bounded.
const maxRequests = 8

// Points implements export.Encoder.
func (e *Encoder) Points() int { return e.points }

// Reset implements export.Encoder. Where there was more to send than one batch has room for, the next one has twice the shards.
func (e *Encoder) Reset() {
	for _, s := range e.shards[:e.used] {
		s.reset()
	}
	if e.wanted {
		e.used = min(2*e.used, e.o.MaxShards)
	} else {
		e.used = max(e.used/2, 1)
	}
	e.points, e.wanted, e.layered = 0, false, e.speaksV1()
	e.batch++
}

// never is later than any time.
var never = time.Unix(1<<40, 0)

// Close closes the connections that are kept.
func (e *Encoder) Close() { e.client.CloseIdleConnections() }

// Version is what is spoken: "1.0" or "2.0".
func (e *Encoder) Version() string {
	if e.speaksV1() {
		return "1.0"
	}
	return "2.0"
}

func (e *Encoder) speaksV1() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.o.Now().Before(e.v1Until)
}

// retryV2 is how long a receiver that did not take 2.0 is sent 1.0, before 2.0 is tried again.
const retryV2 = time.Hour

// fallBack has 1.0 spoken for a while.
func (e *Encoder) fallBack(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.o.Now(); !now.Before(e.v1Until) {
		e.v1Until = now.Add(retryV2)
		e.log.Warn("the receiver takes no remote-write 2.0: 1.0 for a while", "why", why, "while", retryV2)
	}
}

// Send implements export.Encoder.
func (e *Encoder) Send(ctx context.Context) export.Result {
	var busy []*shard
	for _, s := range e.shards[:e.used] {
		if s.points > 0 {
			busy = append(busy, s)
		}
	}
	results := make([]export.Result, len(busy))
	var wg sync.WaitGroup
	for i, s := range busy[min(1, len(busy)):] {
		wg.Go(func() { results[i+1] = e.sendShard(ctx, s) })
	}
	if len(busy) > 0 {
		results[0] = e.sendShard(ctx, busy[0])
	}
	wg.Wait()
	var out export.Result
	for i, r := range results {
		out.Bytes += r.Bytes
		gather(&out, r)
		if e.points -= busy[i].points; r.Retry {
			e.points += busy[i].left()
		} else {
			busy[i].reset()
		}
		// One that is to be tried again counts for more than one that was refused.
		if r.Err != nil && (out.Err == nil || r.Retry && !out.Retry) {
			out.Err = r.Err
		}
		out.Retry = out.Retry || r.Retry
		out.After = max(out.After, r.After)
	}
	if out.Err != nil && !out.Retry && out.Taken > 0 { // a part was refused
		out.Message, out.Err = out.Err.Error(), nil
	}
	if !out.Retry && !e.wanted { // what else there is to say of them comes first
		out.Bytes += e.sendMetadata(ctx)
	}
	if e.left > 0 {
		if out.Refused == nil {
			out.Refused = map[string]int{}
		}
		out.Refused[RefusedOutOfOrder] += e.left
		e.left = 0
	}
	return out
}

// hash of labels, in order.
func hash(ls []label) uint64 {
	h := fnv.New64a()
	for _, l := range ls {
		h.Write([]byte(l.name))
		h.Write([]byte{0xff})
		h.Write([]byte(l.value))
		h.Write([]byte{0xff})
	}
	return h.Sum64()
}
