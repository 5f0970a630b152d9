package pages

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// resident is this process's memory of its own, kB.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "RssAnon:")
	if !ok {
		t.Skip("the kernel does not say RssAnon")
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestArena(t *testing.T) {
	var a Arena
	var all [][]byte
	for i, n := range []int{1, 63, 64, 65, 1000, 8 << 20} {
		b := a.Bytes(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("want %d bytes and no more, got %d of %d", n, len(b), cap(b))
		}
		for k := range b {
			if b[k] != 0 {
				t.Fatalf("%d bytes: want them new, got %d at %d", n, b[k], k)
			}
			b[k] = byte(i + 1)
		}
		all = append(all, b)
	}
	for i, b := range all { // none is another's
		for k := range b {
			if b[k] != byte(i+1) {
				t.Fatalf("piece %d: want it as it was left, got %d at %d", i, b[k], k)
			}
		}
	}
	w := a.Words(100)
	w[99] = 7
	if len(w) != 100 || len(a.Words(0)) != 0 || len(a.Bytes(0)) != 0 {
		t.Errorf("want 100 words and none, got %d", len(w))
	}
	// What does not fit is had all the same.
	for range 5 {
		if b := a.Bytes(size / 3); len(b) != size/3 {
			t.Fatalf("want %d bytes, got %d", size/3, len(b))
		}
	}
	if b := a.Bytes(size + 1); len(b) != size+1 {
		t.Errorf("want %d bytes, got %d", size+1, len(b))
	}
	first := &all[0][0]
	if a.Reset(); &a.Bytes(10)[0] != first {
		t.Error("reset: want the same memory again")
	}
	before := resident(t)
	if a.Release(); before-resident(t) < 6<<10 {
		t.Errorf("released: want 8 MB less than %d kB, got %d", before, resident(t))
	}
	if b := a.Bytes(10); &b[0] != first || b[0] != 0 {
		t.Errorf("released: want the same addresses, and zeros, got %d", b[0])
	}
	runtime.KeepAlive(all)
}

// An Arena that is let go of is unmapped.
func TestUnmapped(t *testing.T) {
	maps := func() int {
		text, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
	before := maps()
	for range 2000 {
		var a Arena
		a.Words(1)[0] = 1
		runtime.KeepAlive(&a)
	}
	for range 100 {
		if runtime.GC(); maps() < before+50 {
			return
		}
	}
	t.Errorf("want about %d mappings, got %d", before, maps())
}
