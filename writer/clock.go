package writer

import (
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is CLOCK_REALTIME and CLOCK_MONOTONIC, in ns. Go's own monotonic
// readings have no public zero point, and another process must be able to compare.
func systemClock() (int64, int64) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Now().UnixNano(), int64(time.Since(processStart))
	}
	return time.Now().UnixNano(), ts.Nano()
}

var processStart = time.Now()

// birthClock reads unix time between two monotonic readings, again when they are
// more than 10 us apart, and answers half of that distance as the error. FORMAT.md 4.1.
func birthClock(clock func() (int64, int64)) (unixNow, mono int64, half uint64) {
	const tries, close = 5, 10_000
	half = 1 << 63
	for range tries {
		_, before := clock()
		u, m := clock()
		_, after := clock()
		if h := uint64(after-before) / 2; h < half {
			unixNow, mono, half = u, m, h
		}
		if after-before <= close {
			break
		}
	}
	return unixNow, mono, half
}
