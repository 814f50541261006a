// Package sdnotify tells the parent of this process how far it is, by systemd's notify protocol: one datagram of
// KEY=VALUE lines to the unix socket that NOTIFY_SOCKET names. Hozo's keeper and systemd both listen to it.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// Env is the variable that names the socket.
const Env = "NOTIFY_SOCKET"

// The states that Hozo's processes send.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// Status is the state that sets the one line of text shown beside the process.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

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
