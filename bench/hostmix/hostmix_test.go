package hostmix_test

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/shmts/shmts/bench/hostmix"
)

func TestRecording(t *testing.T) {
	h := hostmix.NewHost()
	for range 3 {
		h.Sample()
	}
	series := h.Series()
	series = append(series, &hostmix.Series{Name: "gap", Float: true, Values: []uint64{math.Float64bits(-1.5), 0, 1 << 63}, Present: []bool{true, false, true}})
	var b bytes.Buffer
	if err := hostmix.Write(&b, series); err != nil {
		t.Fatal(err)
	}
	got, err := hostmix.Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, series) {
		t.Error("a recording: read back, it is another one")
	}
	found := map[string]int{}
	for _, s := range series {
		if len(s.Values) != 3 || s.Present != nil && len(s.Present) != 3 {
			t.Errorf("%s: want 3 values, got %d (%d)", s.Name, len(s.Values), len(s.Present))
		}
		found[s.Name[:max(strings.Index(s.Name, "/"), 0)]]++
	}
	for _, name := range []string{"stat", "vmstat", "meminfo", "net", "loadavg", "process"} {
		if found[name] == 0 {
			t.Errorf("want series of /proc's %s, got none", name)
		}
	}
}

func TestRecorded(t *testing.T) {
	series := hostmix.Recorded()
	changing := 0
	for _, s := range series {
		if len(s.Values) != 300 {
			t.Fatalf("%s: want 300 rows, got %d", s.Name, len(s.Values))
		}
		for _, v := range s.Values {
			if v != s.Values[0] {
				changing++
				break
			}
		}
	}
	t.Logf("%d series, %d of them changing", len(series), changing)
	if changing < 100 || changing == len(series) {
		t.Errorf("want some series that change and some that do not, got %d of %d", changing, len(series))
	}
}

// What is drawn has the means that it says.
func TestDrawn(t *testing.T) {
	a, b := hostmix.App(1, 20, 30, 1), hostmix.App(1, 20, 30, 1)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed drew something else")
	}
	const rows, buckets, rate = 15, 160, 50.0
	c := hostmix.Histogram(3, rows, buckets, 10, rate, 0.5)
	first, last := uint64(0), uint64(0)
	for i := range buckets {
		first, last = first+c[i], last+c[(rows-1)*buckets+i]
	}
	if want, got := rate*10*(rows-1), float64(last-first); math.Abs(got-want) > 5*math.Sqrt(want) {
		t.Errorf("want about %v observations, got %v", want, got)
	}
}
