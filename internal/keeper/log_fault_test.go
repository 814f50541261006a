//go:build linux

package keeper_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// smallDisk is a file system of that size.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk; TestFullDiskStopsNoProcessAndIsCounted needs none")
	}
	dir := t.TempDir()
	if err := unix.Mount("hozo-test", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no small disk here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

const (
	counted      = 20000
	countedBytes = 20000*len("line  of a program that counts\n") + 10 + 2*90 + 3*900 + 4*9000 + 5*10000
)

func TestFullDiskDropsOutputAndTheCountIsExact(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := smallDisk(t, "size=256k") + "/count.log"
	k.spawn("count", "count", func(s *keeper.Spawn) { s.Log.Path = path }, fmt.Sprint(counted))
	p := k.await(keeper.EventExited, "count").Process
	if p.Exit.Code != 0 {
		t.Errorf("the process suffered: %+v", *p.Exit)
	}
	if written := size(path); p.LogDropped == 0 || written == 0 || written+int64(p.LogDropped) != int64(countedBytes) {
		t.Errorf("%d bytes written and %d dropped of %d", written, p.LogDropped, countedBytes)
	}
}

func TestFullDiskBlocksWhoWantsIt(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	disk := smallDisk(t, "size=256k")
	path := disk + "/count.log"
	k.spawn("count", "count", func(s *keeper.Spawn) { s.Log.Path, s.Log.Full = path, "block" }, fmt.Sprint(counted))
	other := k.spawn("drip", "drip", nil)
	until(t, "a full disk", func() bool {
		var stat unix.Statfs_t
		return unix.Statfs(disk, &stat) == nil && stat.Bfree == 0
	})
	if now := k.record("count"); now.Exit != nil || now.LogDropped != 0 {
		t.Errorf("the process did not wait: %+v", now)
	}
	before := size(k.state + "/logs/drip.log")
	until(t, "another's output", func() bool { return size(k.state+"/logs/drip.log") > before })
	if now := k.record("drip"); now.PID != other.PID || now.Exit != nil {
		t.Errorf("another suffers: %+v", now)
	}
	if err := unix.Mount("hozo-test", disk, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if p := k.await(keeper.EventExited, "count").Process; p.Exit.Code != 0 || p.LogDropped != 0 {
		t.Errorf("ended as %+v", p)
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) != countedBytes || !strings.HasSuffix(string(data), "line 19999 of a program that counts\n") {
		t.Errorf("%d bytes of %d, %v", len(data), countedBytes, err)
	}
}

func TestReadOnlyDiskStopsNoProcess(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	disk := smallDisk(t, "size=1m,ro")
	k.spawn("drip", "drip", func(s *keeper.Spawn) { s.Log.Path = disk + "/drip.log" })
	until(t, "dropped output", func() bool { return k.record("drip").LogDropped > 0 })
	if err := unix.Mount("hozo-test", disk, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	until(t, "output", func() bool {
		data, err := os.ReadFile(disk + "/drip.log")
		return err == nil && strings.HasPrefix(string(data), "hozo: ") && strings.Contains(string(data), "read-only file system\ndrop\n")
	})
}

func TestClosedOutputEndsItsCapture(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	before := filesOpen(t, k)
	p := k.spawn("mute", "mute", func(s *keeper.Spawn) { s.Notify = true })
	k.await(keeper.EventNotify, "mute")
	// All that is left of it in the keeper is its pidfd: neither pipe nor log, and so nothing that could spin.
	until(t, "the end of the capture", func() bool { return filesOpen(t, k) == before+1 })
	if now := k.record("mute"); now.PID != p.PID || now.Exit != nil {
		t.Errorf("the process is %+v", now)
	}
	k.rotate("mute")
}

// Somebody outside the tree holds the pipe: the exit is told all the same, and what he writes later goes nowhere.
func TestStrangerThatHoldsThePipeDelaysNoExit(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	p := k.spawn("begin", "begin", func(s *keeper.Spawn) { s.Notify = true })
	k.await(keeper.EventNotify, "begin")
	pipe, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", p.PID), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := k.client.Kill(limited(t), "begin"); err != nil {
		t.Fatal(err)
	}
	if e := k.await(keeper.EventExited, "begin"); e.Process.LogDropped != 0 {
		t.Errorf("ended as %+v", e.Process)
	}
	until(t, "the pipe's end", func() bool {
		_, err := pipe.WriteString("late\n")
		return errors.Is(err, syscall.EPIPE)
	})
	if got := k.log("begin"); !strings.HasPrefix(got, "begun") {
		t.Errorf("log %q", got)
	}
}

func TestLogThatIsRemovedOrRenamedBeginsAnew(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/logs/drip.log"
	k.spawn("drip", "drip", nil)
	output := func() {
		t.Helper()
		until(t, "output", func() bool {
			data, err := os.ReadFile(path)
			return err == nil && strings.HasPrefix(string(data), "drop\n") // no hole in its place
		})
	}
	for _, harm := range []func() error{
		func() error { return os.RemoveAll(k.state + "/logs") },
		func() error { return os.Rename(path, path+"-away") },
		func() error { return os.Remove(path + ".idx") },
		func() error { return os.Truncate(path, 0) },
	} {
		output()
		if err := harm(); err != nil {
			t.Fatal(err)
		}
	}
	output()
	if now := k.record("drip"); now.Exit != nil || now.LogDropped != 0 {
		t.Errorf("the process is %+v", now)
	}
}

func TestLogThatBecomesAFolderIsTriedAgain(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/logs/drip.log"
	k.spawn("drip", "drip", nil)
	until(t, "output", func() bool { return size(path) > 0 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// The keeper may have made it anew in between.
	until(t, "a folder in its place", func() bool { _ = os.Remove(path); return os.Mkdir(path, 0o700) == nil })
	until(t, "dropped output", func() bool { return k.record("drip").LogDropped > 0 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "output again", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(data), "missing here: open "+path+": is a directory\n") && strings.HasSuffix(string(data), "drop\n")
	})
}
