package archive

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// A tier's file is named as Prometheus writes its step.
func TestStepName(t *testing.T) {
	for ms := int64(100); ms <= 3_600_000; ms += 50 {
		d := time.Duration(ms) * time.Millisecond
		if got, want := stepName(d), model.Duration(d).String(); got != want {
			t.Fatalf("%v: want %s, got %s", d, want, got)
		}
	}
}
