package node_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
)

const userServices = `  worker:
    run: "%[1]s tiny"
    user: %[2]s
    health: notify
    consumes: [events.raw]
  door:
    run: "%[1]s idle"
    user: %[2]s
    listen: { http: 0 }
    health: { tcp: http }
    publishes: [events.raw]
  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
`

func TestServiceWithAUserOfItsOwnUsesTheBusAndSeesNothingElse(t *testing.T) {
	t.Parallel()
	name, credential := newUser(t)
	dir := testkit.TempDir(t)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	p := upIn(t, dir, copySelf(t, dir), userServices, name)
	p.feed(t, "one", "two")
	s := p.await(t, "the worker has handled the events", eventsIn("worker", 2))
	for _, instance := range []string{"worker.1", "door.1"} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids(s)[instance]))
		want := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", credential.Uid)
		if err != nil || !strings.Contains(string(status), want) {
			t.Errorf("%s does not run as %s: %v\n%s", instance, name, err, status)
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pids(s)[instance]))
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), "USER="+name) {
			t.Errorf("environment of %s: %v\n%s", instance, err, environ)
		}
	}
	if log, err := os.ReadFile(filepath.Join(p.state, "logs", "worker.1.log")); err != nil || !strings.Contains(string(log), "service is ready") {
		t.Errorf("log of the worker: %v\n%s", err, log)
	}
	may := func(flag, path string) bool {
		cmd := exec.Command("test", flag, filepath.Join(p.state, path))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return cmd.Run() == nil
	}
	if !may("-r", "grants/worker.1.json") || may("-w", "grants/worker.1.json") {
		t.Errorf("%s may read its grant: %t, and change it: %t", name, may("-r", "grants/worker.1.json"), may("-w", "grants/worker.1.json"))
	}
	for _, path := range []string{
		".", "grants", "grants/feeder.1.json", "grants/node.json", "broker", "broker/access.json", "broker/store", "logs", "logs/feeder.1.log",
		"keeper.sock", "node.sock", "notify.sock", "keeper.json",
	} {
		if may("-r", path) || may("-w", path) {
			t.Errorf("%s may read or write %s", name, path)
		}
		if _, err := os.Stat(filepath.Join(p.state, path)); err != nil {
			t.Errorf("%s is not there to be looked at: %v", path, err)
		}
	}

	// Without such services the state folder is closed again.
	if _, err := p.rewrite(t, manifestServices, 1); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{p.state, filepath.Join(p.state, "grants")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("mode of %s: %v, %v", path, info.Mode(), err)
		}
	}
	p.await(t, "the worker runs as before", ready)
}

func TestUserWhoCannotReachItsGrantIsAFault(t *testing.T) {
	t.Parallel()
	name, _ := newUser(t)
	p := up(t, manifestServices, 1) // in a folder of mode 0700
	_, err := p.rewrite(t, userServices, name)
	f, ok := fault.As(err)
	if !ok || f.Code != "node/state-closed" || f.Where != p.dir || !strings.Contains(f.Fix, "chmod o+x "+p.dir) {
		t.Errorf("apply returned %v", err)
	}
}

// newUser makes a user for the length of t.
func newUser(t *testing.T) (string, *syscall.Credential) {
	t.Helper()
	name := "hz" + strings.ToLower(strconv.FormatInt(int64(os.Getpid()), 36)) + strconv.Itoa(len(t.Name()))
	if out, err := exec.Command("useradd", "--system", "--no-create-home", name).CombinedOutput(); err != nil {
		t.Fatalf("make a user (needs root): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("remove the user: %v\n%s", err, out)
		}
	})
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	var ids [2]uint32
	for i, text := range []string{u.Uid, u.Gid} {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = uint32(n)
	}
	return name, &syscall.Credential{Uid: ids[0], Gid: ids[1]}
}

// copySelf puts the test binary where every user may run it.
func copySelf(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, "hozo")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
