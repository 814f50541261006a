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
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxNotifyBytes is what systemd takes of a notification (NOTIFY_BUFFER_MAX is PIPE_BUF).
	maxNotifyBytes = 4096
	// maxFlushTime bounds a flush; the keeper takes some ten thousand notifications in it.
	maxFlushTime = time.Second
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

	mu      sync.Mutex
	public  *net.UnixConn // abstract, for services of other users; nil until the first
	closed  bool
	flushes map[string]chan struct{} // by the datagram that ends one
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

// serve gives every datagram to use with its sender's pid and the descriptors that came along, until close. use is
// called from two goroutines at most. It sets the descriptors that it keeps to -1; the others are closed when it
// returns, which tells a sender of BARRIER=1 that everything it sent before has been taken.
func (n *notifier) serve(use func(pid int, text string, fds []int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { n.receive(n.conn, use) })
	for conn := range n.extra {
		wg.Go(func() { n.receive(conn, use) })
	}
}

// flush returns when everything that was sent before is taken: what a process says before it ends must count, however
// soon its end is seen. It gives up after maxFlushTime, when others send faster than the keeper reads.
func (n *notifier) flush() {
	n.mu.Lock()
	targets := map[string]chan struct{}{n.path: make(chan struct{})}
	if n.public != nil {
		targets[n.public.LocalAddr().String()] = make(chan struct{})
	}
	for address, done := range targets {
		n.flushes["FLUSH="+address] = done
	}
	n.mu.Unlock()
	deadline := time.Now().Add(maxFlushTime)
	timer := time.NewTimer(maxFlushTime)
	defer timer.Stop()
	for address, done := range targets {
		if err := sendNotice(address, "FLUSH="+address, deadline); err != nil {
			continue // the keeper is about to end
		}
		select {
		case <-done:
		case <-timer.C:
			return
		}
	}
}

func sendNotice(address, text string, deadline time.Time) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	if err = conn.SetWriteDeadline(deadline); err == nil {
		_, err = conn.Write([]byte(text))
	}
	return errors.Join(err, conn.Close())
}

// flushed ends a flush, whose datagrams alone are the keeper's own.
func (n *notifier) flushed(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if done := n.flushes[text]; done != nil {
		close(done)
		delete(n.flushes, text)
	}
}

func (n *notifier) receive(conn *net.UnixConn, use func(pid int, text string, fds []int)) {
	text := make([]byte, maxNotifyBytes)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxPassedFiles))
	for {
		size, controls, flags, err := peekDatagram(conn, text, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		pid, fds := sender(control[:controls])
		switch {
		case pid <= 0 || flags&unix.MSG_TRUNC != 0:
		case pid == os.Getpid():
			n.flushed(string(text[:size]))
		default:
			use(pid, strings.ToValidUTF8(string(text[:size]), "\uFFFD"), fds)
		}
		for _, fd := range fds {
			if fd >= 0 {
				_ = unix.Close(fd) // another's file
			}
		}
		dropDatagram(conn)
	}
}

// sender reads the pid from the control messages of a datagram, 0 when there is none, and the descriptors.
func sender(control []byte) (pid int, fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for _, m := range messages {
		if passed, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, passed...)
		}
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid, fds
}

// notified takes a datagram of a process that the keeper runs, and ignores every other.
func (k *Keeper) notified(pid int, text string, fds []int) {
	n := parseNotice(text)
	group, run := lineage(pid)
	var main proc
	var mainGroup []int
	var mainRun string
	if n.mainPID > 0 {
		main, _ = readProc(n.mainPID) // zero when there is none: nobody's
		mainGroup, mainRun = lineage(main.pid)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.ownerLocked(group, run)
	if r == nil || r.reaped || !r.spec.Notify || !r.hears(pid) {
		k.log.Debug("notification of a stranger ignored", "pid", pid)
		return
	}
	if n.mainPID > 0 && k.ownerLocked(mainGroup, mainRun) != r {
		k.log.Warn("MAINPID of a stranger ignored", "process", r.spec.Name, "pid", n.mainPID)
		n.mainPID = 0
	}
	if n.mainPID > 0 {
		r.main = main.identity
	}
	r.take(n, Monotonic())
	if n.forget {
		k.store.removeLocked(r.spec.store(), n.fdName)
	}
	if n.keep {
		k.storeLocked(r.spec.store(), n, fds)
	}
	k.depositRecord(r)
	k.emitLocked(Event{Kind: EventNotify, Process: k.processLocked(r), Notify: text})
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
