// Package sdnotify tells the parent of this process how far it is, by systemd's notify protocol: one datagram of
// KEY=VALUE lines to the unix socket that NOTIFY_SOCKET names. Hozo's keeper and systemd both listen to it.
package sdnotify

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Env is the variable that names the socket.
const Env = "NOTIFY_SOCKET"

// The states that Hozo's processes send.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Watchdog = "WATCHDOG=1" // a sign of life, see Period
)

// Status is the state that sets the one line of text shown beside the process.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// Period is how often the parent expects Watchdog, 0 when it does not: WATCHDOG_USEC, if WATCHDOG_PID does not say that
// it is meant for another process.
func Period() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/int64(time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// Feed sends Watchdog at once and then every third of the period until ctx ends, so that one that comes late is no
// miss. It returns at once when the parent expects none, or when one cannot be sent, with that error.
func Feed(ctx context.Context) error {
	period := Period()
	if period == 0 {
		return nil
	}
	tick := time.NewTicker(max(period/3, time.Millisecond))
	defer tick.Stop()
	for {
		if err := Send(Watchdog); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Send sends states in one datagram. It does nothing when NOTIFY_SOCKET is empty: then nobody listens. It is safe for
// concurrent use; the error is that of the socket.
func Send(states ...string) error {
	path := os.Getenv(Env)
	if path == "" || len(states) == 0 {
		return nil
	}
	if strings.HasPrefix(path, "@") { // systemd writes the leading NUL of an abstract name as @
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify %s: %w", os.Getenv(Env), err)
	}
	defer func() { _ = conn.Close() }() // a datagram was sent or was not
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify %s: %w", os.Getenv(Env), err)
	}
	return nil
}
