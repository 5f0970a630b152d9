package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// rssFile is what of this process's files is in memory, kB.
func rssFile(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "RssFile:")
	if !ok {
		t.Skip("the kernel does not say RssFile")
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The program's own pages go out of memory, and come back when they are used.
func TestImage(t *testing.T) {
	m, err := ownImage()
	if err != nil {
		t.Fatal(err)
	}
	size := uintptr(0)
	for _, r := range m {
		for at := r[0]; at < r[1]; at += 4096 {
			size += 4
		}
	}
	if len(m) < 1 || size < 1000 {
		t.Fatalf("want code and constants of some MB, got %d kB in %v", size, m)
	}
	before := rssFile(t)
	m.giveBack()
	if after := rssFile(t); after >= before {
		t.Errorf("want less in memory than %d kB, got %d", before, after)
	}
	if again, err := ownImage(); err != nil || len(again) != len(m) {
		t.Errorf("want the same places again, got %v, %v", again, err)
	}
}

// What was allocated since the last collection, and what one has found, may be given back; then it is not there any more.
func TestSpare(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collection but those below
	image(nil).giveBack()
	before := spare()
	const size = 32 << 20
	held := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		held[i] = 1
	}
	if got := spare(); got < before+size*3/4 {
		t.Errorf("want at least %d bytes, got %d", before+size*3/4, got)
	}
	runtime.KeepAlive(held)
	runtime.GC()
	if got := spare(); got < size/2 {
		t.Errorf("collected, and not given back: want some of %d bytes, got %d", size, got)
	}
	image(nil).giveBack()
	if got := spare(); got > size/2 {
		t.Errorf("given back: want less than %d bytes, got %d", size/2, got)
	}
}
