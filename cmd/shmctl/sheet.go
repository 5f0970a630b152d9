package main

import (
	"encoding/csv"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// A sheet prints lines as text, CSV or JSON lines. Of text lines are held until done, so that columns line up; those that come
// later line up with the first ones as long as they are no wider.
type sheet struct {
	c         *cli.Context
	grid      *grid // text
	csv       *csv.Writer
	streaming bool // the heading is out
}

// done prints what is held.
func (s *sheet) done() error {
	switch {
	case s.c.Bool("json"):
	case s.csv != nil:
		s.csv.Flush()
		if err := s.csv.Error(); err != nil {
			return err
		}
	default:
		s.held()
	}
	return flush(s.c)
}

// held prints what is held of text.
func (s *sheet) held() {
	lines := s.grid.lines()
	if s.streaming {
		lines = lines[1:]
	}
	for _, l := range lines {
		fmt.Fprintln(s.c.App.Writer, l)
	}
	s.grid.wide, s.grid.rows, s.streaming = s.grid.widths(), nil, true
}

// follow prints what is held, and then what more adds each time, until more says that all have ended, the time is after end (unix ns), or the user had
// enough.
func (s *sheet) follow(every time.Duration, end int64, more func() (ended bool, err error)) error {
	if err := s.done(); err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ended, err := more()
		if err != nil {
			return err
		}
		if err := s.done(); err != nil {
			return err
		}
		if ended || time.Now().UnixNano() > end {
			return nil
		}
		select {
		case <-s.c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}
