package cli_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

// container starts hozo up as the first process of a PID namespace with a /proc of its own.
func container(t *testing.T, manifest string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a PID namespace")
	}
	dir, err := os.MkdirTemp("", "hz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "hozo.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "mount --make-rprivate / && mount -t proc proc /proc && exec "+filepath.Join(binDir, "hozo")+" up")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	// The end of the first process is that of all others: nothing outlives a test that fails.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, if all went well
	return cmd, bufio.NewReader(out)
}

func awaitLine(t *testing.T, out *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := out.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("the output ends without %q: %v", text, err)
		}
	}
}

// finish reads what is left of the output, and returns the exit status.
func finish(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) (string, int) {
	t.Helper()
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(rest), cmd.ProcessState.ExitCode()
}

func TestFirstProcessOfAContainerEndsAsItsEssentialService(t *testing.T) {
	t.Parallel()
	cmd, out := container(t, `project: box
services:
  main: { run: "sh -c 'sleep 1; echo last words; exit 17'", essential: true, restart: never }
`)
	if rest, code := finish(t, cmd, out); code != 17 || !strings.Contains(rest, "last words") {
		t.Errorf("exit status %d, output %s", code, rest)
	}
}

func TestFirstProcessOfAContainerStopsInOrderOnTermAndLeavesNoZombies(t *testing.T) {
	t.Parallel()
	// Orphans of a shell that has gone; what they leave is somebody else's to reap.
	cmd, out := container(t, `project: box
services:
  main: { run: "sh -c 'trap \"echo main stops; exit 0\" TERM; (for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done); sleep 1; echo orphaned; while :; do sleep 0.05; done'", essential: true, restart: never }
`)
	awaitLine(t, out, "orphaned")
	testkit.Eventually(t, func() bool {
		zombies := 0
		for _, p := range inNamespaceOf(t, cmd.Process.Pid) {
			stat, err := os.ReadFile(filepath.Join("/proc", p, "stat"))
			if err == nil && strings.Contains(string(stat), "(sleep) Z") {
				zombies++
			}
		}
		return zombies <= 1 // one of the loop may be on its way
	}, "no orphan is left as a zombie")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, code := finish(t, cmd, out)
	if code != 0 {
		t.Errorf("exit status %d, output %s", code, rest)
	}
	log, err := os.ReadFile(filepath.Join(cmd.Dir, ".hozo", "logs", "main.1.log"))
	if err != nil || !strings.Contains(string(log), "main stops") {
		t.Errorf("it was not asked to stop: %s, %v", log, err)
	}
}

// inNamespaceOf lists the processes in the PID namespace of pid.
func inNamespaceOf(t *testing.T, pid int) []string {
	t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns", "pid")); err == nil && ns == own {
			all = append(all, e.Name())
		}
	}
	return all
}
