package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/node"
)

// errEnded is the cause of the context of a foreground up whose project ended without it.
var errEnded = errors.New("the project ended")

// keeperAbsence is how long a keeper may be gone before its project counts as ended: another may be taking over.
const keeperAbsence = 3 * time.Second

// untilEnd returns a context that ends with errEnded when the project of state does, and a func that frees it.
func untilEnd(ctx context.Context, state string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			k, err := dialAgain(ctx, state)
			if err != nil {
				cancel(errEnded)
				return
			}
			select {
			case <-k.Done():
			case <-ctx.Done():
			}
			_ = k.Close() // it was only watched
		}
	})
	return ctx, func() {
		cancel(nil)
		wg.Wait()
	}
}

// dialAgain reaches the keeper of state, which may be on its way.
func dialAgain(ctx context.Context, state string) (*keeper.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperAbsence)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		k, err := keeper.Dial(ctx, keeper.SocketPath(state))
		if err == nil {
			return k, nil
		}
		if _, over := node.LastEnd(state); over {
			return nil, err // it was written down that this is the end
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// exitError is the error of a command that ends as a program of the project did.
type exitError struct {
	code int
	err  error // what to say; nil for nothing
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// ended is the result of an up whose project ended without it.
func ended(state string) error {
	e, known := node.LastEnd(state)
	switch {
	case !known:
		return &fault.Error{Code: "cli/ended", What: "the project was stopped by somebody else, or its keeper was killed", Where: keeperLog(state), Fix: "`hozo up` starts it again"}
	case e.Code == 0:
		return nil
	default:
		return &exitError{e.Code, &fault.Error{
			Code: "cli/essential-ended", What: fmt.Sprintf("%s, which is essential, ended: %s", e.Instance, e.Reason), Where: filepath.Join(state, "logs", e.Instance+".log"), Fix: "correct what its output says",
		}}
	}
}
