package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// A terminal is where top draws, and where its keys come from.
type terminal struct {
	out, in *os.File
}

// openTerminal answers the terminal that standard output is, if it is one that moves its cursor.
func openTerminal(c *cli.Context) (*terminal, bool) {
	out, ok := c.App.Metadata["stdout"].(*os.File)
	if !ok || !isTerminal(out) || os.Getenv("TERM") == "dumb" {
		return nil, false
	}
	in, ok := c.App.Reader.(*os.File)
	if !ok || !isTerminal(in) {
		// Standard input is something else: the keys come from the terminal itself, or not at all.
		in, _ = os.OpenFile("/dev/tty", os.O_RDONLY, 0)
	}
	return &terminal{out, in}, true
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// size is the terminal's, in cells; 80 x 24 where it does not say.
func (t *terminal) size() (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// raw takes line editing and echo away, and leaves ^C its signal. The function it answers
// gives all of it back.
func (t *terminal) raw() (restore func()) {
	if t.in == nil {
		return func() {}
	}
	fd := int(t.in.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	now := *was
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &now) != nil {
		return func() {}
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETS, was) }
}

// keys reads keys by name: a letter, up, down, pageup, pagedown, home, end.
func (t *terminal) keys(to chan<- string) {
	if t.in == nil {
		return
	}
	b := make([]byte, 32)
	for {
		n, err := t.in.Read(b)
		if err != nil || n == 0 {
			if err == io.EOF {
				to <- "q" // the terminal has gone
			}
			return
		}
		for _, k := range parseKeys(string(b[:n])) {
			to <- k
		}
	}
}

var escapes = map[string]string{
	"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down",
	"\x1b[5~": "pageup", "\x1b[6~": "pagedown", "\x1b[H": "home", "\x1b[F": "end", "\x1bOH": "home", "\x1bOF": "end",
}

func parseKeys(s string) (keys []string) {
next:
	for s != "" {
		for seq, name := range escapes {
			if rest, ok := strings.CutPrefix(s, seq); ok {
				keys, s = append(keys, name), rest
				continue next
			}
		}
		_, n := utf8.DecodeRuneInString(s)
		keys, s = append(keys, s[:n]), s[n:]
	}
	return keys
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// A board is what a terminal shows and keeps up to date.
type board interface {
	look(first bool) error
	rows() int      // that scroll
	key(key string) // one that means nothing to showOn
	frame(width, height, top int, paused bool) string
}

// showOn keeps the terminal up to date until the user has enough.
func showOn(c *cli.Context, term *terminal, b board) error {
	restore := term.raw()
	io.WriteString(term.out, enterScreen)
	defer func() {
		io.WriteString(term.out, leaveScreen)
		restore()
	}()
	keys := make(chan string)
	go term.keys(keys)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(c.Duration("interval"))
	defer tick.Stop()

	if err := b.look(true); err != nil {
		return err
	}
	top, paused := 0, false
	for {
		width, height := term.size()
		top = max(0, min(top, b.rows()-(height-3)))
		if _, err := io.WriteString(term.out, b.frame(width, height, top, paused)); err != nil {
			return fmt.Errorf("shmts: terminal: %w", err)
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-resized:
		case <-tick.C:
			if !paused {
				if err := b.look(false); err != nil {
					return err
				}
			}
		case k := <-keys:
			page := max(1, height-4)
			switch k {
			case "q", "\x03", "\x04":
				return nil
			case " ":
				paused = !paused
			case "up", "k":
				top--
			case "down", "j":
				top++
			case "pageup":
				top -= page
			case "pagedown":
				top += page
			case "home", "g":
				top = 0
			case "end", "G":
				top = b.rows()
			default:
				b.key(k)
			}
		}
	}
}

// watchBoard is the screen of a looker.
type watchBoard struct {
	l *looker
	t *topView
}

func (b *watchBoard) look(first bool) (err error) {
	b.t, err = b.l.look(first)
	return err
}

func (b *watchBoard) rows() int { return len(b.t.tracks) }

func (b *watchBoard) key(k string) {
	if k != "s" {
		return
	}
	i := slices.Index(topOrders, b.l.sort)
	b.l.sort = topOrders[(i+1)%len(topOrders)]
	sortTracks(b.t.tracks, b.l.sort)
}

func (b *watchBoard) frame(width, height, top int, paused bool) string {
	t := b.t
	visible := t.tracks[top:min(len(t.tracks), top+max(0, height-3))]
	title := t.title() + "; by " + b.l.sort
	if paused {
		title += "; paused"
	}
	// What the other columns leave is the trend's, as long as that is worth it.
	trend := trendPoints
	rows := t.lines(visible, trend, b.l.levels)
	longest := 0
	for _, r := range rows[1:] {
		longest = max(longest, utf8.RuneCountInString(r))
	}
	if longest > width {
		trend = max(8, trend-(longest-width))
		rows = t.lines(visible, trend, b.l.levels)
	}
	return draw(width, height, append([]string{title}, rows...), []int{1}, "q quit   space pause   s order   arrows scroll")
}

// draw is everything that goes to the screen at once: each line is overwritten in place, so that nothing flickers. The lines of these numbers are
// headings.
func draw(width, height int, lines []string, heads []int, help string) string {
	lines = append(lines, "")
	for len(lines) < height {
		lines = append(lines, "")
	}
	lines = lines[:max(1, height)]
	if height > 3 {
		lines[height-1] = help
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if r := []rune(line); len(r) > width {
			line = string(r[:width])
		}
		if slices.Contains(heads, i) && i < height-1 {
			line = "\x1b[7m" + line + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(line))) + "\x1b[0m"
		}
		b.WriteString(line + "\x1b[K")
		if i+1 < len(lines) {
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\x1b[J")
	return b.String()
}
