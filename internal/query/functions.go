package query

// class says which tier a function of range vectors reads, and what coarser rows are to it. docs/promql.md has the table.
type class uint8

const (
	ofGrowth  class = iota + 1 // the coarsest tier with step <= range/5: every row of it is exact
	ofExtreme                  // of stats and gauges the same; else the finest
	ofRows                     // the finest, and coarser rows count as many: see weigh.go
	ofAny                      // the finest, and of coarser rows any is as good
	eachValue                  // the finest, and of coarser rows it sees too few: an info says so
)

// rangeFunctions are all functions that take a range vector.
var rangeFunctions = map[string]class{
	"rate": ofGrowth, "increase": ofGrowth,
	"min_over_time": ofExtreme, "max_over_time": ofExtreme,
	"sum_over_time": ofRows, "count_over_time": ofRows, "avg_over_time": ofRows,
	"absent_over_time": ofAny, "present_over_time": ofAny, "last_over_time": ofAny, "ts_of_last_over_time": ofAny,
	"first_over_time": ofAny, "ts_of_first_over_time": ofAny,
	"changes": eachValue, "delta": eachValue, "deriv": eachValue, "double_exponential_smoothing": eachValue, "idelta": eachValue, "integral": eachValue,
	"irate": eachValue, "mad_over_time": eachValue, "predict_linear": eachValue, "quantile_over_time": eachValue, "resets": eachValue,
	"stddev_over_time": eachValue, "stdvar_over_time": eachValue, "ts_of_max_over_time": eachValue, "ts_of_min_over_time": eachValue,
}
