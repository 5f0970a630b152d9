package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTopPlain(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	w := startWriter(t, store, "live")
	for range 3 {
		w.do("record", 100)
	}
	o := shmctl(t, store, "top").ok().contains("1 alive, 1 closed", "live/child", "events_total", "TREND")
	if strings.Contains(o.out, "\x1b") || strings.Contains(o.out, "forwarder") {
		t.Errorf("want plain text of living segments, got %q", o.out)
	}
	shmctl(t, store, "top", "--all", "--sort", "name", "--match", "rx_*").ok().contains("forwarder/eth0", "1500", "500", " ▁▃▅▆█\n", "1 series")
	shmctl(t, store, "top", "forwarder", "--all", "--ascii", "--rows", "1").ok().contains("1500", " _-+*@\n")
	shmctl(t, store, "top", "forwarder/eth0").ok().contains("0 series")
	shmctl(t, store, "top", "nobody").fails(exitFailed, "no segment")
	looks := decodeLines[topJSON](shmctl(t, store, "top", "--json", "-n", "2", "-d", "300ms", "live").ok())
	if len(looks) != 2 {
		t.Fatalf("want 2 looks, got %d", len(looks))
	}
	for _, l := range looks {
		if l.Segments["alive"] != 1 || len(l.Series) != 2 || l.Bytes == 0 || l.Time == "" {
			t.Errorf("want one living segment with 2 series, got %+v", l)
		}
	}
	// Rows came in between: the trend grew, and the value is exact.
	eventually(t, "a rate of the events", func() bool {
		w.do("record", 100)
		for _, s := range decodeLines[topJSON](shmctl(t, store, "top", "--json", "live"))[0].Series {
			if s.Name == "events_total" && s.PerSecond != nil && *s.PerSecond > 0 && len(s.Trend) > 1 {
				return true
			}
		}
		return false
	})
	w.kill()
	shmctl(t, store, "top", "--all").ok().contains("live/child (dead)")
}

// A screen is a pseudoterminal, and what was written to it.
type screen struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	mu     sync.Mutex
	text   strings.Builder
}

func newScreen(t *testing.T, columns, rows int) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	s := &screen{t: t, master: master, slave: slave}
	s.resize(columns, rows)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { slave.Close(); master.Close() })
	return s
}

func (s *screen) resize(columns, rows int) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) type_(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, keys); err != nil {
		s.t.Fatal(err)
	}
}

// waits waits for text behind what was there before.
func (s *screen) waits(after int, text string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%q on the screen", text), func() bool { return strings.Contains(s.String()[after:], text) })
}

func (s *screen) run(store string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := command(store, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.slave, s.slave, s.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

func TestTopScreen(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	startWriter(t, store, "live")
	for _, end := range []string{"q", "\x03"} {
		s := newScreen(t, 100, 12)
		before, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		cmd := s.run(store, "top", "--all", "-d", "100ms")
		s.waits(0, "events_total")
		s.waits(0, "q quit")
		text := s.String()
		if !strings.HasPrefix(text, enterScreen) {
			t.Errorf("want the other screen first, got %.20q", text)
		}
		s.type_("s")
		s.waits(len(text), "by name")
		text = s.String()
		s.type_(" ")
		s.waits(len(text), "paused")
		s.type_(" ")
		// Narrower: no line is longer than the new width.
		text = s.String()
		s.resize(40, 6)
		eventually(t, "a frame of 40 columns", func() bool {
			frames := strings.Split(s.String()[len(text):], "\x1b[H")
			last := frames[len(frames)-1]
			if len(frames) < 2 || !strings.HasSuffix(last, "\x1b[J") {
				return false
			}
			lines := strings.Split(strings.TrimSuffix(last, "\x1b[J"), "\r\n")
			for _, l := range lines {
				l = strings.NewReplacer("\x1b[K", "", "\x1b[7m", "", "\x1b[0m", "", "\r", "").Replace(l)
				if len([]rune(l)) > 40 {
					return false
				}
			}
			return len(lines) == 6
		})
		text = s.String()
		s.type_("jjjjjj\x1b[B\x1b[5~G")
		s.waits(len(text), "\x1b[H")
		s.type_(end)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%q: want a good end, got %v", end, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q: want the end within 20 s, got none", end)
		}
		s.waits(0, leaveScreen)
		after, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
		if err != nil || *after != *before {
			t.Errorf("%q: want the terminal as it was, got another (%v)", end, err)
		}
	}
	// With -n a terminal gets plain text too.
	s := newScreen(t, 80, 24)
	if err := s.run(store, "top", "-n", "1").Wait(); err != nil {
		t.Error(err)
	}
	s.waits(0, "events_total")
	if strings.Contains(s.String(), "\x1b") {
		t.Errorf("want plain text, got %q", s.String())
	}
}

func TestFrameFits(t *testing.T) {
	l := &looker{levels: sparkBlocks, sort: "rate"}
	v := &topView{counts: map[string]int{}}
	for width := range 30 {
		for height := range 8 {
			for _, line := range strings.Split((&watchBoard{l, v}).frame(width, height, 0, true), "\r\n") {
				line = strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\x1b[J", "", "\x1b[7m", "", "\x1b[0m", "").Replace(line)
				if n := len([]rune(line)); n > width {
					t.Fatalf("%d x %d: want lines of at most %d, got %d: %q", width, height, width, n, line)
				}
			}
		}
	}
}
