package keeper

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the time since some moment before the keeper started: the same clock in every process of a machine until
// it boots again (CLOCK_MONOTONIC), which setting the wall clock does not move.
func Monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("keeper: internal error: no monotonic clock: " + err.Error()) // every system that Go runs on has it
	}
	return time.Duration(now.Nano())
}
