package query

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/shmts/shmts/reader"
)

// A histogram counts against the limit of samples as much as the engine counts it, whatever it has room for.
func TestHistogramSamples(t *testing.T) {
	series := &reader.Series{Definition: &reader.Definition{Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 3, Min: -80, Count: 160}}}
	for _, filled := range [][]int{nil, {0}, {7}, {7, 8, 9}, {1, 3, 5, 160}, {0, 1, 100, 161}} {
		b := NewBatch([]Column{{series, Buckets}, {Field: Target}}, 8, math.MaxInt)
		row := make([]uint64, 1+162)
		for _, k := range filled {
			row[1+k] = 3
		}
		const rows = 5
		b.AddRows([]int64{1, 2, 3, 4, 5}, 1, 0)
		var words []uint64
		for range rows {
			words = append(words, row...)
		}
		b.AddCells(0, rows, words, nil)
		b.AddCells(1, rows, nil, nil)
		var h histogram.FloatHistogram
		newHistView(&b.Hists[0], b.Epochs).fill(&h, 2)
		if got, want := b.samples(), rows+rows*((h.Size()+8)/16); got != want { // promql.HPoint's size
			t.Errorf("buckets %v: want %d rows to count as %d samples, got %d", filled, rows, want, got)
		}
	}
}
