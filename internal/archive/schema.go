package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/flate"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

const (
	schemaHeader = 24 // bytes before the first series of a schema's text
	schemaSeries = 20 // of each series, before its strings
	maxText      = 1 << 28
)

// NewSchema makes the schema of a table's series, which are copied; their Start and Retired are left out.
func NewSchema(table int, name string, series []*reader.Series) (*Schema, error) {
	s := &Schema{Table: table, Name: name, Series: make([]*reader.Series, len(series))}
	all := make([]reader.Series, len(series))
	for i, from := range series {
		all[i].Definition = from.Definition
		if from.Table != table {
			d := *from.Definition
			d.Table = table
			all[i].Definition = &d
		}
		s.Series[i] = &all[i]
	}
	text, err := s.text()
	if err != nil {
		return nil, err
	}
	s.Hash = schemaHash(text)
	return s, nil
}

func schemaHash(text []byte) (h [16]byte) {
	sum := sha256.Sum256(text)
	return [16]byte(sum[:16])
}

// text is FORMAT.md 15.3's.
func (s *Schema) text() ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, schemaHeader, schemaHeader+64*len(s.Series))
	le.PutUint16(b, uint16(s.Table))
	le.PutUint32(b[4:], uint32(len(s.Series)))
	copy(b[8:24], s.Name)
	for i, sr := range s.Series {
		info := layout.SeriesInfo{Name: sr.Name, Unit: sr.Unit, Help: sr.Help, Labels: sr.Labels}
		d := &info.Series
		d.Kind, d.Number, d.Scale, d.Buckets, d.BucketMin = sr.Kind, sr.Number, int8(sr.Buckets.Scale), uint16(sr.Buckets.Count), int16(sr.Buckets.Min)
		if sr.NonNegative {
			d.Flags = layout.FlagNonNegative
		}
		at := len(b)
		b = append(b, make([]byte, schemaSeries)...)
		var err error
		if b, err = info.AppendStrings(b); err != nil {
			return nil, fmt.Errorf("shmts: archive: schema: series %d: %w", i, err)
		}
		h := b[at:]
		h[0], h[1], h[2], h[3] = byte(d.Kind), byte(d.Number), byte(d.Scale), d.Flags
		le.PutUint16(h[4:], d.NameLength)
		le.PutUint16(h[6:], d.UnitLength)
		le.PutUint16(h[8:], d.HelpLength)
		le.PutUint16(h[10:], d.Buckets)
		le.PutUint16(h[12:], uint16(d.BucketMin))
		le.PutUint32(h[16:], d.LabelsLength)
	}
	if len(b) > maxText {
		return nil, fmt.Errorf("shmts: archive: schema: want at most %d bytes, got %d", maxText, len(b))
	}
	return b, nil
}

var errShort = errors.New("ends in the middle")

// parseSchema reads a schema's text. FORMAT.md 15.3.
func parseSchema(text []byte) (*Schema, error) {
	le := binary.LittleEndian
	fault := func(i int, err error) (*Schema, error) {
		return nil, fmt.Errorf("shmts: archive: schema: series %d: %w", i, err)
	}
	if len(text) < schemaHeader {
		return fault(0, errShort)
	}
	n := int(le.Uint32(text[4:]))
	if n > (len(text)-schemaHeader)/schemaSeries {
		return nil, fmt.Errorf("shmts: archive: schema: want at most %d series in %d bytes, got %d", (len(text)-schemaHeader)/schemaSeries, len(text), n)
	}
	s := &Schema{Hash: schemaHash(text), Table: int(le.Uint16(text)), Name: strings.TrimRight(string(text[8:24]), "\x00"), Series: make([]*reader.Series, n)}
	all, definitions := make([]reader.Series, n), make([]reader.Definition, n)
	rest := text[schemaHeader:]
	for i := range all {
		if len(rest) < schemaSeries {
			return fault(i, errShort)
		}
		d := layout.Series{Kind: layout.Kind(rest[0]), Number: layout.Number(rest[1]), Scale: int8(rest[2]), Flags: rest[3], NameLength: le.Uint16(rest[4:]), UnitLength: le.Uint16(rest[6:]),
			HelpLength: le.Uint16(rest[8:]), Buckets: le.Uint16(rest[10:]), BucketMin: int16(le.Uint16(rest[12:])), LabelsLength: le.Uint32(rest[16:])}
		rest = rest[schemaSeries:]
		if d.StringsLength() > len(rest) {
			return fault(i, errShort)
		}
		if err := d.CheckShape(i); err != nil {
			return fault(i, err)
		}
		info, err := d.CutStrings(rest[:d.StringsLength()], i)
		if err != nil {
			return fault(i, err)
		}
		rest = rest[d.StringsLength():]
		if len(info.Labels) == 0 {
			info.Labels = nil
		}
		definitions[i] = reader.Definition{Name: info.Name, Unit: info.Unit, Help: info.Help, Labels: info.Labels, Kind: d.Kind, Number: d.Number,
			NonNegative: d.Flags&layout.FlagNonNegative != 0, Table: s.Table, Buckets: d.Range()}
		all[i].Definition = &definitions[i]
		s.Series[i] = &all[i]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("shmts: archive: schema: want %d bytes, got %d", len(text)-len(rest), len(text))
	}
	return s, nil
}

// appendSchema appends the body of a schema's block: hash, length, and the text deflated. FORMAT.md 15.3. It is made once: deflating takes a MB
// of memory, and each extent has it.
func appendSchema(b []byte, s *Schema) ([]byte, error) {
	if body := s.body.Load(); body != nil {
		return append(b, *body...), nil
	}
	text, err := s.text()
	if err != nil {
		return b, err
	}
	out := slices.Clone(s.Hash[:])
	out = le.AppendUint32(out, uint32(len(text)))
	out = le.AppendUint32(out, 0)
	w := bytes.NewBuffer(out)
	z, err := flate.NewWriter(w, flate.DefaultCompression)
	if err == nil {
		_, err = z.Write(text)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return b, fmt.Errorf("shmts: archive: schema: deflate: %w", err)
	}
	body := slices.Clip(w.Bytes())
	s.body.Store(&body)
	return append(b, body...), nil
}

// cutSchema reads the body of a schema's block.
func cutSchema(body []byte) (*Schema, error) {
	if len(body) < schemaBodySize {
		return nil, errShort
	}
	n := le.Uint32(body[16:])
	if n > maxText {
		return nil, fmt.Errorf("schema: want a text of at most %d bytes, got %d", maxText, n)
	}
	// What the text says of its length sizes nothing before as much was there.
	z := flate.NewReader(bytes.NewReader(body[schemaBodySize:]))
	var text bytes.Buffer
	if _, err := text.ReadFrom(io.LimitReader(z, int64(n)+1)); err != nil {
		return nil, fmt.Errorf("schema: inflate: %w", err)
	}
	if text.Len() != int(n) {
		return nil, fmt.Errorf("schema: want a text of %d bytes, got %d", n, text.Len())
	}
	s, err := parseSchema(text.Bytes())
	if err != nil {
		return nil, err
	}
	if s.Hash != [16]byte(body) {
		return nil, fmt.Errorf("schema: want hash %x, got a text of %x", body[:16], s.Hash)
	}
	return s, nil
}

// fields is how many runs the schema's series have in a block.
func (s *Schema) fields(folded bool) (n int) {
	for _, sr := range s.Series {
		n += len(Fields(sr.Kind, folded))
	}
	return n
}
