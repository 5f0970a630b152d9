package pin

import (
	"runtime"
	"sync"
	"testing"
)

// Plain adds into a word per P, through many goroutines and while GOMAXPROCS
// changes: none is lost. Without Pin about half of them are.
func TestPlainAddsPerP(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector can't know that a P has one writer")
	}
	const goroutines, adds = 64, 20_000
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	var lanes [64][8]uint64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range adds {
				p := Pin()
				lanes[p][0]++
				Unpin()
				if i%1000 == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	for n := range 20 {
		runtime.GOMAXPROCS(1 + n%4)
	}
	wg.Wait()
	sum := uint64(0)
	for i := range lanes {
		sum += lanes[i][0]
	}
	if sum != goroutines*adds {
		t.Fatalf("want %d adds, got %d", goroutines*adds, sum)
	}
}

func TestPinNumbersThePs(t *testing.T) {
	for range 1000 {
		p := Pin()
		Unpin()
		if p < 0 || p >= runtime.GOMAXPROCS(0) {
			t.Fatalf("want a P of 0 to %d, got %d", runtime.GOMAXPROCS(0)-1, p)
		}
	}
}
