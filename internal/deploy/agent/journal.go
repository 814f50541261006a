package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// record is a line of the journal.
type record struct {
	Time   time.Time `json:"time"`
	Run    string    `json:"run"`
	By     string    `json:"by,omitempty"`
	What   string    `json:"what"` // one of the words below
	ID     string    `json:"id,omitempty"`
	Op     string    `json:"op,omitempty"`
	Notify []string  `json:"notify,omitempty"`
	Error  string    `json:"error,omitempty"`
}

// What a record says.
const (
	saysBegin   = "begin"   // a run
	saysChange  = "change"  // a resource is about to be changed, and then Notify is owed
	saysChanged = "changed" // it has been
	saysHandled = "handled" // a notification was dealt with
	saysFailed  = "failed"
	saysEnd     = "end" // the run has done all of it
)

// journal is the host's account of what deploys do to it: one line a record, only ever added to. It is also what is still
// owed after a run that was killed: who was notified and not dealt with. It is used by one goroutine, under the lease.
type journal struct {
	f       *os.File
	run, by string
	pending []string // ids of notified resources, in the order of their first notification
}

// maxJournal is when a journal is put aside, as journal.1, at the begin of a run that owes nothing: some 20,000 changes.
const maxJournal = 4 << 20

// openJournal reads what is owed. A last line that power or a full disk cut short is left out: what it announced has not
// been done.
func openJournal(dir, run, by string) (*journal, error) {
	path := filepath.Join(dir, "journal")
	j := &journal{run: run, by: by}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unwritable(path, err)
	}
	whole := j.read(text)
	if len(whole) > maxJournal && len(j.pending) == 0 {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, unwritable(path, err)
		}
		whole = nil
	}
	if j.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, unwritable(path, err)
	}
	if err := j.f.Truncate(int64(len(whole))); err != nil {
		return nil, errors.Join(unwritable(path, err), j.f.Close())
	}
	if _, err := j.f.Seek(0, 2); err != nil {
		return nil, errors.Join(unwritable(path, err), j.f.Close())
	}
	return j, nil
}

// read notes every record of a journal's text, and returns the part that is whole.
func (j *journal) read(text []byte) []byte {
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	for line := range bytes.Lines(whole) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			continue // of a torn page; the records around it stand by themselves
		}
		j.note(r)
	}
	return whole
}

// note brings what is owed up to date.
func (j *journal) note(r record) {
	switch r.What {
	case saysChange:
		for _, id := range r.Notify {
			if !slices.Contains(j.pending, id) {
				j.pending = append(j.pending, id)
			}
		}
	case saysHandled:
		j.pending = slices.DeleteFunc(j.pending, func(id string) bool { return id == r.ID })
	}
}

// add writes a record; with sync it is on disk when add returns.
func (j *journal) add(r record, sync bool) error {
	r.Time, r.Run = time.Now().UTC(), j.run
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if _, err := j.f.Write(append(line, '\n')); err != nil {
		return unwritable(j.f.Name(), err)
	}
	if sync {
		if err := j.f.Sync(); err != nil {
			return unwritable(j.f.Name(), err)
		}
	}
	j.note(r)
	return nil
}

func (j *journal) close() error { return j.f.Close() }

func unwritable(path string, err error) error {
	return &fault.Error{Code: "deploy/no-state", What: "the host's journal cannot be kept, so nothing was changed", Where: path, Fix: "make room on the host's disk, or see why it is read-only", Err: err}
}
