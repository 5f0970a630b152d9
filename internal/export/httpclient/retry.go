package httpclient

import (
	"net/http"
	"strconv"
	"time"
)

// MaxRetryAfter bounds what a receiver can ask for.
const MaxRetryAfter = 5 * time.Minute

// RetryAfter reads the header of that name: seconds, or a date. 0 if it is neither, or has passed.
func RetryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(MaxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), MaxRetryAfter)
	}
	return 0
}
