package supervisord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// fcgiSocket is the listening socket that the processes of an fcgi program share. It is open while any of them has it.
// The loop owns it.
type fcgiSocket struct {
	conf  *conf.FCGISocket
	log   *mainlog
	file  *os.File
	users int
}

// lookupTime bounds the look-up of a host name.
const lookupTime = 2 * time.Second

// fcgiLease is one process's hold of the socket.
type fcgiLease struct{ socket *fcgiSocket }

// lease opens the socket if nobody has it.
func (s *fcgiSocket) lease() (*fcgiLease, error) {
	if s.users == 0 {
		s.log.info("Creating socket %s", s.conf.URL())
		file, err := listenFCGI(s.conf)
		if err != nil {
			return nil, err
		}
		s.file = file
	}
	s.users++
	return &fcgiLease{s}, nil
}

// release closes the socket if nobody else has it.
func (l *fcgiLease) release() {
	s := l.socket
	if s.users--; s.users > 0 {
		return
	}
	s.log.info("Closing socket %s", s.conf.URL())
	s.file.Close()
	s.file = nil
}

// dup returns a descriptor for a child.
func (l *fcgiLease) dup() (*os.File, error) {
	fd, err := unix.FcntlInt(l.socket.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "fcgi"), nil
}

func listenFCGI(c *conf.FCGISocket) (*os.File, error) {
	if info, err := os.Lstat(c.Address); c.Network == "unix" && err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(c.Address); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // a program that inherits the socket expects plain TCP
	// The loop, which spawns, ends step by step and not by a context; a host name must not hold it up for long.
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	listener, err := lc.Listen(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	defer listener.Close() // the duplicate stays open
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	source, ok := listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no file", listener)
	}
	file, err := source.File()
	if err != nil {
		return nil, err
	}
	err = unix.SetNonblock(int(file.Fd()), false)
	if err == nil && c.Backlog > 0 {
		err = unix.Listen(int(file.Fd()), c.Backlog)
	}
	if err == nil && c.Network == "unix" {
		err = os.Chmod(c.Address, c.Mode)
		if err == nil && (c.UID >= 0 || c.GID >= 0) {
			err = os.Chown(c.Address, c.UID, c.GID)
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
