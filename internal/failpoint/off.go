//go:build !failpoint

// Package failpoint names places at which tests kill a process, make it fail, or end it. In ordinary builds a
// place costs nothing. Built with the tag failpoint it looks into $SHMTS_FAILPOINTS:
//
//	archive.append.written:3            the third pass kills the process with SIGKILL
//	archive.append.written:3:kill       the same
//	archive.sync:1:error                the first and every later pass of Fails answers an error
//	archiver.drain.unlinked:2:exit      the second pass ends the process with status 3
//
// Several are separated by commas.
package failpoint

// On tells whether places do anything.
const On = false

// Here is a place.
func Here(name string) {}

// Fails is a place that can answer an error.
func Fails(name string) error { return nil }
