package keeper

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// collect reads everything that the standby hands over.
func (k *Keeper) collect() (map[string]*entry, error) {
	entries := map[string]*entry{}
	for {
		p, err := k.link.receive()
		if err != nil {
			return nil, fmt.Errorf("take over from the standby: %w", err)
		}
		switch p.Op {
		case opPut:
			entries[p.Key] = &entry{p.Value, p.fds}
		case opHello:
			k.standbyIs(p.Value)
		case opGo:
			return entries, nil
		default:
			closeAll(p.fds)
		}
	}
}

// takeBase opens what every keeper has from its standby.
func (k *Keeper) takeBase(entries map[string]*entry) error {
	k.base = map[string]int{}
	for _, key := range []string{keyLock, keyClients, keyNotify, keyPublicNotify} {
		e := entries[key]
		if e == nil && key == keyPublicNotify {
			continue
		}
		if e == nil || len(e.fds) != 1 {
			return fmt.Errorf("take over from the standby: no %s", key)
		}
		k.base[key] = e.fds[0]
	}
	clients, err := fileOf(k.base[keyClients], net.FileListener)
	if err != nil {
		return fmt.Errorf("take over listener of clients: %w", err)
	}
	k.clients = clients
	k.notifier = &notifier{path: notifyPath(k.cfg.State), extra: make(chan *net.UnixConn, 1), flushes: map[string]chan struct{}{}}
	if k.notifier.conn, err = datagrams(k.base[keyNotify]); err != nil {
		return errors.Join(fmt.Errorf("take over notification socket: %w", err), clients.Close())
	}
	if fd, ok := k.base[keyPublicNotify]; ok {
		if k.notifier.public, err = datagrams(fd); err != nil {
			return errors.Join(fmt.Errorf("take over public notification socket: %w", err), clients.Close())
		}
		k.notifier.extra <- k.notifier.public
	}
	return nil
}

// fileOf opens a duplicate of a descriptor.
func fileOf[T any](fd int, open func(*os.File) (T, error)) (T, error) {
	var none T
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	file := os.NewFile(uintptr(dup), "inherited")
	defer file.Close()
	return open(file)
}

// duplicateConn returns another descriptor of a socket.
func duplicateConn(conn *net.UnixConn) (int, error) {
	file, err := conn.File()
	if err != nil {
		return -1, err
	}
	defer file.Close()
	return duplicate(file)
}

func datagrams(fd int) (*net.UnixConn, error) {
	conn, err := fileOf(fd, net.FilePacketConn)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is not of unix datagrams", conn), conn.Close())
	}
	return unixConn, nil
}

// takeRest makes sockets and records of what an earlier keeper left. A damaged entry is logged and left out: the others
// are worth more than a keeper that does not start.
func (k *Keeper) takeRest(entries map[string]*entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []*record
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		var err error
		if name, ok := strings.CutPrefix(key, keySocket); ok {
			err = k.takeSocketLocked(name, e)
		} else if _, ok := strings.CutPrefix(key, keyStored); ok {
			err = k.takeStoredLocked(key, e)
		} else if _, ok := strings.CutPrefix(key, keyProcess); ok {
			var r *record
			if r, err = k.takeRecordLocked(e); r != nil {
				found = append(found, r)
			}
		} else if _, known := k.base[key]; !known {
			closeAll(e.fds) // of a newer keeper
		}
		if err != nil {
			k.log.Error("entry of the last keeper not understood", "key", key, "error", err)
			closeAll(e.fds)
			k.withdraw(key)
		}
	}
	if len(found) == 0 {
		return
	}
	all, err := k.census.take()
	if err != nil {
		k.log.Error("trees not looked for", "error", err)
		all = &scan{}
	}
	for _, r := range found {
		k.adoptLocked(r, all)
	}
	k.saveLocked()
}

func (k *Keeper) takeSocketLocked(name string, e *entry) error {
	var h heldSocket
	if err := json.Unmarshal(e.value, &h); err != nil {
		return err
	}
	if len(e.fds) != 1 {
		return fmt.Errorf("socket with %d descriptors", len(e.fds))
	}
	k.sockets[name] = &socket{asked: h.Asked, network: h.Network, address: h.Address, file: os.NewFile(uintptr(e.fds[0]), name)}
	return nil
}

