package layout

import "fmt"

// CorruptError says what is wrong with a segment's bytes, both sides, and
// where. Segment is empty until somebody knows which one it is.
type CorruptError struct {
	Segment string // id or path
	Section string // "superblock", "section table", "table", "tier", "source", "series", "row"
	Index   int    // which one; -1 where there is only one
	Want    string
	Got     string
}

func (e *CorruptError) Error() string {
	where := e.Section
	if e.Index >= 0 {
		where = fmt.Sprintf("%s %d", e.Section, e.Index)
	}
	if e.Segment == "" {
		return fmt.Sprintf("shmts: corrupt segment: %s: want %s, got %s", where, e.Want, e.Got)
	}
	return fmt.Sprintf("shmts: corrupt segment %s: %s: want %s, got %s", e.Segment, where, e.Want, e.Got)
}

func corrupt(section string, index int, want string, got any) error {
	g := fmt.Sprint(got)
	if u, ok := got.(uint64); ok {
		g = fmt.Sprintf("%#x", u)
	}
	return &CorruptError{Section: section, Index: index, Want: want, Got: g}
}

// VersionError says that a segment is of a version, or needs a feature, that
// this code does not know. The segment may be perfectly good.
type VersionError struct {
	Segment string
	Want    string
	Got     string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("shmts: segment %s is of another version: want %s, got %s", e.Segment, e.Want, e.Got)
}
