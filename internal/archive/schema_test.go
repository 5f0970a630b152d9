package archive

import (
	"reflect"
	"testing"

	"github.com/shmts/shmts/reader"
)

func TestSchemaText(t *testing.T) {
	series := []*reader.Series{
		{Definition: &reader.Definition{Name: "requests", Unit: "{request}", Help: "Requests.", Kind: reader.Counter, Number: reader.U64, Table: 1}, Start: 5},
		{Definition: &reader.Definition{Name: "queue", Kind: reader.Gauge, Number: reader.I64, Labels: []reader.Pair{{Name: "q", Value: "in"}}}, Retired: true},
		{Definition: &reader.Definition{Name: "size", Kind: reader.Stat, Number: reader.F64, NonNegative: true}},
		{Definition: &reader.Definition{Name: "latency", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 3, Min: -40, Count: 80}}},
	}
	s, err := NewSchema(1, "scalars", series)
	if err != nil {
		t.Fatal(err)
	}
	if s.Series[0].Start != 0 || s.Series[1].Retired || s.Series[1].Table != 1 {
		t.Errorf("want a schema without starts and lives, of table 1, got %+v and %+v", s.Series[0], s.Series[1])
	}
	text, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	back, err := parseSchema(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, back) {
		t.Errorf("want %+v\ngot  %+v", s, back)
	}
	for n := range text {
		if got, err := parseSchema(text[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d: want an error, got %+v", n, len(text), got)
		}
	}
	if _, err := parseSchema(append(text, 0)); err == nil {
		t.Error("a byte too many: want an error")
	}
	if _, err := NewSchema(0, "t", []*reader.Series{{Definition: &reader.Definition{Kind: reader.Counter, Number: reader.U64}}}); err == nil {
		t.Error("a series without a name: want an error")
	}
}
