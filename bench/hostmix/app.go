package hostmix

import (
	"math"
	"math/rand/v2"
	"strconv"
)

// App draws an application's series: of each ten, five Poisson counters, two f64 sums of what such counters count, and three gauges
// (a queue's length, a temperature of one decimal, a ratio). The same seed draws the same. step is in seconds.
func App(seed uint64, series, rows int, step float64) []*Series {
	r := rand.New(rand.NewPCG(seed, 1))
	all := make([]*Series, series)
	for i := range all {
		s := &Series{Name: "app/" + strconv.Itoa(i), Float: i%10 >= 5 && i%10 != 7, Values: make([]uint64, rows)}
		all[i] = s
		rate := math.Exp(r.NormFloat64() * 2) // a second: 0.02 to 50, mostly
		mean := math.Exp(r.NormFloat64() - 5) // of what a sum adds: around 7 ms
		uptime := 3600.0
		count, sum := Poisson(r, rate*uptime), 0.0
		sum = float64(count) * mean
		queue, temperature := 0.0, 40+r.NormFloat64()*10
		for row := range s.Values {
			events := Poisson(r, rate*step)
			count += events
			for range min(events, 1000) {
				sum += r.ExpFloat64() * mean
			}
			queue = max(0, queue+math.Round(r.NormFloat64()*math.Sqrt(rate)))
			temperature += r.NormFloat64() / 5
			switch i % 10 {
			case 5, 6:
				s.Values[row] = math.Float64bits(sum)
			case 7:
				s.Values[row] = uint64(queue)
			case 8:
				s.Values[row] = math.Float64bits(math.Round(temperature*10) / 10)
			case 9:
				s.Values[row] = math.Float64bits(r.Float64())
			default:
				s.Values[row] = count
			}
		}
	}
	return all
}

// Histogram draws the buckets of an exponential histogram of scale 3 (bucket b up to 2^((b-80)/8) s, say) after an hour of observations:
// rows x buckets cumulative counts, row by row. The observations are lognormal, with a median in the middle and a
// standard deviation of sigma in their logarithm; rate of them a second.
func Histogram(seed uint64, rows, buckets int, step, rate, sigma float64) []uint64 {
	r := rand.New(rand.NewPCG(seed, 2))
	width := sigma / (math.Ln2 / 8)
	middle := float64(buckets) / 2
	counts := make([]uint64, rows*buckets)
	below := func(b int) float64 { return math.Erfc(-(float64(b)-middle)/(width*math.Sqrt2)) / 2 }
	for b := range buckets {
		share := below(b+1) - below(b)
		count := Poisson(r, rate*3600*share)
		for row := range rows {
			count += Poisson(r, rate*step*share)
			counts[row*buckets+b] = count
		}
	}
	return counts
}

// Poisson draws how many events there were, of which mean are expected.
func Poisson(r *rand.Rand, mean float64) uint64 {
	if mean > 50 { // near enough to a normal distribution
		return uint64(max(0, math.Round(mean+r.NormFloat64()*math.Sqrt(mean))))
	}
	n, limit := uint64(0), math.Exp(-mean)
	for p := r.Float64(); p > limit; p *= r.Float64() {
		n++
	}
	return n
}
