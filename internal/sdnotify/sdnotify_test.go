package sdnotify_test

import (
	"net"
	"path/filepath"
	"testing"

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
