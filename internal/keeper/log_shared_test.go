package keeper_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// A process that replaces another of its instance writes the same log for a while.
func TestTwoProcessesShareALogAndEveryLineIsWhole(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	const lines, keep = 20000, 100
	path := k.state + "/logs/web.1.log"
	names := []string{"web.1", "web.1+"}
	for _, name := range names {
		k.spawn(name, "count", func(s *keeper.Spawn) { s.Log = keeper.Log{Path: path, MaxBytes: 50000, Keep: keep} }, fmt.Sprint(lines))
	}
	for _, name := range names {
		if e := k.await(keeper.EventExited, name); e.Process.LogDropped != 0 || e.Process.Exit.Code != 0 {
			t.Fatalf("ended as %+v", e.Process)
		}
	}
	got := map[string]int{}
	files := 0
	for i := range keep + 1 {
		file := path
		if i > 0 {
			file = fmt.Sprintf("%s.%d", path, i)
		}
		data, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files++
		for line := range strings.Lines(string(data)) {
			got[line]++
		}
	}
	for i := range lines {
		if line := fmt.Sprintf("line %d of a program that counts\n", i); got[line] != len(names) {
			t.Errorf("%q is there %d times", line, got[line])
		}
	}
	if len(got) != lines || files < 20 {
		t.Errorf("%d files hold %d lines, %d were written by each", files, len(got), lines)
	}
}

// Whoever has begun a line ends it before the other writes, and a line is begun only when there is nothing else.
func TestLineIsNotCutByTheOtherProcess(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/out.log"
	shared, err := keeper.ShareLog(path, 2)
	if err != nil {
		t.Fatal(err)
	}
	a, b := shared[0], shared[1]
	print := func(c keeper.Capturing, text string) {
		t.Helper()
		if err := c.Print(text); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Fatalf("log is %q, want %q; %v", got, want, err)
		}
	}
	print(a, "one\ntw")
	a.Turn()
	holds("one\n")
	print(a, "o\n")
	a.Turn()
	holds("one\ntwo\n")

	long := strings.Repeat("x", 64<<10) // more than is looked at
	print(a, long)
	a.Turn()
	holds("one\ntwo\n" + long)
	print(b, "other\n")
	if !b.Turn() {
		t.Error("the other does not wait for the end of the line")
	}
	print(a, "x\nthr")
	a.Turn()
	if b.Turn() {
		t.Error("the other waits for a line that has ended")
	}
	holds("one\ntwo\n" + long + "x\nother\n")

	// What a process has not ended when it ends is written nevertheless.
	if err := errors.Join(a.Exit(), b.Exit()); err != nil {
		t.Fatal(err)
	}
	a.Turn()
	holds("one\ntwo\n" + long + "x\nother\nthr")
	a.Close()
	b.Close()
}
