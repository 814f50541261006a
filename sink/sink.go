package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/wire"
)

var _ lifecycle.Runner = (*Sink)(nil)

// Sink copies one source into a target. Run it once.
type Sink struct {
	conn   *bus.Conn
	src    wire.Source
	target Target
	cfg    Config
	log    *slog.Logger

	ready   chan struct{}
	started sync.Once // closes ready

	failing  bool         // the last try failed, and the log says so
	held     []tally      // written, not durable yet, in order
	heldTime time.Time    // since when the oldest of them waits
	frames   []*bus.Frame // reused between batches
}

// New returns a Sink of source src of conn's grant into target. The target stays the caller's to close.
func New(conn *bus.Conn, src wire.Source, target Target, cfg Config) (*Sink, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure sink of %s: %w", src.Stream, err)
	}
	cfg = cfg.withDefaults()
	return &Sink{
		conn: conn, src: src, target: target, cfg: cfg,
		log:   cfg.Logger.With("source", src.Stream),
		ready: make(chan struct{}),
	}, nil
}

// Ready is closed when the target has told its watermark and reading has begun.
func (s *Sink) Ready() <-chan struct{} { return s.ready }

// Run copies until ctx ends; then it writes what it holds and returns nil. It returns an error wrapping ErrFenced when
// another writer has taken the source over, and a fault of the bus that waiting does not heal.
func (s *Sink) Run(ctx context.Context) error {
	work, cancel := s.outlive(ctx)
	defer cancel()
	for {
		err := s.copy(ctx, work)
		switch {
		case errors.Is(err, ErrFenced):
			return err
		case ctx.Err() != nil: // asked to stop: what is not durable is in the stream
			return nil
		case !errors.Is(err, ErrLost):
			return err
		}
		s.log.WarnContext(ctx, "sink begins again at its watermark", "error", err)
		pause(ctx, s.cfg.Backoff)
	}
}

// copy reads from the watermark on and writes until ctx ends or something does not heal.
func (s *Sink) copy(ctx, work context.Context) error {
	s.held = s.held[:0]
	after, err := s.try(ctx, work, "read watermark", func(ctx context.Context) (uint64, error) {
		return s.target.Watermark(ctx, s.src.Stream)
	})
	if err != nil {
		return err
	}
	follower, err := s.conn.Follow(ctx, s.src, after)
	if err != nil {
		return fmt.Errorf("follow %s: %w", s.src.Stream, err)
	}
	defer follower.Close()
	s.started.Do(func() { close(s.ready) })
	for {
		batch, damaged, readErr := s.collect(ctx, follower)
		if len(batch.Frames) > 0 {
			if err := s.write(ctx, work, follower, batch, damaged); err != nil {
				return err
			}
		}
		ending := ctx.Err() != nil || readErr != nil
		if ending || s.overdue() {
			if err := s.flush(ctx, work, follower); err != nil {
				return errors.Join(readErr, err)
			}
		}
		if ending {
			return readErr
		}
	}
}

// outlive returns a context that ends StopGrace after ctx, so that a write in hand can be finished.
func (s *Sink) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		// A timer that fires after Run cancels a context that has ended already.
		time.AfterFunc(s.cfg.StopGrace, func() {
			cancel(fmt.Errorf("the last write took longer than %s", s.cfg.StopGrace))
		})
	})
	return work, func() {
		unhook()
		cancel(nil)
	}
}

// collect gathers frames until the batch is full or old enough. It returns at once when ctx ends or the reader fails
// for good, and with no frames when it is time to flush. Frames whose bytes are damaged are named as poison.
func (s *Sink) collect(ctx context.Context, follower *bus.Follower) (batch Batch, damaged []Poison, err error) {
	clear(s.frames) // their bytes are no longer needed
	s.frames = s.frames[:0]
	bytes := 0
	wait := ctx
	if len(s.held) > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, s.heldTime.Add(s.cfg.FlushAge))
		defer cancel()
	}
	for bytes < s.cfg.BatchBytes {
		f, err := follower.Next(wait)
		switch {
		case f != nil && fault.Code(err) == bus.CodeBadFrame:
			damaged = append(damaged, Poison{f.ID(0), err})
		case err != nil && wait.Err() != nil: // asked to stop, or time is up
			return Batch{Source: s.src.Stream, Frames: s.frames}, damaged, nil
		case err != nil:
			return Batch{Source: s.src.Stream, Frames: s.frames}, damaged, fmt.Errorf("read %s: %w", s.src.Stream, err)
		}
		s.frames = append(s.frames, f)
		bytes += f.RawBytes()
		if len(s.frames) == 1 {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, s.cfg.BatchAge)
			defer cancel()
		}
	}
	return Batch{Source: s.src.Stream, Frames: s.frames}, damaged, nil
}

// overdue reports whether rows have waited long enough to be flushed.
func (s *Sink) overdue() bool {
	return len(s.held) > 0 && time.Since(s.heldTime) >= s.cfg.FlushAge
}

// try calls fn until it succeeds, names poison, or cannot succeed any more, or ctx ends. fn gets work as its context, so
// that a try under way may finish when ctx ends. What is not written then is read again after the next start.
func (s *Sink) try(ctx, work context.Context, act string, fn func(context.Context) (uint64, error)) (uint64, error) {
	for wait := s.cfg.Backoff; ; wait = min(2*wait, s.cfg.MaxBackoff) {
		n, err := fn(work)
		if _, poison := errors.AsType[*RowError](err); err == nil || poison {
			if s.failing {
				s.failing = false
				s.log.InfoContext(ctx, "sink works again", "act", act)
			}
			return n, err
		}
		if errors.Is(err, ErrLost) {
			return 0, err
		}
		if errors.Is(err, ErrFenced) {
			return 0, &fault.Error{
				Code: "sink/fenced", What: "another writer has taken over source " + s.src.Stream, Where: act, Err: err,
				Fix: "run one instance of a sink, and one sink for each source and table or folder",
			}
		}
		if !s.failing && ctx.Err() == nil {
			s.failing = true
			s.log.WarnContext(ctx, "sink waits for its target", "act", act, "error", err)
		}
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return 0, fmt.Errorf("%s: %w", act, err)
		}
	}
}

// pause waits for d; it reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
