package main

import (
	"fmt"
	"io"

	"go.yaml.in/yaml/v2"

	"github.com/shmts/shmts/writer"
)

// schema is what plan --schema reads.
type schema struct {
	Job         string            `yaml:"job"`
	Instance    string            `yaml:"instance"`
	Labels      map[string]string `yaml:"labels"`
	Attributes  map[string]string `yaml:"attributes"`
	MaxBytes    int               `yaml:"max_bytes"`
	Descriptors int               `yaml:"descriptors"`
	HeapBytes   int               `yaml:"heap_bytes"`
	OwnedLanes  *int              `yaml:"owned_lanes"`
	Exemplars   *int              `yaml:"exemplars"`
	Tables      []schemaTable     `yaml:"tables"`
}

type schemaTable struct {
	Name       string   `yaml:"name"`
	Tiers      []string `yaml:"tiers"` // step:rows
	Scalars    int      `yaml:"scalars"`
	Counters   int      `yaml:"counters"`
	Updowns    int      `yaml:"updowns"`
	Gauges     int      `yaml:"gauges"`
	Stats      int      `yaml:"stats"`
	Histograms int      `yaml:"histograms"`
	Buckets    int      `yaml:"buckets"`
	Lanes      int      `yaml:"lanes"`
}

// parseSchema reads YAML, of which JSON is a part. A key that it does not know is an error: a
// misspelt one would silently cost something else.
func parseSchema(b []byte) (writer.Options, error) {
	var f schema
	if err := yaml.UnmarshalStrict(b, &f); err != nil {
		return writer.Options{}, err
	}
	o := writer.Options{Job: f.Job, Instance: f.Instance, Labels: f.Labels, Attributes: f.Attributes, MaxBytes: f.MaxBytes,
		Descriptors: f.Descriptors, HeapBytes: f.HeapBytes}
	if f.OwnedLanes != nil {
		if o.OwnedLanes = *f.OwnedLanes; o.OwnedLanes == 0 {
			o.OwnedLanes = -1 // the writer's word for none
		}
	}
	if f.Exemplars != nil {
		if o.Exemplars = *f.Exemplars; o.Exemplars == 0 {
			o.Exemplars = -1
		}
	}
	for _, t := range f.Tables {
		tiers, err := parseTiers(t.Tiers)
		if err != nil {
			return o, fmt.Errorf("table %q: tiers: %w", t.Name, err)
		}
		o.Tables = append(o.Tables, writer.Table{Name: t.Name, Tiers: tiers, Scalars: t.Scalars, Counters: t.Counters + t.Updowns,
			Gauges: t.Gauges, Stats: t.Stats, Histograms: t.Histograms, Buckets: t.Buckets, Lanes: t.Lanes})
	}
	return o, nil
}

// readAll reads at most n bytes; more is an error.
func readAll(r io.Reader, n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, n+1))
	if err == nil && int64(len(b)) > n {
		err = fmt.Errorf("want at most %d bytes, got more", n)
	}
	return b, err
}
