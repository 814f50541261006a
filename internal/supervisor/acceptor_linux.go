package supervisor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errOthers says that a connection was accepted by another process than the one that is probed.
var errOthers = errors.New("its answers cannot be told from those of the process beside it; health: notify can")

// acceptPatience is how long a connection may wait to be accepted before it counts as another's. A program that defers
// accepting until data arrives is never seen to accept; the error names the way out.
const acceptPatience = 200 * time.Millisecond

// acceptedBy waits until conn is accepted and returns nil if that was done by a process of pid's session, or below pid.
//
// Processes that inherited one socket take connections from one queue, so whether an answer is the new process's cannot
// be chosen; but it can be known. The kernel tells the inode of the other end of a connection, and /proc who holds it.
func acceptedBy(ctx context.Context, conn net.Conn, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, acceptPatience)
	defer cancel()
	pause := time.Millisecond
	for {
		inode, err := otherEnd(conn)
		if err != nil {
			return fmt.Errorf("find who answers: %w", err)
		}
		if inode != 0 {
			if holds(pid, inode) {
				return nil
			}
			return errOthers
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errOthers
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// otherEnd returns the inode of the socket at the other end of a local connection, or 0 before it is accepted.
func otherEnd(conn net.Conn) (uint32, error) {
	switch c := conn.(type) {
	case *net.TCPConn:
		local, ok1 := c.LocalAddr().(*net.TCPAddr)
		remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
		if !ok1 || !ok2 {
			return 0, errors.New("not a TCP connection")
		}
		return otherEndTCP(local, remote)
	case *net.UnixConn:
		return otherEndUnix(c)
	}
	return 0, fmt.Errorf("a %T has no other end on this host", conn)
}

// otherEndTCP asks for the one socket whose own address is remote and whose peer is local; see sock_diag(7).
func otherEndTCP(local, remote *net.TCPAddr) (uint32, error) {
	const requestBytes = 56 // struct inet_diag_req_v2
	req := make([]byte, requestBytes)
	family, own, peer := byte(unix.AF_INET6), remote.IP.To16(), local.IP.To16()
	if v4, p4 := remote.IP.To4(), local.IP.To4(); v4 != nil && p4 != nil {
		family, own, peer = unix.AF_INET, v4, p4
	}
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], 0xffffffff) // every state
	binary.BigEndian.PutUint16(req[8:], uint16(remote.Port))
	binary.BigEndian.PutUint16(req[10:], uint16(local.Port))
	copy(req[12:], own)
	copy(req[28:], peer)
	for i := 48; i < requestBytes; i++ {
		req[i] = 0xff // no cookie
	}
	reply, err := askDiag(req)
	if errors.Is(err, unix.ENOENT) {
		return 0, errOthers // closed already, or the other end is on another host
	}
	if err != nil || len(reply) < 72 {
		return 0, errors.Join(err, short(reply, 72))
	}
	return binary.NativeEndian.Uint32(reply[68:]), nil // idiag_inode
}

// otherEndUnix asks for the peer of our end.
func otherEndUnix(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); ctlErr != nil || err != nil {
		return 0, errors.Join(ctlErr, err)
	}
	req := make([]byte, 24) // struct unix_diag_req
	req[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(req[4:], 0xffffffff)
	binary.NativeEndian.PutUint32(req[8:], uint32(st.Ino)) // socket inodes are 32 bits
	binary.NativeEndian.PutUint32(req[12:], 4)             // UDIAG_SHOW_PEER
	binary.NativeEndian.PutUint64(req[16:], ^uint64(0))    // no cookie
	reply, err := askDiag(req)
	if err != nil || len(reply) < 16 {
		return 0, errors.Join(err, short(reply, 16))
	}
	for attrs := reply[16:]; len(attrs) >= 4; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < 4 || size > len(attrs) {
			break
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == 2 && size >= 8 { // UNIX_DIAG_PEER
			return binary.NativeEndian.Uint32(attrs[4:]), nil
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return 0, nil
}

func short(reply []byte, want int) error {
	if len(reply) < want {
		return fmt.Errorf("the kernel answers %d bytes, %d were expected", len(reply), want)
	}
	return nil
}

// askDiag asks the kernel for one socket and returns the message without its netlink header.
func askDiag(req []byte) ([]byte, error) {
	const sockDiagByFamily = 20
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written that could be lost
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(req))
	binary.NativeEndian.PutUint32(message, uint32(cap(message)))
	binary.NativeEndian.PutUint16(message[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(message[8:], 1)
	if err := unix.Sendto(fd, append(message, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	reply := make([]byte, 4096) // one socket takes some hundred bytes
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return nil, err
	}
	if n < unix.NLMSG_HDRLEN {
		return nil, short(reply[:n], unix.NLMSG_HDRLEN)
	}
	body := reply[unix.NLMSG_HDRLEN:n]
	if binary.NativeEndian.Uint16(reply[4:]) == unix.NLMSG_ERROR && len(body) >= 4 {
		return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	}
	return body, nil
}

// holds says whether pid, or a process of its session or below it, has the socket open.
func holds(pid int, inode uint32) bool {
	link := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	if hasOpen(pid, link) {
		return true
	}
	for _, p := range family(pid) {
		if p != pid && hasOpen(p, link) {
			return true
		}
	}
	return false
}

func hasOpen(pid int, link string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return false // ended, or not ours to look at
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return false
	}
	for _, name := range names {
		if target, err := os.Readlink(dir + "/" + name); err == nil && target == link {
			return true
		}
	}
	return false
}

// family lists the processes of the session that pid leads, and those that descend from it.
func family(pid int) []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	parents := make(map[int]int)
	var members []int
	for _, name := range names {
		p, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(string(data), ") ") // the name before it may hold anything
		fields := strings.Fields(rest)
		if !ok || len(fields) < 4 {
			continue
		}
		parents[p], _ = strconv.Atoi(fields[1]) // the kernel writes numbers
		if session, _ := strconv.Atoi(fields[3]); session == pid {
			members = append(members, p)
			continue
		}
	}
	for p := range parents {
		for up, steps := parents[p], 0; up > 1 && steps < 64; up, steps = parents[up], steps+1 {
			if up == pid {
				members = append(members, p)
				break
			}
		}
	}
	return members
}
