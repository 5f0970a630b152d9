package otlp

import (
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// The wall clock is stepped forward by an hour: values go on, in the same stream.
func TestClockStepsForward(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	c := w.Writer(writer.Options{Job: "j", Instance: "i"}).Counter("c")
	for i := range 4 {
		if i == 2 {
			w.Stepped = time.Hour
		}
		c.Add(1)
		w.Run(10 * time.Second)
		w.flush()
	}
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..10 int 1
		j/c{} "" counter 0..20 int 2
		j/c{} "" counter 0..3630 int 3
		j/c{} "" counter 0..3640 int 4
	`)
}

// It is stepped back by an hour before rows were sent: those are of the future now. The next row says it all, extremes too,
// at a time that has come; a tier that is thinned does not wait until it has caught up with itself.
func TestClockStepsBack(t *testing.T) {
	for i, tiers := range [][]writer.Tier{nil, {{Step: time.Second, Rows: 60}}} {
		r := &receiver{}
		w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
		w.Stepped = time.Hour
		o := writer.Options{Job: "j", Instance: "i"}
		if tiers != nil {
			o.Tables = []writer.Table{{Name: "t", Scalars: 1, Stats: 1, Tiers: tiers}}
		}
		wr := w.Writer(o)
		c, s := wr.Counter("c"), wr.Stat("s")
		c.Add(1)
		s.Record(5)
		w.Run(10 * time.Second)
		w.flush()
		c.Add(1)
		s.Record(-7)
		s.Record(70)
		w.Run(10 * time.Second) // not sent before
		w.Stepped = 0
		c.Add(1)
		s.Record(6)
		w.Run(10 * time.Second)
		w.flush()
		c.Add(1)
		w.Run(10 * time.Second)
		w.flush()
		now := epoch + int64(w.Now)
		for _, m := range r.all[1:] {
			for _, p := range m.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetSum().DataPoints {
				if int64(p.TimeUnixNano) > now {
					t.Errorf("want no point beyond %s, got one at %s", since(uint64(now)), since(p.TimeUnixNano))
				}
			}
		}
		got := r.lines()
		at := []string{"30", "21"}[i]
		want := map[string]bool{`j/c{} "" counter 3600..` + at + ` int 3`: true, `j/c{} "" counter 3600..40 int 4`: true,
			`j/s_min{} "" gauge -..` + at + ` double -7`: true, `j/s_max{} "" gauge -..` + at + ` double 70`: true}
		for _, line := range got {
			delete(want, line)
		}
		if len(want) > 0 {
			t.Errorf("tiers %v: want %v too, got\n%v", tiers, want, got)
		}
		if n := w.e.Stats().RowsAhead; n == 0 || w.e.Stats().Lost[export.LostOverrun] != 0 {
			t.Errorf("want rows passed over and none lost, got %d and %d", n, w.e.Stats().Lost[export.LostOverrun])
		}
	}
}

// A writer's last row goes out though its time is still to come.
func TestClockStepsBackAtTheEnd(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	w.Stepped = time.Hour
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	wr.Counter("c").Add(1)
	w.Run(10 * time.Second)
	wr.Close()
	w.Stepped = 0
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 3600..11 int 1
		j/c{} "" counter 3600..11.001 stale
	`)
}

// Memory that was rewound begins a new stream where that can be seen, and not where it can't.
func TestEpochs(t *testing.T) {
	r := &receiver{}
	w := newWorld(t, options{settings{Endpoint: startHTTP(t, r)}, time.Second})
	s := segtest.New(t, segtest.Options{Job: "j", Instance: "i", BirthUnix: epoch, Tables: []layout.TableSchema{{Name: "t", Lanes: 1, RowCells: 2, LaneCells: 2,
		SharedCells: 0, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 8}}}}})
	s.Series(t, 0, "c", layout.Counter, layout.U64, layout.BucketRange{})
	s.Series(t, 0, "u", layout.UpDown, layout.I64, layout.BucketRange{})
	s.Birth(t, w.Dir)
	for i, row := range []struct {
		epoch uint16
		c, u  uint64
	}{{0, 5, 5}, {1, 7, 1}, {2, 4, 9}, {2, 6, 9}} {
		n := int64(i + 1)
		s.PublishRow(0, 0, &layout.RowHeader{RowNo: uint64(n), BaseRow: uint64(n), TBegin: epoch + (n-1)*1e9, T: epoch + n*1e9,
			TMono: segtest.BirthMono + n*1e9, Epoch: row.epoch}, []uint64{row.c, row.u})
	}
	w.Now = 10 * time.Second
	w.flush()
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..1 int 5
		j/c{} "" counter 0..2 int 7
		j/c{} "" counter 2..3 int 4
		j/c{} "" counter 2..4 int 6
		j/u{} "" updown 0..1 int 5
		j/u{} "" updown 0..2 int 1
		j/u{} "" updown 2..3 int 9
		j/u{} "" updown 2..4 int 9
	`)
}
