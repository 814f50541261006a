package keeper

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxNotifyBytes is what systemd takes of a notification (NOTIFY_BUFFER_MAX is PIPE_BUF).
	maxNotifyBytes = 4096
	// maxStatusBytes bounds the STATUS= that is kept and listed.
	maxStatusBytes = 1024
	// maxPassedFiles is SCM_MAX_FD, the most descriptors that a datagram can carry.
	maxPassedFiles = 253
	// maxAncestors bounds the way up from the sender of a notification to a leader.
	maxAncestors = 64
)

// notifier takes sd_notify datagrams. It is safe for concurrent use.
type notifier struct {
	path  string
	conn  *net.UnixConn
	extra chan *net.UnixConn // hands the public socket to serve; one at most is ever made

	mu     sync.Mutex
	public *net.UnixConn // abstract, for services of other users; nil until the first
	closed bool
}

func notifyPath(state string) string { return filepath.Join(state, "notify.sock") }

// listenPrivateNotify opens the socket for services that run as the keeper does.
func listenPrivateNotify(path string) (*net.UnixConn, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale notification socket: %w", err)
	}
	conn, err := listenNotify(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect notification socket: %w", err), conn.Close())
	}
	return conn, nil
}

// listenNotify opens a socket whose datagrams carry the sender's pid as the kernel knows it.
func listenNotify(name string) (*net.UnixConn, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notifications: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask for senders of notifications: %w", err), conn.Close())
	}
	return conn, nil
}

// notifyAddress is the NOTIFY_SOCKET of a child. One of another user cannot enter the state directory.
func (k *Keeper) notifyAddress(cred *syscall.Credential) (string, error) {
	if cred == nil || cred.Uid == uint32(os.Geteuid()) {
		return k.notifier.path, nil
	}
	name, fresh, err := k.notifier.open()
	if err != nil || fresh == nil {
		return name, err
	}
	fd, err := duplicateConn(fresh)
	if err != nil {
		return "", fmt.Errorf("keep notification socket: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.base[keyPublicNotify] = fd
	return name, k.deposit(opPut, keyPublicNotify, nil, fd)
}

// open returns the name of the public socket, which it makes the first time: then the socket too.
func (n *notifier) open() (name string, fresh *net.UnixConn, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return "", nil, failure("stopping", "the keeper is stopping", "", nil)
	}
	if n.public == nil {
		fresh, err = listenNotify("@hozo-notify-" + rand.Text())
		if err != nil {
			return "", nil, err
		}
		n.public = fresh
		n.extra <- fresh
	}
	return n.public.LocalAddr().String(), fresh, nil
}

// close ends serve. It may be called again.
func (n *notifier) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	close(n.extra)
	err := n.conn.Close()
	if n.public != nil {
		err = errors.Join(err, n.public.Close())
	}
	if gone := os.Remove(n.path); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// serve gives every datagram to use with its sender's pid, until close. use is called from two goroutines at most.
func (n *notifier) serve(use func(pid int, text string)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { receive(n.conn, use) })
	for conn := range n.extra {
		wg.Go(func() { receive(conn, use) })
	}
}

func receive(conn *net.UnixConn, use func(pid int, text string)) {
	text := make([]byte, maxNotifyBytes)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxPassedFiles))
	for {
		n, controls, flags, err := peekDatagram(conn, text, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		pid := sender(control[:controls])
		if pid > 0 && flags&unix.MSG_TRUNC == 0 {
			use(pid, strings.ToValidUTF8(string(text[:n]), "\uFFFD"))
		}
		dropDatagram(conn)
	}
}

// sender reads the pid from the control messages of a datagram, 0 when there is none. Descriptors that came along are
// closed: to a sender of BARRIER=1 that is the sign that everything before was taken.
func sender(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	pid := 0
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				_ = unix.Close(fd) // another's file
			}
		}
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid
}

// notified takes a datagram of a process that the keeper runs, and ignores every other.
func (k *Keeper) notified(pid int, text string) {
	group, run := lineage(pid)
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.ownerLocked(group, run)
	if r == nil || r.reaped || !r.spec.Notify {
		k.log.Debug("notification of a stranger ignored", "pid", pid)
		return
	}
	n := parseNotice(text)
	r.ready = r.ready || n.ready
	if n.status != nil {
		r.status = *n.status
	}
	if n.ready || n.status != nil {
		k.depositRecord(r)
	}
	k.emitLocked(Event{Kind: EventNotify, Process: r.process(), Notify: text})
}

// ownerLocked finds the record by pids of which one may be its leader's, or by the run.
func (k *Keeper) ownerLocked(pids []int, run string) *record {
	for _, pid := range pids {
		if r := k.live[pid]; r != nil {
			return r // a leader that is not reaped has its pid, group and session for itself
		}
	}
	if run == "" {
		return nil
	}
	for _, r := range k.live {
		if r.run == run {
			return r
		}
	}
	return nil
}

// lineage returns the pids by which a process may belong to a leader: itself, its group, its session and those of its
// ancestors below the keeper; and the HOZO_RUN that it was started with.
func lineage(pid int) (pids []int, run string) {
	run = environRun(pid)
	self, parent := os.Getpid(), os.Getppid()
	for range maxAncestors {
		if pid <= 1 || pid == self || pid == parent {
			break
		}
		pids = append(pids, pid)
		p, err := readProc(pid)
		if err != nil {
			break // it has ended; its own pid is all there is
		}
		pids = append(pids, p.group, p.session)
		pid = p.parent
	}
	return pids, run
}

// notice is what the keeper itself understands of a notification.
type notice struct {
	ready  bool
	status *string
}

// parseNotice reads the lines of a notification; see sd_notify(3). Unknown ones are left to whoever gets the event.
func parseNotice(text string) notice {
	var n notice
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
		case key == "READY":
			n.ready = n.ready || value == "1"
		case key == "STATUS":
			if len(value) > maxStatusBytes {
				value = strings.ToValidUTF8(value[:maxStatusBytes], "")
			}
			n.status = &value
		}
	}
	return n
}
