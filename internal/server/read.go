package server

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/query"
)

// What a client of remote read may take.
const (
	samplesType = 0
	chunksType  = 1
)

// frameSize is how large a frame of chunks gets, about: Prometheus's default.
const frameSize = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A httpError is an error of an endpoint that has no envelope.
type httpError struct {
	code int
	err  error
}

func (e *httpError) Error() string { return e.err.Error() }

func badRequest(err error) error { return &httpError{http.StatusBadRequest, err} }

// plainError answers an error as text, and gives its code.
func plainError(w http.ResponseWriter, err error) int {
	code := classify(err, internal).code
	var e *httpError
	if errors.As(err, &e) {
		code = e.code
	}
	http.Error(w, err.Error(), code)
	return code
}

// decodeRead reads a request. Its length is looked at before anything is made of it.
func (s *server) decodeRead(r *http.Request) (*readRequest, error) {
	compressed, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, badRequest(s.tooLarge(err))
	}
	size, err := snappy.DecodedLen(compressed)
	if err != nil {
		return nil, badRequest(fmt.Errorf("shmts: remote read: want a snappy block: %w", err))
	}
	if int64(size) > s.MaxBody {
		return nil, badRequest(fmt.Errorf("shmts: remote read: want a request of at most %d bytes, got %d", s.MaxBody, size))
	}
	b, err := snappy.Decode(nil, compressed)
	if err != nil {
		return nil, badRequest(fmt.Errorf("shmts: remote read: want a snappy block: %w", err))
	}
	req := &readRequest{}
	if err := req.parse(b); err != nil {
		return nil, badRequest(fmt.Errorf("shmts: remote read: %w", err))
	}
	return req, nil
}

// remoteRead answers Prometheus's remote read: samples, or a stream of chunks.
func (s *server) remoteRead(w http.ResponseWriter, r *http.Request) int {
	req, err := s.decodeRead(r)
	if err != nil {
		return plainError(w, err)
	}
	return s.placed(func(w http.ResponseWriter, r *http.Request) int { return s.answerRead(w, r, req) })(w, r)
}

func (s *server) answerRead(w http.ResponseWriter, r *http.Request, req *readRequest) int {
	take := -1
	if len(req.types) == 0 {
		take = samplesType
	}
	for _, t := range req.types {
		if t == samplesType || t == chunksType {
			take = int(t)
			break
		}
	}
	reads := s.desk(r).reads
	select { // what is read is held until the client has taken it
	case reads <- struct{}{}:
		defer func() { <-reads }()
	case <-r.Context().Done():
		return plainError(w, r.Context().Err())
	}
	var err error
	switch take {
	case samplesType:
		err = s.readSamples(w, r, req)
	case chunksType:
		err = s.readChunks(w, r, req)
	default:
		err = badRequest(fmt.Errorf("server does not support any of the requested response types: %v; supported: [0 1]", req.types))
	}
	var began *begunError
	switch {
	case errors.As(err, &began): // too late for a status: the connection is cut, so that nobody takes a part for the whole
		s.Logger.Debug("a remote read was not answered to its end", "err", began.error)
		panic(http.ErrAbortHandler)
	case err != nil:
		return plainError(w, err)
	}
	return http.StatusOK
}

// begunError is one that came when a part of the answer was out.
type begunError struct{ error }

// selected are the series of one query of a request. They count as memory until the querier is closed.
func (s *server) selected(r *http.Request, q *readQuery, sorted bool) (storage.SeriesSet, storage.Querier, error) {
	if len(q.matchers) == 0 {
		return nil, nil, badRequest(errors.New("shmts: remote read: want a matcher in each query"))
	}
	querier, err := s.Engine(r).Querier(q.start, q.end)
	if err != nil {
		return nil, nil, err
	}
	h := q.hints
	if h != nil && h.Func == "series" { // our own word for a look at labels alone
		h = nil
	}
	return querier.Select(r.Context(), sorted, h, q.matchers...), querier, nil
}

