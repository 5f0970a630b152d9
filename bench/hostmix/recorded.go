package hostmix

import (
	"bytes"
	_ "embed"
)

// 300 rows at 1 s of a host of two cores that compiled and tested, made by ./record.
//
//go:embed host.gz
var recorded []byte

// Recorded is a host's recording that comes with the package: the same on every machine.
func Recorded() []*Series {
	series, err := Read(bytes.NewReader(recorded))
	if err != nil {
		panic(err) // the file is in the binary
	}
	return series
}
