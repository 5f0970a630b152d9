package writer

import (
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// The epoch moves where unix minus mono time jumps, and nowhere else; whatever the clocks do, rows are dense and values
// exact. FORMAT.md 10.9.
func TestEpochByClocks(t *testing.T) {
	for _, c := range []struct {
		name   string
		move   func(*fakeClock)
		epochs uint32
	}{
		{"a second goes by", func(c *fakeClock) {}, 0},
		{"stopped for a day, by SIGSTOP: both go on", func(c *fakeClock) { c.advance(24 * time.Hour) }, 0},
		{"slewed as fast as can be", func(c *fakeClock) { c.unix.Add(int64(100 * time.Millisecond)) }, 0},
		{"stepped by what NTP may step", func(c *fakeClock) { c.unix.Add(int64(-500 * time.Millisecond)) }, 0},
		{"restored a moment later: mono time stood still", func(c *fakeClock) { c.unix.Add(int64(501 * time.Millisecond)) }, 5},
		{"restored a month later", func(c *fakeClock) { c.unix.Add(int64(30 * 24 * time.Hour)) }, 5},
		{"stepped by an hour", func(c *fakeClock) { c.unix.Add(int64(time.Hour)) }, 5},
		{"stepped back by an hour", func(c *fakeClock) { c.unix.Add(-int64(time.Hour)) }, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, clock := testOptions(t)
			w := mustOpen(t, o)
			n, f := w.Counter("n"), w.FloatCounter("f")
			for range 5 {
				n.Add(3)
				f.Add(0.5)
				c.move(clock)
				clock.advance(time.Second)
				w.Tick()
			}
			m := load(t, segmentFiles(t, o.Dir)[0])
			if got := m.control().Epoch; got != c.epochs {
				t.Errorf("want epoch %d after five times, got %d", c.epochs, got)
			}
			before := m.h.BirthUnix
			for no := uint64(1); no <= 5; no++ {
				row := m.row(0, 0, no)
				want := uint16(0)
				if c.epochs > 0 {
					want = uint16(no)
				}
				if row.Epoch != want || row.TBegin != before {
					t.Errorf("row %d: want epoch %d and the window from %d, got %d, %d", no, want, before, row.Epoch, row.TBegin)
				}
				before = row.T
			}
			equal(t, "n", m.value("n"), 15)
			equal(t, "f", m.value("f"), math.Float64bits(2.5))
		})
	}
}

// A process that was stopped between the two readings of one look at the clocks has not been restored.
func TestEpochNeedsTwoLooks(t *testing.T) {
	o, clock := testOptions(t)
	stopped := time.Duration(0)
	o.Clock = func() (int64, int64) {
		unixNow, mono := clock.now()
		unixNow += int64(stopped)
		clock.advance(stopped)
		stopped = 0
		return unixNow, mono
	}
	w := mustOpen(t, o)
	w.Counter("n").Inc()
	stopped = time.Hour
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	if got := m.control().Epoch; got != 0 {
		t.Errorf("want epoch 0, got %d", got)
	}
	if row, now := m.row(0, 0, 1), clock.unix.Load(); row.T != now {
		t.Errorf("want the row at the time of the second look, %d, got %d", now, row.T)
	}
}

// What was restored and closes at once says so in its final rows and its control block.
func TestEpochAtClose(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	w.Counter("n").Inc()
	clock.unix.Add(int64(time.Minute))
	w.Close()
	m := load(t, segmentFiles(t, o.Dir)[0])
	if c, row := m.control(), m.row(0, 0, 1); c.Epoch != 1 || row.Epoch != 1 || row.Flags != layout.RowFinal {
		t.Errorf("want epoch 1 in control block and final row, got %d and %d, flags %d", c.Epoch, row.Epoch, row.Flags)
	}
}
