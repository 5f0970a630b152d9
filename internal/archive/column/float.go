package column

import "math"

// tens are the powers of ten that an f64 holds exactly.
var tens = [maxExponent + 1]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

const (
	maxWhole = 1 << 53 // beyond it, not every integer is an f64
	// Up to here v x 10^e is less than half off the integer that it is meant to be: v and the product are each rounded by
	// 2^-53 of themselves.
	maxProduct = 1 << 51
)

// wholes answers an exponent e and the integers i for which f64(i) / 10^e are the values bit for bit; false, where there are none.
// dst is overwritten.
func wholes(dst, vals []uint64) (_ []uint64, e int, ok bool) {
	dst = dst[:0]
	scale := 1.0
	for _, v := range vals {
		f := math.Float64frombits(v)
		i := math.RoundToEven(f * scale)
		if !(math.Abs(i) <= maxWhole) || math.Float64bits(float64(int64(i))/scale) != v {
			needed, ok := exponent(f)
			if !ok || needed <= e {
				return dst, 0, false
			}
			// The same quotients of greater numbers: an exact quotient is rounded once, whatever its parts.
			up := uint64(tens[needed-e])
			for k, d := range dst {
				if a := int64(d); a > maxWhole/int64(up) || a < -maxWhole/int64(up) {
					return dst, 0, false
				}
				dst[k] = d * up
			}
			e, scale = needed, tens[needed]
			i = math.RoundToEven(f * scale)
			if !(math.Abs(i) <= maxWhole) || math.Float64bits(float64(int64(i))/scale) != v {
				return dst, 0, false
			}
		}
		dst = append(dst, uint64(int64(i)))
	}
	return dst, e, true
}

// exponent is the least e for which an f64 is i / 10^e with an integer i. What works with e works with e + 1: so the greatest one that
// leaves room is tried, and zeros are taken off the integer that was found.
func exponent(f float64) (e int, ok bool) {
	a := math.Abs(f)
	if !(a <= maxWhole) || a < 1e-22 {
		return 0, a == 0 && !math.Signbit(f)
	}
	if a == math.Trunc(a) {
		return 0, true
	}
	_, exp := math.Frexp(a) // a < 2^exp
	e = min(max((51-exp)*30103/100000, 0), maxExponent)
	i := math.RoundToEven(f * tens[e])
	if i == 0 || math.Abs(i) > maxProduct || i/tens[e] != f {
		return 0, false
	}
	for n := int64(i); n%10 == 0; n /= 10 {
		e--
	}
	return e, true
}
