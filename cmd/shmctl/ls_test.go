package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// Segments over budget are said once for a user, each of them with --json; what a user takes is there.
func TestLsOverBudget(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "good", "a", 1)
	limit := reader.DefaultPerUser()
	table := []layout.TableSchema{{Name: "t", Series: 1, Lanes: 1, RowCells: 1, LaneCells: 1, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 2}}}}
	var bad []string
	for i := range 2 { // each claims more series than a user may have
		f := segtest.New(t, segtest.Options{Job: "bad", ID: byte(0xb0 + i), Tables: table, Series: limit.Series + 1, HeapBytes: 64})
		f.Control(layout.CtlUsed, uint64(limit.Series+1))
		bad = append(bad, f.Leave(t, store))
	}
	list := decode[lsJSON](shmctl(t, store, "ls", "--json").ok())
	if len(list.Segments) != 1 || list.Segments[0].Job != "good" || len(list.Refused) != 2 {
		t.Fatalf("want one segment and two refused, got %+v", list)
	}
	for i, r := range list.Refused {
		if r.Path != bad[i] || r.Budget != "series" || !strings.Contains(r.Error, strconv.Itoa(limit.Series)) {
			t.Errorf("want %s refused for its series, got %+v", bad[i], r)
		}
	}
	if len(list.Users) != 1 || list.Users[0].UID != os.Getuid() || list.Users[0].Waiting != 2 || list.Users[0].Used.Segments != 1 ||
		list.Users[0].Used.Series != 6 || list.Users[0].Used.Bytes != list.Segments[0].SizeBytes || reader.Budget(list.Users[0].Limit) != limit {
		t.Errorf("users: got %+v", list.Users)
	}
	o := shmctl(t, store, "ls")
	o.fails(exitDone, "shmts: refused "+bad[0]+", and 1 more of this user: ", "uid "+strconv.Itoa(os.Getuid()), "series").contains("good")
	if n := strings.Count(o.errors, "\n"); n != 1 {
		t.Errorf("want one line on standard error, got %d: %s", n, o.errors)
	}
	o = shmctl(t, store, "ls", "--users")
	o.fails(exitDone, "and 1 more").contains("WAITING", "1 of "+strconv.Itoa(limit.Segments), "6 of "+strconv.Itoa(limit.Series), " of 128 MiB")
	if strings.Contains(o.out, "good") {
		t.Errorf("--users: want no segments, got %s", o.out)
	}
	for _, args := range [][]string{{"--quiet"}, {"--state", "dead"}, {"good"}} {
		shmctl(t, store, append([]string{"ls", "--users"}, args...)...).fails(exitUsage, "users: want")
	}
}
