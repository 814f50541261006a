package node_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// spoilt says whether a role is to fail at once: a file beside the binary says so of every process that was started from
// the binary that is there now, and not of those from the one before it.
func spoilt(role string) bool {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil || strings.HasSuffix(own, " (deleted)") {
		return false
	}
	_, err = os.Stat(own + ".spoilt." + role)
	return err == nil
}

// install puts another copy of the test binary at path, as a package manager does.
func install(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// upgraded runs `hozo upgrade --json` and returns its report and exit status.
func (p *project) upgraded(t *testing.T, args ...string) (report map[string]any, code int) {
	t.Helper()
	cmd := exec.Command(p.self, append([]string{"upgrade", "--json", "--state", p.state}, args...)...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v in %q; it says %s", err, out.String(), talk.String())
	}
	t.Logf("upgrade says %s%s", out.String(), talk.String())
	return report, cmd.ProcessState.ExitCode()
}

// images counts the processes of the platform whose binary is not the one on disk any more.
func (p *project) images(t *testing.T, s status.Snapshot) (old []string) {
	t.Helper()
	for _, one := range s.Platform {
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(one.PID), "exe"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(exe, " (deleted)") {
			old = append(old, one.Name)
		}
	}
	return old
}

func TestUpgradeReplacesThePlatformAndNoService(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(testkit.TempDir(t), "hozo")
	install(t, bin)
	dir := testkit.TempDir(t)
	p := upFrom(t, bin, manifestCounters, dir, 4)
	before := p.status(t)
	install(t, bin)
	if old := p.images(t, before); len(old) != 4 {
		t.Fatalf("of the old binary are %v", old)
	}
	report, code := p.upgraded(t)
	if code != 0 || len(report["parts"].([]any)) != 4 || report["reverted"] != false {
		t.Errorf("exit status %d, report %v", code, report)
	}
	after := p.await(t, "everything ready", func(s status.Snapshot) bool { return settled(s, 4) && len(s.Platform) == 4 })
	if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
		t.Errorf("services were touched (-before +after):\n%s", diff)
	}
	if old := p.images(t, after); len(old) != 0 {
		t.Errorf("still of the old binary: %v", old)
	}
	// Its guarantees hold as before.
	for _, name := range []string{"keeper", "standby"} {
		pid := pidOf(p.status(t), name)
		kill(t, pid)
		after = p.await(t, "another "+name, func(s status.Snapshot) bool {
			return settled(s, 4) && pidOf(s, name) != pid && pidOf(s, name) != 0
		})
	}
	if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
		t.Errorf("services were touched (-before +after):\n%s", diff)
	}
	if err := p.client.Down(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	p.awaitOver(t)
	for name := range pids(before) {
		checkCounted(t, dir, p.state, name)
	}
}

func TestUpgradeToAVersionThatDoesNotGetReadyKeepsTheOldOne(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"keeper", "node", "broker"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			bin := filepath.Join(testkit.TempDir(t), "hozo")
			install(t, bin)
			dir := testkit.TempDir(t)
			p := upFrom(t, bin, manifestCounters, dir, 2)
			before := p.status(t)
			install(t, bin)
			if err := os.WriteFile(bin+".spoilt."+role, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			report, code := p.upgraded(t, "--timeout", "10s")
			if code != 1 || report["reverted"] != true {
				t.Errorf("exit status %d, report %v", code, report)
			}
			after := p.await(t, "everything ready", func(s status.Snapshot) bool {
				return settled(s, 2) && len(s.Platform) == 4 && platform(t, s, "broker").State == status.Ready
			})
			if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
				t.Errorf("services were touched (-before +after):\n%s", diff)
			}
			if old := p.images(t, after); len(old) != 4 {
				t.Errorf("of the old binary are only %v", old)
			}
		})
	}
}

func TestUpgradeFromAnotherPlaceIsRefused(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(testkit.TempDir(t), "hozo")
	install(t, bin)
	p := up(t, manifestCounters, t.TempDir(), 1)
	before := p.status(t)
	out, err := exec.Command(bin, "upgrade", "--state", p.state).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "another place") {
		t.Errorf("upgrade says %v, %s", err, out)
	}
	k, err := keeper.Dial(testkit.Context(t), keeper.SocketPath(p.state))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	hello, err := k.Hello(testkit.Context(t))
	if err != nil || hello.PID != pidOf(before, "keeper") {
		t.Errorf("the keeper was touched: %+v, %v", hello, err)
	}
}
