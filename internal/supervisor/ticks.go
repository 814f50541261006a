package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxTicksBytes bounds the file of ticks: a thousand instances take a fifth of it.
const maxTicksBytes = 1 << 20

// tickRecord is what outlives a supervisor of a scheduled instance.
type tickRecord struct {
	Tick   time.Time  `json:"tick"`             // the newest that was dealt with
	Queued *time.Time `json:"queued,omitempty"` // the one that waits for the run before it
	Last   *lastRun   `json:"last,omitempty"`
}

// lastRun is a run of an instance that has ended.
type lastRun struct {
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Result  string        `json:"result"` // "exit status 0"
}

// ticks remembers which ticks were dealt with, in a 0600 file, so that the next supervisor neither repeats nor forgets one.
// Without a path nothing outlives the supervisor but the tick of a process that the keeper knows.
type ticks struct {
	path string

	mu      sync.Mutex // guards records and the file
	records map[string]tickRecord
}

// load reads the file. One that is missing is empty; one that cannot be read is, too, and that is an error.
func (t *ticks) load() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records = make(map[string]tickRecord)
	if t.path == "" {
		return nil
	}
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxTicksBytes)).Decode(&t.records); err != nil {
		t.records = make(map[string]tickRecord)
		return fmt.Errorf("read %s: %w", t.path, err)
	}
	return nil
}

func (t *ticks) get(name string) tickRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.records[name]
}

// put remembers r, on disk and past a loss of power when it returns nil.
func (t *ticks) put(name string, r tickRecord) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records[name] = r
	return t.writeLocked()
}

func (t *ticks) drop(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.records[name]; !known {
		return nil
	}
	delete(t.records, name)
	return t.writeLocked()
}

func (t *ticks) writeLocked() error {
	if t.path == "" {
		return nil
	}
	content, err := json.Marshal(t.records)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(t.path), filepath.Base(t.path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", t.path, err), os.Remove(f.Name()))
	}
	return nil
}
