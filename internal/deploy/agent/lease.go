package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// lease is the right to change the host, of one run at a time. It is a lock of the kernel on a file, so it ends with the
// agent, whatever ends that; the file says who has it.
type lease struct{ f *os.File }

type holder struct {
	Run   string    `json:"run"`
	By    string    `json:"by"`
	Since time.Time `json:"since"`
}

func takeLease(dir, run, by string) (*lease, error) {
	path := filepath.Join(dir, "lease")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(path, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		has := held(path)
		return nil, errors.Join(&fault.Error{
			Code: "deploy/locked", What: fmt.Sprintf("another deploy is at work here: run %s of %s, since %s", has.Run, has.By, has.Since.Format(time.RFC3339)),
			Fix: "wait for it to end; a deploy that was killed gives the host free within 15 seconds",
		}, f.Close())
	}
	if err != nil {
		return nil, errors.Join(unwritable(path, err), f.Close())
	}
	text, err := json.Marshal(holder{run, by, time.Now().UTC()})
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(append(text, '\n'), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(unwritable(path, err), f.Close())
	}
	return &lease{f}, nil
}

// held says who has the lease, as far as the file tells.
func held(path string) holder {
	has := holder{Run: "unknown", By: "somebody"}
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &has) // it is being written: the words above stand
	}
	return has
}

func (l *lease) release() error { return l.f.Close() }
