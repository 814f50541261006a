//go:build linux

package supervisord_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestOneDaemonASocket(t *testing.T) {
	t.Parallel()
	d := run(t, "")
	if info, err := os.Stat(filepath.Join(d.dir, "rpc")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket is %v (%v), want 0700", info.Mode(), err)
	}
	second := testkit.Command(t, "daemon")
	second.Args = append(second.Args, d.config())
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "Another program is already listening") {
		t.Errorf("a second daemon: %v, %s", second.ProcessState, out)
	}
	if status, _ := d.get("/"); status != http.StatusOK {
		t.Errorf("the first no longer answers: %d", status)
	}
}

func TestStaleSocketIsTaken(t *testing.T) {
	t.Parallel()
	d := prepare(t, head)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.dir, "rpc")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	d.start()
	d.await("Unlinking stale socket")
	d.await("supervisord started with pid")
	if status, _ := d.get("/"); status != http.StatusOK {
		t.Errorf("it does not answer: %d", status)
	}
}

func TestBackground(t *testing.T) {
	t.Parallel()
	d := prepare(t, strings.Replace(head, "nodaemon=true\n", "directory=/usr\numask=027\n", 1)+"[program:cat]\ncommand=/bin/cat\n")
	if out, err := d.cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(d.file("pid")))
	if err != nil {
		// The launcher returns when the sockets are open, which is before the pid file is there.
		testkit.Eventually(t, func() bool { return d.file("pid") != "" }, "the pid file is there")
		if pid, err = strconv.Atoi(strings.TrimSpace(d.file("pid"))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // most often it is gone already
	if stat := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", pid))); stat[5] != strconv.Itoa(pid) {
		t.Errorf("it leads no session: %v", stat[:8])
	}
	for link, want := range map[string]string{"cwd": "/usr", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null"} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", link, got, err, want)
		}
	}
	if out, status := d.ctl("shutdown"); out != "Shut down\n" || status != 0 {
		t.Errorf("shutdown printed %q, %d", out, status)
	}
	testkit.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, "the daemon has ended")
}
