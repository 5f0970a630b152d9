package main

import (
	"os"
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