// takeRecordLocked makes the record of a process and goes on with its log; whether the process still lives is not known
// yet.
func (k *Keeper) takeRecordLocked(e *entry) (*record, error) {
	var h heldProcess
	if err := json.Unmarshal(e.value, &h); err != nil {
		return nil, err
	}
	if h.Run == "" || len(h.Spec.Argv) == 0 || h.PID < 0 || h.PID == 1 {
		return nil, fmt.Errorf("process %q has pid %d and run %q", h.Spec.Name, h.PID, h.Run)
	}
	r := &record{
		spec: h.Spec, run: h.Run, pid: h.PID, start: h.Start, started: h.Started, since: h.Since, ready: h.Ready, status: h.Status,
		said: h.Said, access: h.Access, main: identity{h.Said.MainPID, h.Main}, line: h.Line,
		ended: h.Ended, exit: h.Exit, unmet: h.Unmet, pidfd: -1, done: make(chan struct{}),
	}
	r.tree = newTree(r.run, identity{r.pid, r.start})
	r.tree.census = &k.census
	r.group = k.groups.find(h.Spec.Name, h.Run)
	r.capture = resumeCapture(h.Spec.Log, k.log.With("process", h.Spec.Name), k.logs)
	r.capture.dropped.Store(h.Dropped)
	k.records[h.Spec.Name] = r
	if h.Exit != nil {
		closeAll(e.fds)
		r.capture.close()
		close(r.capture.done)
		r.reaped = true
		close(r.done)
		return nil, nil
	}
	if len(e.fds) > 0 {
		r.capture.pipe = os.NewFile(uintptr(e.fds[0]), "output")
		k.matchLine(r)
		k.wg.Go(r.capture.run)
	} else { // an earlier keeper gave its output up
		r.capture.close()
		close(r.capture.done)
	}
	if len(e.fds) > 1 {
		r.pidfd = e.fds[1]
	}
	return r, nil
}

// adoptLocked finds out what became of a process that an earlier keeper started, or was about to start.
func (k *Keeper) adoptLocked(r *record, all *scan) {
	if r.pid == 0 && !k.findForkedLocked(r, all.procs) {
		k.log.Info("process was not started before its keeper ended", "process", r.spec.Name)
		r.capture.abandon()
		r.group.remove()
		delete(k.records, r.spec.Name)
		k.withdraw(keyProcess + r.spec.Name)
		close(r.done)
		return
	}
	if r.ended != nil { // the earlier keeper has taken its status
		r.reaped = true
		k.dropPidfd(r)
		exit := *r.ended
		k.wg.Go(func() { k.finish(r, exit) })
		return
	}
	p, err := readProc(r.pid)
	if err != nil || p.identity != r.tree.leader {
		k.log.Warn("process ended while it had no keeper", "process", r.spec.Name, "pid", r.pid)
		r.parent = parentNone
		k.lostLocked(r)
		return
	}
	switch p.parent {
	case os.Getpid():
		r.parent = parentSelf
	case k.hello.Standby:
		r.parent = parentStandby
	default:
		r.parent = parentNone
	}
	if r.pidfd < 0 {
		if h, ok := openIdentity(p.identity); ok {
			r.pidfd = h.fd
		}
		k.depositRecord(r, pidfds(r)...)
	}
	k.live[r.pid] = r
	if !r.group.holds() {
		r.tree.findIn(all, false) // those who lose their leader later are known then
	}
	k.log.Info("process adopted", "process", r.spec.Name, "pid", r.pid, "parent", p.parent)
}

// pidfds is the pidfd of a record for a deposit, if there is one.
func pidfds(r *record) []int {
	if r.pidfd < 0 {
		return nil
	}
	return []int{r.pidfd}
}

// findForkedLocked looks for the child of a keeper that was killed between its fork and its word on it. The standby has
// it now; it has executed its program, or died, for the link of that keeper ended with the last child before its exec.
func (k *Keeper) findForkedLocked(r *record, all []proc) bool {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b proc) int { return cmp.Compare(a.start, b.start) })
	for _, p := range all {
		if p.parent != k.hello.Standby || p.session != p.pid || k.live[p.pid] != nil || k.known(p.pid) {
			continue
		}
		// A zombie has no environment any more; its name must do, and that it is nobody else's child.
		if carriesRun(p.pid, r.run) || p.dead && (p.name == programName(r.spec.Argv[0]) || p.name == programName(ownImage)) {
			r.pid, r.start = p.pid, p.start
			r.tree = newTree(r.run, p.identity)
			r.tree.census = &k.census
			return true
		}
	}
	return false
}

func (k *Keeper) known(pid int) bool {
	for _, r := range k.records {
		if r.pid == pid && !r.reaped {
			return true
		}
	}
	return false
}

// programName is the name that /proc shows of a program: the kernel keeps 15 bytes.
func programName(path string) string {
	const shown = 15
	name := filepath.Base(path)
	return name[:min(len(name), shown)]
}

// disinheritLocked says goodbye to the children of a standby that is gone: nobody tells how they end any more.
func (k *Keeper) disinheritLocked() {
	for _, r := range k.live {
		if r.parent == parentStandby {
			r.parent = parentNone
		}
	}
	k.watchForeignLocked()
}

// lostLocked takes the end of a process that was nobody's child here.
func (k *Keeper) lostLocked(r *record) {
	exit := Exit{Code: -1, Time: time.Now(), At: Monotonic()} // nobody knows: never 0
	if status, ok := foreignStatus(r.pidfd, r.leader()); ok {
		exit = exitOf(status, exit.Time)
	}
	if !r.group.holds() {
		if _, err := r.tree.find(false); err != nil {
			k.log.Error("rest of a tree not looked for", "process", r.spec.Name, "error", err)
		}
	}
	k.leaderEndedLocked(r, exit)
}
