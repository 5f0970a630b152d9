// Package pin keeps a goroutine on its P for a few instructions, so that a
// plain add into that P's lane has exactly one writer: between Pin and Unpin
// nobody else runs Go code on this P, not even after a preemption signal, and
// whoever runs there next is ordered after by the scheduler's own locks.
//
// It is what sync.Pool stands on. runtime.procPin is on the runtime's list of
// names that may be linked to (go.dev/issue/67401: "do not remove or change").
package pin

import _ "unsafe" // for go:linkname

// Pin stops preemption and answers the number of the P, 0 to GOMAXPROCS-1.
// Between Pin and Unpin: no blocking, no allocation, nothing that may panic.
//
//go:linkname Pin runtime.procPin
func Pin() int

// Unpin undoes one Pin.
//
//go:linkname Unpin runtime.procUnpin
func Unpin()