// readSamples answers all samples in one message.
func (s *server) readSamples(w http.ResponseWriter, r *http.Request, req *readRequest) error {
	var out []byte
	samples := 0
	for i := range req.queries {
		q := &req.queries[i]
		set, querier, err := s.selected(r, q, false)
		if err != nil {
			return err
		}
		defer querier.Close()
		var raw chunkenc.Iterator
		counted := cap(out)
		count := func(b []byte) error { // what append takes, and what is compressed of it
			n := cap(b) - counted
			counted = cap(b)
			return query.Held(querier, 2*int64(n))
		}
		out = message(out, 1, func(b []byte) []byte {
			for err == nil && set.Next() {
				series := set.At()
				b = message(b, 1, func(b []byte) []byte {
					b = appendLabels(b, series.Labels())
					raw = series.Iterator(raw)
					it := within(raw, q.start, q.end)
					for v := it.Next(); v != chunkenc.ValNone; v = it.Next() {
						if samples++; samples > s.MaxReadSamples {
							err = badRequest(fmt.Errorf("exceeded sample limit (%d)", s.MaxReadSamples))
							return b
						}
						if samples%4096 == 0 && r.Context().Err() != nil {
							err = r.Context().Err()
							return b
						}
						if v == chunkenc.ValFloat {
							t, f := it.At()
							b = appendSample(b, t, f)
						} else {
							t, h := it.AtFloatHistogram(nil)
							samples += histogramSamples(h)
							b = appendHistogram(b, t, h)
						}
					}
					err = cmp.Or(it.Err(), count(b))
					return b
				})
			}
			if err == nil {
				err = set.Err()
			}
			return b
		})
		if err != nil {
			return err
		}
	}
	if int64(len(out)) > 1<<31 {
		return badRequest(fmt.Errorf("shmts: remote read: want an answer of less than 2 GiB, got %d bytes", len(out)))
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("Content-Encoding", "snappy")
	p := s.pace(w)
	if _, err := p.Write(snappy.Encode(nil, out)); err != nil {
		return &begunError{err}
	}
	p.end()
	return nil
}

// histogramSamples is what a histogram takes beside a sample.
func histogramSamples(h *histogram.FloatHistogram) int {
	return (len(h.PositiveBuckets) + len(h.NegativeBuckets)) / 2
}

// readChunks answers a stream of frames: of one series each, as many chunks as make a frame.
func (s *server) readChunks(w http.ResponseWriter, r *http.Request, req *readRequest) error {
	p := s.pace(w)
	var frame []byte
	w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
	began := false
	fail := func(err error) error {
		if began {
			return &begunError{err}
		}
		w.Header().Del("Content-Type")
		return err
	}
	for i := range req.queries {
		q := &req.queries[i]
		set, querier, err := s.selected(r, q, true)
		if err != nil {
			return fail(err)
		}
		defer querier.Close()
		var it chunkenc.Iterator
		for set.Next() {
			series := set.At()
			it = series.Iterator(it)
			head := appendLabels(nil, series.Labels())
			body := head
			send := func() error {
				frame = message(frame[:0], 1, func(b []byte) []byte { return append(b, body...) })
				frame = varint(frame, 2, uint64(i))
				size := protowire.AppendVarint(nil, uint64(len(frame)))
				began = true
				if _, err := p.Write(binary.BigEndian.AppendUint32(size, crc32.Checksum(frame, castagnoli))); err != nil {
					return err
				}
				_, err := p.Write(frame)
				body = body[:len(head)]
				return err
			}
			err := encodeChunks(within(it, q.start, q.end), func(c chunkenc.Chunk, from, to int64) error {
				body = appendChunk(body, c, from, to)
				if len(body) < frameSize {
					return r.Context().Err()
				}
				return send()
			})
			if err == nil && len(body) > len(head) {
				err = send()
			}
			if err != nil {
				return fail(err)
			}
		}
		if err := set.Err(); err != nil {
			return fail(err)
		}
	}
	p.end()
	return nil
}

// chunkSamples is how many samples a chunk has: Prometheus's.
const chunkSamples = 120

// encodeChunks makes chunks of samples and hands each on, with the times of its first and last one. The storage package has the like of
// it, which makes chunks of the newest kinds as well: those need a client of the newest version.
func encodeChunks(it chunkenc.Iterator, emit func(c chunkenc.Chunk, from, to int64) error) error {
	var (
		c        chunkenc.Chunk
		app      chunkenc.Appender
		from, to int64
		n        int
		last     chunkenc.ValueType
	)
	for v := it.Next(); v != chunkenc.ValNone; v = it.Next() {
		t := it.AtT()
		if v != chunkenc.ValFloat {
			v = chunkenc.ValFloatHistogram
		}
		if c == nil || v != last || n == chunkSamples {
			if c != nil {
				if err := emit(c, from, to); err != nil {
					return err
				}
			}
			if v == chunkenc.ValFloat {
				c = chunkenc.NewXORChunk()
			} else {
				c = chunkenc.NewFloatHistogramChunk()
			}
			var err error
			if app, err = c.Appender(); err != nil {
				return err
			}
			n, from, last = 0, t, v
		}
		if v == chunkenc.ValFloat {
			_, f := it.At()
			app.Append(0, t, f)
		} else {
			_, h := it.AtFloatHistogram(nil)
			next, recoded, a, err := app.AppendFloatHistogram(nil, 0, t, h, false)
			if err != nil {
				return err
			}
			app = a
			if next != nil {
				if !recoded { // its buckets do not go on from those before
					if err := emit(c, from, to); err != nil {
						return err
					}
					n, from = 0, t
				}
				c = next
			}
		}
		to = t
		n++
	}
	if err := it.Err(); err != nil {
		return err
	}
	if c == nil {
		return nil
	}
	return emit(c, from, to)
}

// within leaves out what lies outside of a query: the engine passes over it, a remote client would show it.
func within(it chunkenc.Iterator, start, end int64) chunkenc.Iterator {
	return &window{it, start, end, false}
}

type window struct {
	chunkenc.Iterator
	start, end int64
	begun      bool
}

func (w *window) Next() chunkenc.ValueType {
	v := chunkenc.ValNone
	if w.begun {
		v = w.Iterator.Next()
	} else {
		w.begun = true
		v = w.Iterator.Seek(w.start)
	}
	if v != chunkenc.ValNone && w.AtT() > w.end {
		return chunkenc.ValNone
	}
	return v
}
