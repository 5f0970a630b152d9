package main

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/shmts/shmts/layout"
)

// A field is one field of a segment, as dump prints it.
type field struct {
	Offset uint64 `json:"offset" doc:"bytes from the start of the file"`
	Size   uint64 `json:"size" doc:"bytes"`
	Field  string `json:"field" doc:"where it belongs, in FORMAT.md's words: table0.tier1.step"`
	Value  any    `json:"value" doc:"a number, or a string: text, hexadecimal digits, a float cell that is no number"`
	Note   string `json:"note,omitempty" doc:"what the value means; absent where it speaks for itself"`
}

// structFields answers the fields of one of the format's structures, which lies at off
// of the file. The Go struct is FORMAT.md's table, so names and offsets come from it.
func structFields[T layout.Structure](prefix string, off uint64, v *T) []field {
	return reflectFields(nil, prefix, off, reflect.ValueOf(v).Elem())
}

func reflectFields(out []field, prefix string, off uint64, v reflect.Value) []field {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := snake(f.Name)
		if strings.HasPrefix(name, "reserved") {
			continue
		}
		at, val := off+uint64(f.Offset), v.Field(i)
		if f.Type.Kind() != reflect.Array {
			out = append(out, wordField(prefix+"."+name, at, val))
			continue
		}
		switch element := f.Type.Elem(); element.Kind() {
		case reflect.Uint8:
			out = append(out, bytesField(prefix+"."+name, at, val))
		case reflect.Struct:
			for j := range val.Len() {
				out = reflectFields(out, fmt.Sprintf("%s.%s%d", prefix, name, j), at+uint64(j)*uint64(element.Size()), val.Index(j))
			}
		default:
			for j := range val.Len() {
				out = append(out, wordField(fmt.Sprintf("%s.%s%d", prefix, name, j), at+uint64(j)*uint64(element.Size()), val.Index(j)))
			}
		}
	}
	return out
}

func bytesField(name string, off uint64, v reflect.Value) field {
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	f := field{Offset: off, Size: uint64(len(b)), Field: name}
	if strings.HasSuffix(name, "_id") {
		f.Value = hex.EncodeToString(b)
	} else {
		f.Value = layout.Text(b)
	}
	return f
}

func wordField(name string, off uint64, v reflect.Value) field {
	f := field{Offset: off, Size: uint64(v.Type().Size()), Field: name}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if v.CanInt() {
		n := v.Int()
		f.Value = n
		switch last {
		case "birth_unix", "born_unix", "t_begin", "t":
			if n != 0 {
				f.Note = jsonTime(n)
			}
		}
		return f
	}
	if v.CanFloat() {
		f.Value = number(v.Float(), false)
		return f
	}
	n := v.Uint()
	f.Value = n
	switch last {
	case "magic", "checksum", "check", "compat", "incompat":
		f.Value = fmt.Sprintf("%#x", n)
	case "kind":
		f.Note = layout.Kind(n).String()
	case "number":
		f.Note = layout.Number(n).String()
	case "type":
		f.Note = sectionName(layout.SectionType(n))
	case "step":
		f.Note = stepText(time.Duration(n))
	case "state":
		if strings.HasPrefix(name, "control") {
			f.Note = nameOf(n, map[uint64]string{layout.StateLive: "live", layout.StateClosed: "closed"})
		} else {
			life := nameOf(n&0xff, map[uint64]string{layout.SeriesFree: "free", layout.SeriesFilling: "being filled",
				layout.SeriesLive: "live", layout.SeriesRetired: "retired"})
			f.Note = fmt.Sprintf("%s, generation %d", life, n>>8)
		}
	case "seq":
		if n&1 != 0 {
			f.Note = "the writer is inside, or died inside"
		}
	case "flags":
		f.Note = flagsNote(name, n)
	}
	return f
}

func flagsNote(name string, n uint64) string {
	var of []string
	switch {
	case strings.HasPrefix(name, "superblock"):
		of = []string{"sampled"}
	case strings.HasPrefix(name, "series"):
		of = []string{"non-negative"}
	default:
		of = []string{"final", "estimated"}
	}
	var set []string
	for i, s := range of {
		if n>>i&1 != 0 {
			set = append(set, s)
		}
	}
	return strings.Join(set, ", ")
}

func nameOf(n uint64, names map[uint64]string) string {
	if s, ok := names[n]; ok {
		return s
	}
	return "unknown"
}

var sectionNames = map[layout.SectionType]string{
	layout.SectionControl: "control", layout.SectionTables: "tables", layout.SectionSource: "source",
	layout.SectionSeries: "series", layout.SectionHeap: "heap", layout.SectionLanes: "lanes",
	layout.SectionRows: "rows", layout.SectionExemplars: "exemplars", layout.SectionEvents: "events",
}

func sectionName(t layout.SectionType) string {
	if s, ok := sectionNames[t]; ok {
		return s
	}
	return "unknown"
}

// snake turns a Go field's name into FORMAT.md's: SegmentID, segment_id; TBegin, t_begin.
func snake(s string) string {
	var b strings.Builder
	r := []rune(s)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
