package main

import (
	past "github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
)

// querySources is what PromQL is about: the register's segments and, if there is one, the archive.
func querySources(r *source.Register, h *history, maxSources int) query.Sources {
	if h == nil {
		return query.Snapshot((&view[query.Segment]{register: r}).Segments)
	}
	return past.New(past.Options{
		Living: (&view[past.Living]{register: r}).Segments, Left: func() int64 { return r.Left() / 1e6 },
		Archive: h.archive, MaxSources: maxSources,
	})
}
