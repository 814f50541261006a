package keeper

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxStoredFiles bounds the descriptors that are kept for one process, and maxStoredTotal all of them: the keeper
	// needs its own.
	maxStoredFiles = 64
	maxStoredTotal = 512
	// defaultFDName is the FDNAME of systemd for a file that was given none.
	defaultFDName = "stored"
)

// fdStore keeps descriptors that processes gave with FDSTORE=1, for their next run: a connection or a memory file
// outlives a crash or a restart so. What hangs up meanwhile is dropped. Its fields are guarded by Keeper.mu.
type fdStore struct {
	files map[string][]storedFile // by the name of the store
	total int
	last  int // number of the last one
	epoll int // -1 before open
	wake  int // eventfd that ends watch

	withdraw func(key string) // takes a file from the standby
}

type storedFile struct {
	heldFile
	key string // of the standby's entry
	fd  int
}

func (s *fdStore) open(withdraw func(key string)) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch stored descriptors: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("watch stored descriptors: %w", err), unix.Close(epoll))
	}
	s.files, s.epoll, s.wake, s.withdraw = map[string][]storedFile{}, epoll, wake, withdraw
	return nil
}

// watchStored drops stored files that have hung up, until the keeper's end.
func (k *Keeper) watchStored(ended <-chan struct{}) {
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(k.store.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			k.log.Error("stored descriptors not watched", "error", err)
			return
		}
		select {
		case <-ended:
			return
		default:
		}
		k.mu.Lock()
		for _, e := range events[:max(0, n)] {
			if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				k.store.dropLocked(func(_ string, f storedFile) bool { return f.fd == int(e.Fd) })
			}
		}
		k.mu.Unlock()
	}
}

// end wakes watchStored, which sees that the keeper has ended.
func (s *fdStore) end() {
	_, _ = unix.Write(s.wake, binary.NativeEndian.AppendUint64(nil, 1)) // an eventfd takes 2^64-2 of these
}

// close gives everything up; watchStored has returned.
func (s *fdStore) close() {
	s.withdraw = func(string) {} // the standby has been told goodbye
	s.dropLocked(func(string, storedFile) bool { return true })
	_, _ = unix.Close(s.epoll), unix.Close(s.wake)
}

// storeLocked keeps the descriptors of a notification. Those beyond the bounds are left to be closed.
func (k *Keeper) storeLocked(process string, n notice, fds []int) {
	s := &k.store
	name := n.fdName
	if name == "" {
		name = defaultFDName
	}
	for i, fd := range fds {
		if len(s.files[process]) >= maxStoredFiles || s.total >= maxStoredTotal {
			k.log.Warn("descriptors not stored: there are too many", "process", process, "stored", len(s.files[process]))
			return
		}
		s.last++
		key, held := keyStored+strconv.Itoa(s.last), heldFile{Process: process, Name: name, Polled: !n.unpolled}
		if err := k.deposit(opPut, key, held, fd); err != nil {
			k.log.Warn("descriptor not left with the standby", "process", process, "error", err)
		}
		k.keepFileLocked(key, held, fd)
		fds[i] = -1
	}
}

func (k *Keeper) keepFileLocked(key string, h heldFile, fd int) {
	s := &k.store
	if h.Polled {
		// A file on disk cannot be polled (EPERM) and does not hang up.
		err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd)})
		if err != nil && !errors.Is(err, unix.EPERM) {
			k.log.Warn("stored descriptor not watched", "process", h.Process, "error", err)
		}
	}
	s.files[h.Process] = append(s.files[h.Process], storedFile{h, key, fd})
	s.total++
}

// takeStoredLocked takes a file over from an earlier keeper.
func (k *Keeper) takeStoredLocked(key string, e *entry) error {
	var h heldFile
	if err := json.Unmarshal(e.value, &h); err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(key, keyStored))
	if err != nil || len(e.fds) != 1 {
		return fmt.Errorf("stored file %s with %d descriptors", key, len(e.fds))
	}
	k.store.last = max(k.store.last, n)
	k.keepFileLocked(key, h, e.fds[0])
	return nil
}

// removeLocked drops the files of a process that have a name; "" means all of them.
func (s *fdStore) removeLocked(process, name string) {
	s.dropLocked(func(p string, f storedFile) bool { return p == process && (name == "" || f.Name == name) })
}

func (s *fdStore) dropLocked(gone func(process string, f storedFile) bool) {
	for process, files := range s.files {
		files = slices.DeleteFunc(files, func(f storedFile) bool {
			if !gone(process, f) {
				return false
			}
			// A file that others have open too stays in an epoll after close.
			_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, f.fd, nil) // it may not have been polled
			_ = unix.Close(f.fd)                                      // whoever wrote to it knows its errors
			s.withdraw(f.key)
			s.total--
			return true
		})
		if s.files[process] = files; len(files) == 0 {
			delete(s.files, process)
		}
	}
}

// store is the name under which the descriptors of a process are kept.
func (s Spawn) store() string { return cmp.Or(s.Store, s.Name) }

// unstore drops what is kept for a process and for those that share its store.
func (k *Keeper) unstore(process string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	store := process
	if r := k.records[process]; r != nil {
		store = r.spec.store()
	}
	k.store.removeLocked(store, "")
}
