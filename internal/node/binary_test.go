package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestDigestFollowsTheContentOfAProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.TempDir(t), "program")
	put := func(content string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+".new", at, at); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	b := newBinaries()
	if got := b.digest(path, true); got != "" {
		t.Errorf("a program that is not there has the digest %q", got)
	}
	now := time.Now()
	put("one", now)
	one := b.digest(path, true)
	put("two", now) // the same size and time: the inode tells them apart
	if got := b.digest(path, false); got != one {
		t.Errorf("a build that nobody has applied counts: %s, was %s", got, one)
	}
	two := b.digest(path, true)
	put("one", now.Add(time.Hour)) // built again with the same outcome
	if again := b.digest(path, true); one == "" || two == one || again != one {
		t.Errorf("digests are %s, %s and %s", one, two, again)
	}

	next := newBinaries()
	next.load(b.save(map[string]bool{path: true}))
	put("three", now)
	if got := next.digest(path, false); got != one {
		t.Errorf("the next node sees %s, the last one %s", got, one)
	}
	if got := next.digest(path, true); got == one {
		t.Error("an apply of the next node does not see the build")
	}
}
