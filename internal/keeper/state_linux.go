package keeper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// claim makes the state directory private and takes its lock, which ends with the last process that has the file open,
// whatever ends them.
func claim(dir string) (*os.File, error) {
	if err := makePrivate(dir); err != nil {
		return nil, fmt.Errorf("prepare state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open keeper's lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 32)) // only for the message
		what := "a keeper already runs"
		if pid := strings.TrimSpace(string(holder)); pid != "" {
			what += " (process " + pid + ")"
		}
		running := misuse("running", what, "hozo down, or another --state DIR")
		running.Where = dir
		return nil, errors.Join(running, f.Close())
	}
	if err == nil {
		err = signLock(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock state directory: %w", err), f.Close())
	}
	return f, nil
}

// releaseLock gives a state directory up, whoever else has the descriptor.
func releaseLock(fd int) error { return unix.Flock(fd, unix.LOCK_UN) }

// signLock writes the pid of this process into the lock, for people.
func signLock(file *os.File) error {
	err := file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

// makePrivate makes a directory, or takes one that is ours away from everybody else.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSticky != 0 {
		e := misuse("bad-state", "state directory is shared by all users", "--state DIR, a directory of its own")
		e.Where = dir
		return e
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return os.Chmod(dir, 0o700)
}

// listenPrivate opens a unix socket with mode 0600 in a directory that only this keeper uses; what is there is stale.
func listenPrivate(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.SetUnlinkOnClose(false) // others have the descriptor too
	return l, nil
}
