package archive

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// Archive is one on disk: see Open and OpenReader.
type Archive struct {
	dir   string
	files Files
	log   *slog.Logger
	now   func() time.Time
	id    [16]byte
	tiers []*tier // finest first

	lock    io.Closer // nil: another process writes it
	reuse   func(tier int, generation uint64)
	errMu   sync.Mutex
	err     error // why it is stopped
	closing sync.Once
}

// writing is what of a tier only its writer has.
type writing struct{}
