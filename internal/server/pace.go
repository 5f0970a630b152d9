package server

import (
	"net/http"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// smallAnswer is always made: a client that takes nothing must not keep others from a look at what is now.
const smallAnswer = 10_000

// samples of a result, as the engine counts them.
func samples(v parser.Value) (n int64) {
	switch v := v.(type) {
	case promql.Matrix:
		n = int64(v.TotalSamples())
	case promql.Vector:
		n = int64(v.TotalSamples())
	}
	return n
}

// pace is a writer whose client has to take what it asked for at some speed.
type pace struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begin time.Time
	wait  time.Duration
	sent  int64
}

// slowest is the bytes a second, over the whole of an answer, below which a client is given up.
const slowest = 64 << 10

func (s *server) pace(w http.ResponseWriter) *pace {
	return &pace{w: w, rc: http.NewResponseController(w), begin: time.Now(), wait: s.WriteWait}
}

func (p *pace) deadline() {
	at, all := time.Now().Add(p.wait), p.begin.Add(p.wait+time.Duration(p.sent)*time.Second/slowest)
	if all.Before(at) {
		at = all
	}
	p.rc.SetWriteDeadline(at) // where it can't be set, the server's own holds
}

// Write writes in parts, each with its deadline.
func (p *pace) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), partSize)]
		p.deadline()
		var k int
		k, err = p.w.Write(part)
		p.sent += int64(k)
		n, b = n+k, b[k:]
	}
	return n, err
}

// end sends what is left, and takes the deadline back: the connection goes on.
func (p *pace) end() error {
	p.deadline()
	if err := p.rc.Flush(); err != nil {
		return err
	}
	p.rc.SetWriteDeadline(time.Time{})
	return nil
}
