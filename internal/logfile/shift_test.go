package logfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// A rotation, or a compression, may be cut off between any two of its steps. What is on disk then is made here: every
// line is read once, before and after the next rotation.
func TestHalfDoneRotationLosesNothing(t *testing.T) {
	t.Parallel()
	rename := func(from, to string) func(string) error {
		return func(path string) error { return os.Rename(path+from, path+to) }
	}
	for name, steps := range map[string][]func(string) error{
		"oldest moved":             {rename(".2", ".3")},
		"oldest and index moved":   {rename(".2", ".3"), rename(".2.idx", ".3.idx")},
		"second moved":             {rename(".2", ".3"), rename(".2.idx", ".3.idx"), rename(".1", ".2")},
		"present moved":            {rename(".2", ".3"), rename(".2.idx", ".3.idx"), rename(".1", ".2"), rename(".1.idx", ".2.idx"), rename("", ".1")},
		"all moved":                {rename(".2", ".3"), rename(".2.idx", ".3.idx"), rename(".1", ".2"), rename(".1.idx", ".2.idx"), rename("", ".1"), rename(".idx", ".1.idx")},
		"compressed, not replaced": {compressCopy(".2")},
		"half compressed":          {func(path string) error { return os.WriteFile(path+".tmp.zst", []byte("half"), 0o600) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWritten(t, 5)
			for i := range 3 {
				w.write(fmt.Sprintf("line %d\n", i))
				if i < 2 {
					w.rotate()
				}
			}
			for _, step := range steps {
				must(t, step(w.path))
			}
			expect(t, "as it was left", all(t, w.reader()), "line 0", "line 1", "line 2")
			w.close()
			size := int64(-1)
			if info, err := os.Stat(w.path); err == nil {
				size = info.Size()
			}
			w.open(size, 0)
			w.write("line 3\n")
			w.rotate()
			w.compress()
			w.write("line 4\n")
			expect(t, "after the next rotation", all(t, w.reader()), "line 0", "line 1", "line 2", "line 3", "line 4")
			left, err := filepath.Glob(w.path + "*")
			must(t, err)
			for _, name := range left {
				if strings.Contains(name, ".tmp") {
					t.Errorf("%s is left", name)
				}
				if raw, ok := strings.CutSuffix(name, ".zst"); ok {
					if _, err := os.Stat(raw); err == nil {
						t.Errorf("%s is there beside %s", raw, name)
					}
				}
			}
		})
	}
}

// compressCopy leaves the original beside its compressed file, as a crash before the original's removal does.
func compressCopy(slot string) func(string) error {
	return func(path string) error {
		data, err := os.ReadFile(path + slot)
		if err != nil {
			return err
		}
		var none noLock
		if err := logfile.Compress(nil, path, none); err != nil {
			return err
		}
		return os.WriteFile(path+slot, data, 0o600)
	}
}

type noLock struct{}

func (noLock) Lock()   {}
func (noLock) Unlock() {}

func TestFewerFilesAreKeptFromNowOn(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 9)
	for i := range 8 {
		w.write(fmt.Sprintf("line %d\n", i))
		w.rotate()
		if i == 4 {
			w.compress()
		}
	}
	must(t, logfile.Prune(w.path, 2))
	expect(t, "pruned", all(t, w.reader()), "line 6", "line 7")
	w.keep = 0
	w.write("line 8\n")
	w.rotate()
	w.write("line 9\n")
	expect(t, "none kept", all(t, w.reader()), "line 9")
	left, err := filepath.Glob(w.path + "*")
	must(t, err)
	if len(left) != 2 {
		t.Errorf("left are %q, not the log and its index", left)
	}
}

// Compression stops when asked to, and leaves the file as it was.
func TestCompressionStops(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 2)
	w.write(strings.Repeat("text of a log\n", 100_000))
	w.rotate()
	stop := make(chan struct{})
	close(stop)
	must(t, logfile.Compress(stop, w.path, &w.names))
	left, err := filepath.Glob(w.path + ".*")
	must(t, err)
	if len(left) != 3 { // .1, .1.idx, .idx
		t.Errorf("left are %q", left)
	}
	w.compress()
	info, err := os.Stat(w.path + ".1.zst")
	must(t, err)
	if info.Mode().Perm() != 0o600 || info.Size() > w.size/10+100_000 {
		t.Errorf("compressed file: %v, %d bytes", info.Mode(), info.Size())
	}
	if got := len(all(t, w.reader())); got != 100_000 {
		t.Errorf("%d lines", got)
	}
}
