package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// maxMarksBytes bounds the file of marks: a thousand instances take less than a tenth of it.
const maxMarksBytes = 1 << 20

// unborn stands for the run of an instance that was stopped before its first. Its mark is dropped when it is started.
const unborn = "-"

// marks remembers which runs a person has stopped, in a file, so that the next supervisor does not start them again.
// A mark names a run, not an instance: it means nothing once the instance has been started again, or once the keeper
// that knew the run is gone, so nobody has to take it back. Without a path nothing outlives the supervisor.
type marks struct {
	path string

	mu   sync.Mutex // guards runs and the file
	runs map[string]string
}

// load reads the file. One that is missing is empty; one that cannot be read is, too, and that is an error.
func (m *marks) load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = make(map[string]string)
	if m.path == "" {
		return nil
	}
	f, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxMarksBytes)).Decode(&m.runs); err != nil {
		m.runs = make(map[string]string)
		return fmt.Errorf("read %s: %w", m.path, err)
	}
	return nil
}

// keep drops the marks of runs that do not exist any more.
func (m *marks) keep(exists func(name, run string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.runs, func(name, run string) bool { return run != unborn && !exists(name, run) })
}

func (m *marks) has(name, run string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return run != "" && m.runs[name] == run
}

// put marks a run, on disk when it returns nil.
func (m *marks) put(name, run string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[name] = run
	return m.saveLocked()
}

// drop takes the mark of an instance that was stopped before its first run back.
func (m *marks) drop(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs[name] != unborn {
		return nil
	}
	delete(m.runs, name)
	return m.saveLocked()
}

func (m *marks) saveLocked() error {
	if m.path == "" {
		return nil
	}
	content, err := json.Marshal(m.runs)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(m.path), filepath.Base(m.path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", m.path, err), os.Remove(f.Name()))
	}
	return nil
}
