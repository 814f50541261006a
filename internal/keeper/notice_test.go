//go:build linux

package keeper_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
)

func notifying(s *keeper.Spawn) { s.Notify = true }

func TestEverythingThatAProcessSaysIsRecorded(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	began := keeper.Monotonic()
	k.spawn("a", "notify", notifying,
		"READY=1", "WATCHDOG=1", "RELOADING=1\nMONOTONIC_USEC=1", "READY=1", "WATCHDOG_USEC=2000000", "EXTEND_TIMEOUT_USEC=60000000",
		"WATCHDOG=trigger", "STOPPING=1\nSTATUS=a\tb\x1b[2J", "MAINPID=1", "MAINPID="+strconv.Itoa(os.Getpid()), "EXTEND_TIMEOUT_USEC=99999999999999999999")
	said := func() keeper.Said { return k.await(keeper.EventNotify, "a").Process.Said }
	if s := said(); s != (keeper.Said{}) {
		t.Errorf("after READY: %+v", s)
	}
	ping := said()
	if ping.Pinged < began || ping.Pinged > keeper.Monotonic() {
		t.Errorf("pinged at %s, not since %s", ping.Pinged, began)
	}
	if !said().Reloading || said().Reloading {
		t.Error("RELOADING=1 is not shown until READY=1")
	}
	if s := said(); s.Watchdog == nil || *s.Watchdog != 2*time.Second || s.Pinged < ping.Pinged {
		t.Errorf("after WATCHDOG_USEC: %+v", s)
	}
	if s := said(); s.Extended < began+time.Minute || s.Extended > keeper.Monotonic()+time.Minute {
		t.Errorf("extended until %s", s.Extended)
	}
	if !said().Trigger {
		t.Error("trigger is lost")
	}
	if p := k.await(keeper.EventNotify, "a").Process; !p.Said.Stopping || p.Status != "a b [2J" {
		t.Errorf("after STOPPING: %+v", p)
	}
	for _, whose := range []string{"init", "the test"} {
		if s := said(); s.MainPID != 0 {
			t.Errorf("the pid of %s is taken for its main process", whose)
		}
	}
	if s := said(); s.Extended > keeper.Monotonic()+time.Minute {
		t.Errorf("a number that is none extends until %s", s.Extended)
	}
}

func TestNotifyAccessDecidesWhoIsHeard(t *testing.T) {
	t.Parallel()
	for first, heard := range map[string]bool{"NOTIFYACCESS=all": true, "X=1": true, "NOTIFYACCESS=main": false, "NOTIFYACCESS=exec": false} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			k := startKeeper(t)
			k.spawn("a", "through", notifying, first, "STATUS=of the child", "READY=1")
			for {
				p := k.await(keeper.EventNotify, "a").Process
				if p.Ready {
					if got := p.Status == "of the child"; got != heard {
						t.Errorf("its child is heard: %v", got)
					}
					return
				}
			}
		})
	}
	k := startKeeper(t)
	k.spawn("mute", "notify", notifying, "NOTIFYACCESS=none", "READY=1")
	k.spawn("loud", "notify", notifying, "READY=1")
	k.await(keeper.EventNotify, "mute")
	k.await(keeper.EventNotify, "loud")
	if k.record("mute").Ready {
		t.Error("a process that asked not to be heard is")
	}
}

func TestWatchdogIsAnnounced(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	p := k.spawn("a", "env", func(s *keeper.Spawn) {
		s.Watchdog = 1500 * time.Millisecond
		s.Env = append(s.Env, "WATCHDOG_USEC=7", "WATCHDOG_PID=7")
	})
	k.spawn("b", "env", func(s *keeper.Spawn) { s.Env = append(s.Env, "WATCHDOG_USEC=7", "WATCHDOG_PID=7") })
	k.await(keeper.EventExited, "a")
	k.await(keeper.EventExited, "b")
	log := k.log("a")
	if !strings.Contains(log, "WATCHDOG_USEC=1500000\n") || !strings.Contains(log, "WATCHDOG_PID="+strconv.Itoa(p.PID)+"\n") || strings.Contains(log, "LISTEN_PID") {
		t.Errorf("it sees %s", log)
	}
	if log := k.log("b"); strings.Contains(log, "WATCHDOG") {
		t.Errorf("without one it sees %s", log)
	}
}

func TestLineOfOutputIsSeen(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	// Rotated many times before the line comes.
	p := k.spawn("a", "count", func(s *keeper.Spawn) { s.ReadyLine, s.Log.MaxBytes, s.Log.Keep = `^line 4321 .*counts$`, 4096, 1 }, "5000")
	if e := k.await(keeper.EventLine, "a"); !e.Process.Line || e.Process.Run != p.Run {
		t.Errorf("got %+v", e)
	}
	k.spawn("b", "count", func(s *keeper.Spawn) { s.ReadyLine = `^line 1 of$` }, "100")
	if e := k.await(keeper.EventExited, "b"); e.Process.Line {
		t.Error("a part of a line that is to match whole does")
	}
	k.spawn("c", "flood", func(s *keeper.Spawn) { s.ReadyLine = `y` }, "2")
	k.await(keeper.EventExited, "c")
	if _, err := k.trySpawn("d", "wait", func(s *keeper.Spawn) { s.ReadyLine = `(` }); err == nil || !strings.Contains(err.Error(), "ready line of d") {
		t.Errorf("a broken pattern: %v", err)
	}
}

func TestMainPIDMakesAForkedProcessTheService(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	leader := k.spawn("a", "daemon", notifying, "7")
	var main keeper.Process
	for main.PID == 0 || main.PID == leader.PID || !main.Ready {
		main = k.await(keeper.EventNotify, "a").Process
	}
	if main.Said.MainPID != main.PID || main.Run != leader.Run || birth(main.PID) == "" {
		t.Errorf("after the fork: %+v", main)
	}
	if err := k.client.Signal(limited(t), "a", syscall.SIGUSR1, false); err != nil {
		t.Fatal(err)
	}
	if e := k.await(keeper.EventExited, "a"); e.Process.Exit.Code != 7 {
		t.Errorf("its status is %+v", e.Process.Exit)
	}
}

func TestMainPIDIsKilledWithItsTree(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	leader := k.spawn("a", "daemon", notifying, "7")
	until(t, "main process", func() bool { return k.record("a").PID != leader.PID })
	pid := k.record("a").PID
	if err := k.client.Kill(limited(t), "a"); err != nil {
		t.Fatal(err)
	}
	if e := k.await(keeper.EventExited, "a"); e.Process.Exit.Signal != int(syscall.SIGKILL) || birth(pid) != "" {
		t.Errorf("it ended by %+v; %q lives", e.Process.Exit, birth(pid))
	}
}
