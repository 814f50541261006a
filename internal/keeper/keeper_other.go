//go:build !linux

package keeper

import (
	"context"
	"runtime"
)

// Keeper needs Linux; New never returns one here.
type Keeper struct{}

// New fails: the keeper needs pidfd, the child subreaper and /proc of Linux.
func New(Config) (*Keeper, error) { return nil, unsupported() }

// Run fails like New.
func (*Keeper) Run(context.Context) error { return unsupported() }

// Ready returns a channel that never closes.
func (*Keeper) Ready() <-chan struct{} { return nil }

func unsupported() error {
	return failure("unsupported", "the keeper needs Linux, this is "+runtime.GOOS, "run Hozo on Linux", nil)
}

// ExecShim fails like New.
func ExecShim([]string, []string) error { return unsupported() }
