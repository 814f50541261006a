//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/lab"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// childEnv makes the test binary a program that starts a lab and waits to be killed.
const childEnv = "LAB_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		l, err := lab.Start(context.Background(), dir, 2)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		pid, err := l.Hosts[1].Run(context.Background(), "sleep 1000 >/dev/null 2>&1 & echo started")
		fmt.Println(strings.TrimSpace(pid), err)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func login(t *testing.T, l *lab.Lab, h *lab.Host, script string) (string, error) {
	t.Helper()
	cmd := l.Command(t.Context(), "ssh", "-F", "none", "-i", l.KeyFile, "-o", "UserKnownHostsFile="+l.Known, "-o", "StrictHostKeyChecking=yes",
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "root@"+h.Addr, script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestHostsAreReachedByRealSSHAndKnowNothingOfTheOutside(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 2)
	for _, h := range l.Hosts {
		out, err := login(t, l, h, "hostname; ip route; echo text >/etc/lab-file")
		if err != nil || !strings.HasPrefix(out, h.Name+"\n") || strings.Contains(out, "default") {
			t.Fatalf("%s says %q, %v", h.Name, out, err)
		}
		if n := h.Logins(); n != 1 {
			t.Errorf("%s counted %d logins, want 1", h.Name, n)
		}
		layer, err := h.Layer()
		if err != nil || !slices.Contains(layer.Since(nil), "/etc/lab-file") {
			t.Errorf("%s changed %v, %v", h.Name, layer, err)
		}
		if received, err := h.Received(t.Context()); err != nil || received < 1000 {
			t.Errorf("%s received %d bytes, %v", h.Name, received, err)
		}
	}
	if _, err := os.Stat("/etc/lab-file"); err == nil {
		t.Error("a host wrote into the machine's own file system")
	}
}

func TestAHostKeepsItsFilesWhenItsPowerIsCut(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	h := l.Hosts[0]
	if _, err := h.Run(t.Context(), "echo kept >/var/kept"); err != nil {
		t.Fatal(err)
	}
	h.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if conn, err := l.Dial(ctx, "tcp", h.Addr+":22"); err == nil {
		_ = conn.Close()
		t.Fatal("a host without power accepts connections")
	}
	if err := h.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := login(t, l, h, "cat /var/kept"); err != nil || out != "kept\n" {
		t.Errorf("after the cut: %q, %v", out, err)
	}
}

func TestACutCableAndAStrangersKey(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	h := l.Hosts[0]
	if err := h.Cut(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if conn, err := l.Dial(ctx, "tcp", h.Addr+":22"); err == nil {
		_ = conn.Close()
		t.Fatal("reached a host without a cable")
	}
	if err := h.Mend(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { _, err := login(t, l, h, "true"); return err == nil }, "a login after the cable is back")
	if err := h.ChangeKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := login(t, l, h, "true"); err == nil || !strings.Contains(out, "REMOTE HOST IDENTIFICATION HAS CHANGED") {
		t.Errorf("another key is accepted: %s, %v", out, err)
	}
	if err := l.WriteKnownHosts(); err != nil {
		t.Fatal(err)
	}
	if out, err := login(t, l, h, "true"); err != nil {
		t.Errorf("%s, %v", out, err)
	}
}

func TestARelayDelaysBothWays(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	addr, err := l.Relay(l.Hosts[0], 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	conn, err := l.Dial(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Fatalf("%q, %v", line, err)
	}
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("the first bytes came after %s", took)
	}
}

func TestASmallFileSystemFills(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	h := l.Hosts[0]
	if err := h.Limit(t.Context(), "/srv/small", 64<<10); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Run(t.Context(), "head -c 1000000 /dev/zero >/srv/small/big"); err == nil || !strings.Contains(out, "No space left") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNothingIsLeftOfALabThatWasKilled(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("takes root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	child := exec.Command(self)
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "started <nil>\n" {
		_ = child.Process.Kill()
		_ = child.Wait()
		if strings.Contains(line, lab.ErrCannot.Error()) {
			t.Skip(line)
		}
		t.Fatalf("no lab: %s", line)
	}
	tree := descendants(child.Process.Pid)
	if len(tree) < 5 {
		t.Fatalf("the lab has only the processes %v", tree)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	testkit.Eventually(t, func() bool {
		return !slices.ContainsFunc(tree, func(pid int) bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err == nil && !strings.Contains(string(stat), ") Z ")
		})
	}, "the end of every process of the lab")
}

func descendants(pid int) []int {
	var all []int
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // none: it has ended
	for _, thread := range threads {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		for field := range strings.FieldsSeq(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

func TestWithoutHostsThereIsNothingToReach(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 0)
	conn, err := l.Dial(t.Context(), "tcp", "10.77.0.254:22")
	if err == nil {
		_ = conn.Close()
		t.Fatal("somebody listens on the switch")
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("%v", err)
	}
}
