package export

import (
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

func TestTierOf(t *testing.T) {
	tiers := func(steps ...time.Duration) (out []reader.Tier) {
		for _, s := range steps {
			out = append(out, reader.Tier{Step: s, Rows: 60})
		}
		return out
	}
	for _, c := range []struct {
		tiers    []reader.Tier
		interval time.Duration
		tier     int
		thin     int64
	}{
		{tiers(time.Second, 10*time.Second), 10 * time.Second, 1, 0},
		{tiers(time.Second, 10*time.Second), time.Second, 0, 0},
		{tiers(time.Second, 10*time.Second), 5 * time.Second, 0, int64(5 * time.Second)},
		{tiers(time.Second, 10*time.Second), 2 * time.Second, 0, int64(2 * time.Second)},
		{tiers(time.Second, 10*time.Second, 5*time.Minute), time.Minute, 1, int64(time.Minute)},
		{tiers(time.Second), 10 * time.Second, 0, int64(10 * time.Second)},
		{tiers(time.Minute), 10 * time.Second, 0, 0},
		{nil, 10 * time.Second, -1, 0},
	} {
		if tier, thin := tierOf(c.tiers, c.interval); tier != c.tier || thin != c.thin {
			t.Errorf("%v at %v: want tier %d thinned to %d, got %d, %v", c.tiers, c.interval, c.tier, c.thin, tier, thin)
		}
	}
}

func TestBackoff(t *testing.T) {
	e, err := New(Options{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for attempt := range 40 {
		d := e.backoff(attempt, 0)
		if most := min(time.Second<<min(attempt, 16), 30*time.Second); d < most/2 || d > most {
			t.Errorf("attempt %d: want %v to %v, got %v", attempt, most/2, most, d)
		}
	}
	if d := e.backoff(0, 7*time.Second); d != 7*time.Second {
		t.Errorf("want what the receiver says, got %v", d)
	}
}
