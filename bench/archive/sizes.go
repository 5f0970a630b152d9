package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/internal/archive"
)

// sizes prints what the sets of bench/corpus take: size/SET/archive and size/SET/rrdtool, bytes a sample, of histograms a row.
func sizes(o options) error {
	sets, err := corpus.Sets(o.recordings)
	if err != nil {
		return err
	}
	rrdtool, err := exec.LookPath("rrdtool")
	if err != nil {
		fmt.Println("# rrdtool is not in this run: it is not installed (Debian: rrdtool).")
	}
	dir, err := scratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i := range sets {
		s := &sets[i]
		bytes, samples, err := ours(s, filepath.Join(dir, s.Name))
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		print("samples/"+s.Name, float64(samples))
		print("size/"+s.Name+"/archive", float64(bytes)/float64(samples))
		if rrdtool == "" {
			continue
		}
		bytes, samples, err = inRRD(rrdtool, s, filepath.Join(dir, s.Name+".rrd"))
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		print("size/"+s.Name+"/rrdtool", float64(bytes)/float64(samples))
	}
	return nil
}

// ours writes a set as the daemon would, cohort by cohort, and answers what of the file is then taken: blocks, labels, indexes, also
// of the extent that is still open.
func ours(s *corpus.Set, dir string) (bytes int64, samples int, err error) {
	const budget = 512 << 20 // the default's: extents of 16 MiB
	a, err := archive.Open(archive.Options{Dir: dir, Tiers: []archive.TierOptions{{Step: s.Step, Budget: budget}}})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, a.Close(), os.RemoveAll(dir)) }()
	var schema *archive.Schema
	first := s.Source(0)
	if schema, err = archive.NewSchema(0, "scalars", seriesOf(first)); err != nil {
		return 0, 0, err
	}
	rows := len(first.Times)
	for at := 0; at < s.Count; at += s.Cohort {
		var cohort []*corpus.Source
		var sources []*archive.Source
		for i := at; i < min(at+s.Cohort, s.Count); i++ {
			c := s.Source(i)
			samples += c.Samples()
			cohort = append(cohort, c)
			sources = append(sources, sourceOf(0, i, c.Birth, c.Labels))
		}
		for from := 0; from < rows; from += s.Block {
			b := &archive.Block{Schema: schema, Step: s.Step}
			to := min(from+s.Block, rows)
			for i, c := range cohort {
				b.Sources = append(b.Sources, rowsOf(sources[i], c, from, to, s.Block == rows))
			}
			if err := a.Append(0, b); err != nil {
				return 0, 0, err
			}
		}
		if at == 0 {
			if err := held(a, sources[0], cohort[0]); err != nil {
				return 0, 0, err
			}
		}
	}
	return a.Tiers()[0].Bytes, samples, nil
}

// inRRD makes the files that rrdtool needs for the same rows at the same step, one for each source: one RRA (LAST, so that no value is averaged) of
// as many rows. They are allocated at once, so one of them is fed, and looked at; of many sources eight are made, since all are alike.
func inRRD(rrdtool string, s *corpus.Set, file string) (bytes int64, samples int, err error) {
	const most = 8
	for i := range min(s.Count, most) {
		c := s.Source(i)
		step := int64(s.Step / time.Second)
		start := c.Times[0]/1000/step*step - step
		// Arguments come by its standard input: 1,000 data sources are more than a command line should be.
		var in strings.Builder
		fmt.Fprintf(&in, "create %s --start %d --step %d", file, start, step)
		columns := rrdColumns(c)
		for k := range columns {
			fmt.Fprintf(&in, " DS:d%d:GAUGE:%d:U:U", k, 2*step)
		}
		fmt.Fprintf(&in, " RRA:LAST:0.5:1:%d\n", len(c.Times))
		if i == 0 {
			for row := range c.Times {
				fmt.Fprintf(&in, "update %s %d", file, start+int64(row+1)*step)
				for _, column := range columns {
					in.WriteByte(':')
					in.WriteString(column(row))
				}
				in.WriteByte('\n')
			}
		}
		cmd := exec.Command(rrdtool, "-")
		cmd.Stdin = strings.NewReader(in.String())
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "ERROR") {
			return 0, 0, fmt.Errorf("shmts: rrdtool: %v: %.300s", err, out)
		}
		size, err := os.Stat(file)
		if err != nil {
			return 0, 0, err
		}
		if i == 0 {
			if err := inFetch(rrdtool, file, start, c, columns); err != nil {
				return 0, 0, err
			}
		}
		bytes += size.Size()
		samples += c.Samples()
		if err := os.Remove(file); err != nil {
			return 0, 0, err
		}
	}
	return bytes, samples, nil
}

// rrdColumns are a source's values as rrdtool takes them: a histogram has one for each bucket.
func rrdColumns(c *corpus.Source) (out []func(row int) string) {
	for i := range c.Series {
		s := &c.Series[i]
		width := 1
		if s.Buckets > 0 {
			width = s.Buckets + 3
		}
		for k := range width {
			out = append(out, func(row int) string {
				if s.Present != nil && !s.Present[row] {
					return "U"
				}
				v := s.Values[row*width+k]
				if s.Float && k == 0 {
					return strconv.FormatFloat(math.Float64frombits(v), 'g', 17, 64)
				}
				return strconv.FormatUint(v, 10)
			})
		}
	}
	return out
}

// inFetch holds that the last row is in the file.
func inFetch(rrdtool, file string, start int64, c *corpus.Source, columns []func(int) string) error {
	out, err := exec.Command(rrdtool, "lastupdate", file).Output()
	if err != nil {
		return fmt.Errorf("shmts: rrdtool lastupdate: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) != len(columns)+1 {
		return fmt.Errorf("shmts: rrdtool: want a time and %d values, got %d words", len(columns), len(fields))
	}
	want, got := columns[0](len(c.Times)-1), fields[1]
	if want != got && want != "U" {
		return fmt.Errorf("shmts: rrdtool: want %s as its last value, got %s", want, got)
	}
	return nil
}
