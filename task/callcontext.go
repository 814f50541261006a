package task

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// callContext is the context of one call of a handler. A real one, with its timer and its place below the worker's, costs
// a fifth of what a task costs that does nothing, so it is made when the handler first asks for what only a real one has.
// It is safe for concurrent use.
type callContext struct {
	work  context.Context //nolint:containedctx // it is a context itself, below this one
	limit time.Duration
	until time.Time

	mu    sync.Mutex
	real  context.Context //nolint:containedctx // likewise; nil until it is asked for
	stop  context.CancelCauseFunc
	ended bool // before there was a real one
	cause error
}

var _ context.Context = (*callContext)(nil)

func newCallContext(work context.Context, limit time.Duration) *callContext {
	return &callContext{work: work, limit: limit, until: time.Now().Add(limit)}
}

type overrun struct{ limit time.Duration }

func (o *overrun) Error() string { return fmt.Sprintf("the attempt took longer than %v", o.limit) }

// made returns the real context.
func (c *callContext) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		ctx, cancel := context.WithCancelCause(c.work)
		limited, stop := context.WithDeadlineCause(ctx, c.until, &overrun{c.limit})
		c.real, c.stop = limited, func(cause error) {
			cancel(cause)
			stop()
		}
		if c.ended {
			c.stop(c.cause)
		}
	}
	return c.real
}

// cancel ends the context. It must be called at the end of the call.
func (c *callContext) cancel(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		c.stop(cause)
	} else if !c.ended {
		c.ended, c.cause = true, cause
	}
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.until, true }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.made().Done() }

// Err implements context.Context.
func (c *callContext) Err() error { return c.made().Err() }

// Value implements context.Context. What package context asks a parent for comes from the real one.
func (c *callContext) Value(key any) any { return c.made().Value(key) }
