package reader

import "github.com/shmts/shmts/layout"

// The errors that say what is wrong with a file, for those who must not know its layout.
type (
	CorruptError = layout.CorruptError // bytes that break FORMAT.md
	VersionError = layout.VersionError // of another major version, or needs a feature that this reader lacks
)
