//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/logfile"
)

func TestRotatedLogLosesNoByte(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	const lines, size = 20000, 50000
	path := k.state + "/logs/count.log"
	k.spawn("count", "count", func(s *keeper.Spawn) { s.Log = keeper.Log{Path: path, MaxBytes: size, Keep: 50} },
		fmt.Sprint(lines))
	e := k.await(keeper.EventExited, "count")
	if e.Process.LogDropped != 0 || e.Process.Exit.Code != 0 {
		t.Fatalf("ended as %+v", e.Process)
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d of a program that counts\n", i)
	}
	var got string
	files := 0
	for i := 50; i >= 0; i-- {
		file := path
		if i > 0 {
			file = fmt.Sprintf("%s.%d", path, i)
		}
		data, err := os.ReadFile(file)
		if os.IsNotExist(err) && i > 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
		const rest = 40 // of the line that the limit fell in
		if len(data) > size+rest || !strings.HasSuffix(string(data), "\n") {
			t.Errorf("%s has %d bytes, or ends within a line", file, len(data))
		}
		got += string(data)
		files++
	}
	if got != want.String() {
		t.Errorf("%d files hold %d bytes, not the %d that were written", files, len(got), want.Len())
	}
	if files < 10 {
		t.Errorf("only %d files", files)
	}
}

func TestOldLogsAreDroppedBeyondKeep(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for keep := range 3 {
		name := fmt.Sprintf("count%d", keep)
		k.spawn(name, "count", func(s *keeper.Spawn) { s.Log.MaxBytes, s.Log.Keep = 10000, keep }, "5000")
		k.await(keeper.EventExited, name)
		if !strings.HasSuffix(k.log(name), "line 4999 of a program that counts\n") {
			t.Errorf("keep %d: last line is not last", keep)
		}
		for i := 1; i <= 4; i++ {
			_, err := os.Stat(fmt.Sprintf("%s/logs/%s.log.%d", k.state, name, i))
			if (err == nil) != (i <= keep) {
				t.Errorf("keep %d: file %d: %v", keep, i, err)
			}
		}
	}
}

func TestEndlessLineIsCopied(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	const mib = 100
	k.spawn("flood", "flood", func(s *keeper.Spawn) { s.Log.MaxBytes, s.Log.Keep = 30<<20, 9 }, fmt.Sprint(mib))
	if e := k.await(keeper.EventExited, "flood"); e.Process.Exit.Code != 0 || e.Process.LogDropped != 0 {
		t.Errorf("ended as %+v", e.Process)
	}
	files, err := logfile.List(k.state + "/logs/flood.log")
	if total := logSize(t, k.state+"/logs/flood.log"); err != nil || total != mib<<20 || len(files) != 4 {
		t.Errorf("%d bytes in %d files, %v", total, len(files), err)
	}
}

func TestFullDiskStopsNoProcessAndIsCounted(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := t.TempDir() + "/drip.log"
	if err := os.Symlink("/dev/full", path); err != nil { // every write to it is ENOSPC
		t.Fatal(err)
	}
	p := k.spawn("drip", "drip", func(s *keeper.Spawn) { s.Log.Path = path })
	until(t, "dropped output", func() bool { return k.record("drip").LogDropped > 0 })
	// Room again: the log is tried again by itself.
	if err := os.Symlink(path+".real", path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	until(t, "output in the log", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && strings.HasPrefix(string(data), "hozo: ") &&
			strings.Contains(string(data), " bytes of output are missing here: write "+path+": no space left on device\ndrop\n")
	})
	if now := k.record("drip"); now.PID != p.PID || now.Exit != nil {
		t.Errorf("the process did not live through it: %+v", now)
	}
}

// record is the keeper's present record of a process.
func (k *kept) record(name string) keeper.Process {
	k.t.Helper()
	processes, _, err := k.client.List(limited(k.t))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, p := range processes {
		if p.Name == name {
			return p
		}
	}
	k.t.Fatalf("no record of %s", name)
	return keeper.Process{}
}
