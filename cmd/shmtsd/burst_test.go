package main

import "testing"

func TestBurst(t *testing.T) {
	var b burst
	n := 0
	poll := func(found uint64, times int) {
		for range times {
			if b.over(found) {
				n++
			}
		}
	}
	poll(10, 100)
	if n != 0 {
		t.Errorf("a few segments: want nothing, got %d", n)
	}
	poll(500, 3)
	poll(1000, 5)
	if n != 0 {
		t.Error("it is not calm yet")
	}
	poll(1000, 100)
	if n != 1 {
		t.Errorf("a burst: want it over once, got %d", n)
	}
	poll(1010, 100)
	if n != 1 {
		t.Errorf("a few more: want nothing, got %d", n-1)
	}
}
