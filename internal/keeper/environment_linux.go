package keeper

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// ownEnv are the variables that only the keeper may set.
var ownEnv = [...]string{
	runPrefix, "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", "LISTEN_PIDFDID=", "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=",
	envRole + "=",
}

// environment is what a child sees: its own, with the keeper's words before it.
func environment(s Spawn, run string, listen []*socket, stored []storedFile, notify string) []string {
	env := []string{runPrefix + run}
	if n := len(listen) + len(stored); n > 0 {
		names := slices.Clone(s.Listen)
		for _, f := range stored {
			names = append(names, f.Name)
		}
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	if s.Watchdog > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", s.Watchdog.Microseconds()))
	}
	if notify != "" {
		env = append(env, "NOTIFY_SOCKET="+notify)
	}
	own := ownEnv[:]
	if port := firstPort(listen); port != "" {
		env = append(env, "PORT="+port)
		own = append(slices.Clone(own), "PORT=")
	}
	for _, kv := range s.Env {
		if !slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(kv, prefix) }) {
			env = append(env, kv)
		}
	}
	return env
}

func firstPort(listen []*socket) string {
	for _, l := range listen {
		if l.network == "tcp" {
			if _, port, err := net.SplitHostPort(l.address); err == nil {
				return port
			}
		}
	}
	return ""
}
