package hostmix

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// A recording is gzip of: uvarint rows; then for each series uvarint length of its name, name, u8 flags (1 float, 2 some absent), where some are
// absent a byte for each row, and each row's difference to the one before as a varint. It is made for tests: no
// codec of this module is in it, so none can hide its own faults.

// Write writes a recording.
func Write(w io.Writer, series []*Series) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	var b []byte
	if len(series) > 0 {
		b = binary.AppendUvarint(b, uint64(len(series[0].Values)))
	}
	for _, s := range series {
		b = append(binary.AppendUvarint(b, uint64(len(s.Name))), s.Name...)
		flags := byte(0)
		if s.Float {
			flags |= 1
		}
		if s.Present != nil {
			flags |= 2
		}
		b = append(b, flags)
		for _, p := range s.Present {
			if p {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
		before := uint64(0)
		for _, v := range s.Values {
			b = binary.AppendVarint(b, int64(v-before))
			before = v
		}
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	return z.Close()
}

// Read reads what Write wrote.
func Read(r io.Reader) ([]*Series, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(z)
	rows, err := binary.ReadUvarint(in)
	if err != nil || rows > 1<<20 {
		return nil, fmt.Errorf("a recording: want at most 2^20 rows, got %d (%v)", rows, err)
	}
	var series []*Series
	for {
		length, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return series, nil
		} else if err != nil || length > 1<<16 {
			return nil, fmt.Errorf("a recording: series %d: want a name of at most 2^16 bytes, got %d (%v)", len(series), length, err)
		}
		name := make([]byte, length+1)
		if _, err := io.ReadFull(in, name); err != nil {
			return nil, err
		}
		flags := name[length]
		s := &Series{Name: string(name[:length]), Float: flags&1 != 0, Values: make([]uint64, rows)}
		if flags&2 != 0 {
			present := make([]byte, rows)
			if _, err := io.ReadFull(in, present); err != nil {
				return nil, err
			}
			for _, p := range present {
				s.Present = append(s.Present, p != 0)
			}
		}
		before := uint64(0)
		for i := range s.Values {
			d, err := binary.ReadVarint(in)
			if err != nil {
				return nil, err
			}
			before += uint64(d)
			s.Values[i] = before
		}
		series = append(series, s)
	}
}

// Load reads a file that Write wrote.
func Load(path string) ([]*Series, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	series, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return series, nil
}
