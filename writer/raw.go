package writer

import (
	"github.com/shmts/shmts/layout"
)

// Birth gives birth to a segment of the caller's own header, for who writes on behalf of others: FORMAT.md 10.1 whole,
// in the store that dir means (as [Options.Dir]), with the stem made of name. fill puts everything
// else into the segment, before it has a name. The words answered are the segment's mapping, which holds its lock until it is
// unmapped; the file's mode is 0444. An error leaves nothing behind.
func Birth(dir, name string, h *layout.Header, fill func(words []uint64)) (words []uint64, path string, err error) {
	return giveBirth(&Options{Dir: dir, Job: name, Mode: 0o444}, h, func(words []uint64) {
		h.Encode(words)
		h.InitControl(words)
		fill(words)
	})
}
