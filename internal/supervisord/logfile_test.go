//go:build linux

package supervisord

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogfileRotates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		maxBytes int64
		backups  int
		writes   []string
		want     map[string]string
	}{
		"never":              {0, 3, []string{"aaaa", "bbbb"}, map[string]string{"": "aaaabbbb"}},
		"when it is reached": {4, 2, []string{"aaaa", "bbbb", "cccc", "dd"}, map[string]string{"": "dd", ".1": "cccc", ".2": "bbbb"}},
		"a write stays one":  {4, 1, []string{"aa", "bbbbbbb", "c"}, map[string]string{"": "c", ".1": "aabbbbbbb"}},
		"without backups":    {4, 0, []string{"aaaa", "b"}, map[string]string{"": "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, err := openLog(filepath.Join(dir, "log"), c.maxBytes, c.backups)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, w := range c.writes {
				if _, err := l.Write([]byte(w)); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]string{}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				text, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				got[strings.TrimPrefix(e.Name(), "log")] = string(text)
			}
			if len(got) != len(c.want) {
				t.Errorf("files %q, want %q", got, c.want)
			}
			for name, text := range c.want {
				if got[name] != text {
					t.Errorf("log%s is %q, want %q", name, got[name], text)
				}
			}
		})
	}
}

func TestLogfileSurvivesWhatIsDoneToIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write := func(s string) {
		t.Helper()
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path, want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), got, err, want)
		}
	}
	write("one")
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	write("two")
	read(path, "two")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	write("three") // as logrotate knows it: into the moved file until it is reopened
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("four")
	read(path+".moved", "twothree")
	read(path, "four")
}

func TestLogfileCountsWhatItLoses(t *testing.T) {
	t.Parallel()
	l, err := openLog("/dev/full", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var lost int64
	var cause error
	l.gap = func(n int64, err error) { lost, cause = n, err }
	for range 2 {
		if n, err := l.Write([]byte("12345")); n != 5 || err != nil {
			t.Fatalf("a full disk failed the writer: %d, %v", n, err)
		}
	}
	if lost != 0 {
		t.Errorf("told of %d bytes while the disk was still full", lost)
	}
	l.path = filepath.Join(t.TempDir(), "log")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if lost != 10 || cause == nil || errors.Is(cause, os.ErrNotExist) {
		t.Errorf("told of %d lost bytes (%v), want 10", lost, cause)
	}
}
