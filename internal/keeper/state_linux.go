package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxIdentitiesBytes bounds keeper.json when it is read: maxProcesses entries of less than 1 KiB.
const maxIdentitiesBytes = 1 << 20

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

// identities is keeper.json: whom the next keeper has to end when this one is killed.
type identities struct {
	BootID    string          `json:"boot_id"`
	Keeper    int             `json:"keeper"` // pid, for people
	Processes []namedIdentity `json:"processes"`
}

type namedIdentity struct {
	Name      string `json:"name"`
	Run       string `json:"run"`
	PID       int    `json:"pid"` // 0: about to be forked
	StartTime uint64 `json:"start_time"`
}

func identitiesPath(state string) string { return filepath.Join(state, "keeper.json") }

// saveLocked writes keeper.json with every process that may still live and those about to be forked. A disk that is
// full must stop no service, so an error is logged, once.
func (k *Keeper) saveLocked(coming ...namedIdentity) {
	ids := identities{BootID: k.hello.BootID, Keeper: k.hello.PID, Processes: coming}
	for _, r := range k.records {
		if r.exit == nil || len(r.exit.Survivors) > 0 {
			ids.Processes = append(ids.Processes, namedIdentity{r.spec.Name, r.run, r.pid, r.start})
		}
	}
	slices.SortFunc(ids.Processes, func(a, b namedIdentity) int { return strings.Compare(a.Name, b.Name) })
	err := writeIdentities(identitiesPath(k.cfg.State), ids)
	if err != nil && !k.saveErr {
		k.log.Error("identities of processes not saved", "error", err)
	}
	k.saveErr = err != nil
}

// writeIdentities replaces the file as a whole. It is not synced: after a loss of power there is nobody left to end.
func writeIdentities(path string, ids identities) error {
	data, err := json.MarshalIndent(ids, "", " ")
	if err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func readIdentities(path string) (identities, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identities{}, nil
	}
	if err != nil {
		return identities{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIdentitiesBytes))
	if err != nil {
		return identities{}, err
	}
	return parseIdentities(data)
}

func parseIdentities(data []byte) (identities, error) {
	var ids identities
	if err := json.Unmarshal(data, &ids); err != nil {
		return identities{}, err
	}
	for _, p := range ids.Processes {
		if p.PID < 0 || p.PID == 1 || p.Run == "" {
			return identities{}, fmt.Errorf("process %q has pid %d and run %q", p.Name, p.PID, p.Run)
		}
	}
	return ids, nil
}

func (k *Keeper) removeIdentities() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.records {
		if r.exit == nil || len(r.exit.Survivors) > 0 {
			k.saveLocked() // something could not be killed: the next keeper tries again
			return nil
		}
	}
	err := os.Remove(identitiesPath(k.cfg.State))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
