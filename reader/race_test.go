//go:build race

package reader_test

// raceEnabled: the detector's own allocations are none of ours.
const raceEnabled = true
