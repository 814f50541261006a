package sdnotify_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/sdnotify"
)

// The tests set the environment of the process, so they do not run in parallel.

func TestSendDeliversStatesInOneDatagram(t *testing.T) {
	tests := map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@hozo-sdnotify-" + filepath.Base(t.TempDir()) + filepath.Base(filepath.Dir(t.TempDir())),
	}
	for name, address := range tests {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			t.Setenv(sdnotify.Env, address)
			if err := sdnotify.Send(sdnotify.Ready, sdnotify.Status("two\nlines")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 256)
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(buf[:n]), "READY=1\nSTATUS=two lines"; got != want {
				t.Errorf("datagram = %q, want %q", got, want)
			}
		})
	}
}

func TestPeriodIsForThisProcessAlone(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"1500000", "", 1500 * time.Millisecond},
		{"1500000", own, 1500 * time.Millisecond},
		{"1500000", "1", 0},
		{"0", own, 0},
		{"-5", own, 0},
		{"9223372036854775807", own, 0},
		{"soon", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := sdnotify.Period(); got != c.want {
			t.Errorf("usec %q, pid %q: %s, want %s", c.usec, c.pid, got, c.want)
		}
	}
}

func TestFeedSendsUntilItIsStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv(sdnotify.Env, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := sdnotify.Feed(ctx); err != nil { // nobody expects anything
		t.Fatal(err)
	}
	t.Setenv("WATCHDOG_USEC", "30000")
	fed := make(chan error, 1)
	go func() { fed <- sdnotify.Feed(ctx) }()
	buf := make([]byte, 64)
	for range 3 {
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != sdnotify.Watchdog {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	cancel()
	if err := <-fed; err != nil {
		t.Error(err)
	}
}

func TestSendWithoutListenerIsSilentOrSaysWhere(t *testing.T) {
	t.Setenv(sdnotify.Env, "")
	if err := sdnotify.Send(sdnotify.Ready); err != nil {
		t.Errorf("without %s: %v", sdnotify.Env, err)
	}
	t.Setenv(sdnotify.Env, filepath.Join(t.TempDir(), "nobody"))
	if err := sdnotify.Send(sdnotify.Ready); err == nil {
		t.Error("a missing socket went unnoticed")
	}
}
