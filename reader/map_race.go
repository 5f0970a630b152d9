//go:build race

package reader

// canMap: the race detector does atomic loads in C, where a fault can't be caught (and it sees
// nothing of what other processes store). So under it every segment is read with pread.
const canMap = false
