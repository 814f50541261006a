// Package lifecycle starts the long-lived parts of a process in order and stops them in reverse.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Runner is a long-lived part of a process.
type Runner interface {
	// Run blocks until ctx is done or the part fails. It returns nil after an asked-for stop, and only once every
	// goroutine that it started has returned.
	Run(ctx context.Context) error
	// Ready returns a channel that is closed when the part can do its work. It may never close.
	Ready() <-chan struct{}
}

// ErrStopped is the cause of the context of a Runner that a Group stops.
var ErrStopped = errors.New("stopped by its group")

type member struct {
	name   string
	runner Runner
}

// Group runs Runners. They start in the order of Add, each after the one before is ready, and stop in reverse order.
// The zero Group is ready to use; Add must not be called after Run.
type Group struct {
	members []member
}

// Add appends a Runner under a name that its errors carry.
func (g *Group) Add(name string, r Runner) {
	g.members = append(g.members, member{name, r})
}

// Run starts every member and returns when all have returned. The first member to return, or ctx, stops all. Errors
// of all members are joined, each under its member's name.
func (g *Group) Run(ctx context.Context) error {
	type running struct {
		cancel context.CancelCauseFunc
		done   chan struct{}
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		errs    []error
		started []running
	)
	ended := make(chan struct{}, len(g.members)) // one slot a member: nobody blocks on its way out
	stopping := false
	for _, m := range g.members {
		// Members outlive ctx until it is their turn to stop, so their contexts only inherit its values.
		memberCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		r := running{cancel, make(chan struct{})}
		started = append(started, r)
		wg.Go(func() {
			defer close(r.done)
			if err := m.runner.Run(memberCtx); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
				mu.Unlock()
			}
			ended <- struct{}{}
		})
		select {
		case <-m.runner.Ready():
		case <-ended:
			stopping = true
		case <-ctx.Done():
			stopping = true
		}
		if stopping {
			break
		}
	}
	if !stopping {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	for _, r := range slices.Backward(started) {
		r.cancel(ErrStopped)
		<-r.done
	}
	wg.Wait()
	return errors.Join(errs...)
}
