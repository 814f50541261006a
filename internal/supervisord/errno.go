//go:build linux

package supervisord

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// errnoName is the symbol of an error of the kernel, such as ENOENT, or the error's own words.
func errnoName(err error) string {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err.Error()
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return fmt.Sprint(int(errno))
}

// signalName is the symbol of a signal, such as SIGTERM.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(sig))
}

// exitText describes a wait status, and gives the exit code that the rest of Supervisor goes by: -1 for a signal.
func exitText(ws syscall.WaitStatus) (code int, text string) {
	switch {
	case ws.Exited():
		return ws.ExitStatus(), fmt.Sprintf("exit status %d", ws.ExitStatus())
	case ws.Signaled():
		text = "terminated by " + signalName(ws.Signal())
		if ws.CoreDump() {
			text += " (core dumped)"
		}
		return -1, text
	default:
		return -1, fmt.Sprintf("unknown termination cause 0x%04x", uint32(ws))
	}
}
