package keeper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// ShimCommand is the first argument of the keeper's binary when it is to run ExecShim with the arguments after it.
const ShimCommand = "keeper-exec"

// ExecShim becomes the program args[0] with the arguments args and the environment env plus LISTEN_PID and, when
// WATCHDOG_USEC is there, WATCHDOG_PID, its own pid. They must be the pid of the program that they are meant for, and
// only the child itself can know it before exec. It returns only when the exec did not happen; the caller prints the
// error and exits with status 127.
func ExecShim(args, env []string) error {
	if len(args) == 0 {
		return errors.New(ShimCommand + " needs a program")
	}
	has := func(prefix string) bool {
		return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, prefix) })
	}
	own := map[string]bool{"LISTEN_PID=": has("LISTEN_FDS="), "WATCHDOG_PID=": has("WATCHDOG_USEC=")}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_PID=") || strings.HasPrefix(kv, "WATCHDOG_PID=")
	})
	for prefix, set := range own {
		if set {
			env = append(env, fmt.Sprintf("%s%d", prefix, os.Getpid()))
		}
	}
	return fmt.Errorf("exec %s: %w", args[0], syscall.Exec(args[0], args, env))
}
