package keeper

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// peekDatagram reads the next datagram of a socket and leaves it there. Whoever is killed before he has acted on it has
// lost nothing: the next one to have the socket reads it again. dropDatagram takes it away.
func peekDatagram(conn *net.UnixConn, text, control []byte) (n, controls, flags int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, 0, err
	}
	closed := raw.Read(func(fd uintptr) bool {
		n, controls, flags, _, err = unix.Recvmsg(int(fd), text, control, unix.MSG_PEEK|unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	return n, controls, flags, errors.Join(closed, err)
}

// dropDatagram takes the datagram that peekDatagram has read. Descriptors that came with it are closed, as a sender of
// BARRIER=1 waits for, once the duplicates of peekDatagram are.
func dropDatagram(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // closed: there is nothing to take
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _, _, _ = unix.Recvmsg(int(fd), nil, nil, unix.MSG_DONTWAIT) // as above
	})
}
