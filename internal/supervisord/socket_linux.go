package supervisord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// listenUnix opens the socket of a [unix_http_server]. It is made under another name, with its rights from its first
// moment, and then linked to its own: nobody ever connects to a socket that is half made, and of two daemons one loses.
func listenUnix(ctx context.Context, s conf.UnixServer) (net.Listener, error) {
	temp := fmt.Sprintf("%s.%d", s.File, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cannotListen(s.File, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(s.Mode.Perm())) })
		return errors.Join(err, failed)
	}}
	listener, err := lc.Listen(ctx, "unix", temp)
	if err != nil {
		return nil, cannotListen(s.File, err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	defer os.Remove(temp)
	err = os.Chmod(temp, s.Mode) // what the umask took away
	if err == nil {
		err = link(ctx, temp, s.File)
	}
	if err == nil && (s.UID >= 0 || s.GID >= 0) {
		if err = os.Chown(s.File, s.UID, s.GID); err != nil {
			os.Remove(s.File)
			err = &fault.Error{
				Code: "supervisord/chown", Kind: fault.Misuse, Where: s.Position.String(),
				What: fmt.Sprintf("Not permitted to chown %s to uid/gid (%d, %d)", s.File, s.UID, s.GID),
				Fix:  "change chown, or run as a user who may", Err: err,
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// link gives a socket its name. One that nobody listens on any more is taken away first.
func link(ctx context.Context, temp, path string) error {
	for range 3 {
		err := os.Link(temp, path)
		if !errors.Is(err, fs.ErrExist) {
			if err != nil {
				return cannotListen(path, err)
			}
			return nil
		}
		if listens(ctx, path) {
			return cannotListen(path, unix.EADDRINUSE)
		}
		fmt.Fprintf(os.Stderr, "Unlinking stale socket %s\n", path)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return cannotListen(path, err)
		}
	}
	return cannotListen(path, unix.EADDRINUSE)
}

// listens says whether somebody answers on a unix socket.
func listens(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return errors.Is(err, unix.EAGAIN) // a full queue is an answer too
	}
	conn.Close()
	return true
}

func listenInet(ctx context.Context, s conf.InetServer) (net.Listener, error) {
	address := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp4", address) // Supervisor speaks IPv4 alone
	if err != nil {
		return nil, cannotListen(address, err)
	}
	return listener, nil
}

// loopback says whether only this machine can reach a host.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// cannotListen explains why a server was not opened, in Supervisor's words.
func cannotListen(where string, err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return &fault.Error{
			Code: "supervisord/address-in-use", Kind: fault.Misuse, Where: where,
			What: "Another program is already listening on a port that one of our HTTP servers is configured to use.",
			Fix:  "Shut this program down first before starting supervisord.",
		}
	}
	return &fault.Error{
		Code: "supervisord/listen", Kind: fault.Misuse, Where: where,
		What: "Cannot open an HTTP server: socket.error reported errno." + errnoName(err),
		Fix:  "correct the address, or the rights of its folder", Err: err,
	}
}
