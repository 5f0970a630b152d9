package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"syscall"
)

// OpenStopped is Open for who has to go on whatever the disk does: where that is why there is no archive (no room, an error of
// the device, read-only), it answers one that is stopped, which Mend opens once the disk allows it. Any other error is Open's.
func OpenStopped(o Options) (Writer, error) {
	a, err := Open(o)
	if err == nil {
		return a, nil
	}
	if !ofTheDisk(err) {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &late{o: o}
	l.err.Store(&err)
	return l, nil
}

func ofTheDisk(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// late is an archive that could not be opened yet. Until then it holds nothing and takes nothing.
type late struct {
	o     Options
	a     atomic.Pointer[Archive]
	err   atomic.Pointer[error] // why not; nil once it is open
	reuse func(tier int, generation uint64)
}

var _ Writer = (*late)(nil)

// Mend implements Writer. It belongs to the one goroutine that writes, as Append does.
func (l *late) Mend() error {
	if a := l.a.Load(); a != nil {
		return a.Mend()
	}
	a, err := Open(l.o)
	if err != nil {
		l.err.Store(&err)
		return err
	}
	if l.reuse != nil {
		a.OnReuse(l.reuse)
	}
	why := *l.err.Load()
	l.a.Store(a)
	l.o.Logger.Warn("archiving begins: the archive could be opened", "stopped", why)
	return nil
}

func (l *late) stopped() error { return fmt.Errorf("%w: %w", ErrStopped, *l.err.Load()) }

func (l *late) Err() error {
	if a := l.a.Load(); a != nil {
		return a.Err()
	}
	return *l.err.Load()
}

func (l *late) Append(tier int, blocks ...*Block) error {
	if a := l.a.Load(); a != nil {
		return a.Append(tier, blocks...)
	}
	return l.stopped()
}

func (l *late) SetMark(tier int, m Mark) error {
	if a := l.a.Load(); a != nil {
		return a.SetMark(tier, m)
	}
	return l.stopped()
}

func (l *late) Sync() error {
	if a := l.a.Load(); a != nil {
		return a.Sync()
	}
	return l.stopped()
}

func (l *late) OnReuse(f func(tier int, generation uint64)) {
	l.reuse = f
	if a := l.a.Load(); a != nil {
		a.OnReuse(f)
	}
}

func (l *late) End(tier int) Mark {
	if a := l.a.Load(); a != nil {
		return a.End(tier)
	}
	return Mark{}
}

func (l *late) Marked(tier int) (Mark, bool) {
	if a := l.a.Load(); a != nil {
		return a.Marked(tier)
	}
	return Mark{}, false
}

func (l *late) ID() (id [16]byte) {
	if a := l.a.Load(); a != nil {
		id = a.ID()
	}
	return id
}

// Tiers are those that there will be, with nothing in them yet.
func (l *late) Tiers() []Tier {
	if a := l.a.Load(); a != nil {
		return a.Tiers()
	}
	out := make([]Tier, len(l.o.Tiers))
	for i, t := range l.o.Tiers {
		out[i].Step = t.Step
	}
	return out
}

func (l *late) Select(ctx context.Context, s Selection) ([]*Incarnation, error) {
	if a := l.a.Load(); a != nil {
		return a.Select(ctx, s)
	}
	return nil, l.stopped()
}

func (l *late) Exemplars(ctx context.Context, s Selection) iter.Seq2[*Exemplars, error] {
	if a := l.a.Load(); a != nil {
		return a.Exemplars(ctx, s)
	}
	return func(yield func(*Exemplars, error) bool) { yield(nil, l.stopped()) }
}

func (l *late) FindExemplars(segment [16]byte) ([]ExemplarPosition, error) {
	if a := l.a.Load(); a != nil {
		return a.FindExemplars(segment)
	}
	return nil, l.stopped()
}

func (l *late) AppendExemplars(parts ...Exemplars) error {
	if a := l.a.Load(); a != nil {
		return a.AppendExemplars(parts...)
	}
	return l.stopped()
}

func (l *late) Find(segment [16]byte) ([]*Incarnation, error) {
	if a := l.a.Load(); a != nil {
		return a.Find(segment)
	}
	return nil, l.stopped()
}

func (l *late) FindSince(segment [16]byte, tier int, from int64) ([]*Incarnation, error) {
	if a := l.a.Load(); a != nil {
		return a.FindSince(segment, tier, from)
	}
	return nil, l.stopped()
}

func (l *late) Read(inc *Incarnation, table, tier int, from, to int64, columns []Column) iter.Seq2[*Chunk, error] {
	if a := l.a.Load(); a != nil {
		return a.Read(inc, table, tier, from, to, columns)
	}
	return func(yield func(*Chunk, error) bool) { yield(nil, l.stopped()) }
}

func (l *late) Blocks(tier int, from Mark) iter.Seq2[*BlockInfo, error] {
	if a := l.a.Load(); a != nil {
		return a.Blocks(tier, from)
	}
	return func(yield func(*BlockInfo, error) bool) { yield(nil, l.stopped()) }
}

// Part is Archive.Part.
func (l *late) Part(info *BlockInfo, source int, columns []Column) (c *Chunk, starts []int64, ok bool, err error) {
	if a := l.a.Load(); a != nil {
		return a.Part(info, source, columns)
	}
	return nil, nil, false, l.stopped()
}

func (l *late) Close() error {
	if a := l.a.Load(); a != nil {
		return a.Close()
	}
	return nil
}
