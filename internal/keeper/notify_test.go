//go:build linux

package keeper_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

func TestNotificationsOfAChildAreTaken(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("a", "notify", func(s *keeper.Spawn) { s.Notify = true },
		"STATUS=warming up", "READY=1\nSTATUS=at work\nX_OWN=1", "RELOADING=1", "STOPPING=1")
	for _, want := range []struct {
		text, status string
		ready        bool
	}{
		{"STATUS=warming up", "warming up", false},
		{"READY=1\nSTATUS=at work\nX_OWN=1", "at work", true},
		{"RELOADING=1", "at work", true},
		{"STOPPING=1", "at work", true},
	} {
		e := k.await(keeper.EventNotify, "a")
		if e.Notify != want.text || e.Process.Status != want.status || e.Process.Ready != want.ready {
			t.Errorf("got %+v, want %+v", e, want)
		}
	}
}

func TestRecordsTellTheMonotonicTime(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	before := keeper.Monotonic()
	p := k.spawn("a", "exit", nil, "0")
	exit := k.await(keeper.EventExited, "a").Process.Exit
	if p.Since < before || exit.At < p.Since || exit.At > keeper.Monotonic() {
		t.Errorf("started at %s, ended at %s, between %s and %s", p.Since, exit.At, before, keeper.Monotonic())
	}
}

func TestNotificationsOfStrangersAreIgnored(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("quiet", "wait", nil)
	socket := k.state + "/notify.sock"
	stranger := startCommand(t, "say", socket, "READY=1\nSTATUS=forged")
	<-stranger.done
	if err := send(socket, "READY=1\nSTATUS=forged"); err != nil {
		t.Fatal(err)
	}
	// A child that was not asked to notify is one as well.
	k.spawn("unasked", "say", nil, socket, "READY=1")
	k.await(keeper.EventExited, "unasked")
	// Datagrams are taken in order: after this one the forged ones have been seen.
	k.spawn("loud", "notify", func(s *keeper.Spawn) { s.Notify = true }, "READY=1")
	if e := k.await(keeper.EventNotify, "loud"); !e.Process.Ready {
		t.Errorf("got %+v", e)
	}
	for _, name := range []string{"quiet", "unasked"} {
		if p := k.record(name); p.Ready || p.Status != "" {
			t.Errorf("forged notification taken: %+v", p)
		}
	}
	for _, e := range k.past {
		if e.Kind == keeper.EventNotify {
			t.Errorf("event of a forged notification: %+v", e)
		}
	}
}

func TestPassedDescriptorsAreClosed(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(c)
	to := &syscall.SockaddrUnix{Name: k.state + "/notify.sock"}
	if err := syscall.Sendmsg(c, []byte("BARRIER=1"), syscall.UnixRights(int(w.Fd())), to, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("barrier: %v", err)
	}
}

func TestServiceOfAnotherUserCanNotify(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	nobody := uint32(65534)
	dir, err := os.MkdirTemp("", "open") // t.TempDir is in a folder of the owner alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "program")
	binary, err := os.ReadFile(self())
	if err == nil {
		err = os.WriteFile(program, binary, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.trySpawn("other", "notify", func(s *keeper.Spawn) {
		s.Argv[0], s.Notify, s.UID, s.GID = program, true, &nobody, &nobody
	}, "READY=1")
	if os.Geteuid() != 0 {
		if fault.Code(err) != "keeper/not-permitted" {
			t.Errorf("without rights: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if e := k.await(keeper.EventNotify, "other"); !e.Process.Ready {
		t.Errorf("got %+v", e)
	}
}

func TestSlowReaderOfEventsIsCutOff(t *testing.T) {
	t.Parallel()
	k := startKeeper(t) // its events are not read in this test
	k.spawn("shouter", "shouter", func(s *keeper.Spawn) { s.Notify = true }, "10000")
	until(t, "shouter's last word", func() bool { return k.record("shouter").Ready }) // the keeper never waited
	last := ""
	for e := range k.events {
		last = e.Notify
	}
	if strings.Contains(last, "READY") {
		t.Error("a reader that slept through 10000 events got them all")
	}
	// The client lists and subscribes again.
	events, err := k.client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.events = events
	k.spawn("next", "exit", nil, "0")
	k.await(keeper.EventExited, "next")
}
