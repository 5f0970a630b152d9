package main

import (
	"github.com/shmts/shmts/internal/exemplars"
	past "github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
)

// querySources is what PromQL is about: the register's segments and, if there is one, the archive.
func querySources(r *source.Register, h *history, x *exemplars.Store, maxSources int) query.Sources {
	o := past.Options{Living: (&view[past.Living]{register: r}).Segments, Left: func() int64 { return r.Left() / 1e6 }, MaxSources: maxSources}
	if h != nil {
		o.Archive = h.archive
	}
	if x != nil {
		o.Recent = x
	}
	return past.New(o)
}
