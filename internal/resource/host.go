package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Host is what resources see of the host that they are on. While a plan is made it also knows what earlier resources
// promise, because their changes are not there yet. It is used by one goroutine.
type Host struct {
	// Blob returns the content of a digest that the controller holds.
	Blob func(digest string) ([]byte, error)

	promised map[string]bool // "user app", "package nginx"
	packages map[string]string
	updated  bool // the lists of packages, in this run
}

// promise notes that a thing will be there once the changes so far are made.
func (h *Host) promise(what string) {
	if h.promised == nil {
		h.promised = map[string]bool{}
	}
	h.promised[what] = true
}

// installing reports whether a package is promised: then nobody knows yet which files, users and units will be there.
func (h *Host) installing() bool { return h.promised["a package"] }

// Kept forgets what was promised, because it is there now.
func (h *Host) Kept() { h.promised = nil }

// maxOutput is what is kept of a command's output: the last 16 KiB, enough for the reason of a failure.
const maxOutput = 16 << 10

// tail keeps the last bytes that are written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > maxOutput {
		t.data = bytes.Clone(t.data[len(t.data)-maxOutput:])
	}
	return len(p), nil
}

// command runs argv without a shell, with a plain environment, and returns the last 16 KiB that it wrote. status is its
// exit status; err is set when it could not be run at all.
func command(ctx context.Context, dir, user string, argv ...string) (out string, status int, err error) {
	program, err := found(argv[0])
	if err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Dir = dir
	cmd.Env = environment()
	// A command and what it starts end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if user != "" && user != "root" {
		if err := as(cmd, user); err != nil {
			return "", 0, err
		}
	}
	var both tail
	cmd.Stdout, cmd.Stderr = &both, &both
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(both.data), exit.ExitCode(), nil
	}
	return string(both.data), 0, err
}

// as makes a command run as another user, with that user's groups and home.
func as(cmd *exec.Cmd, name string) error {
	u, err := findUser(name)
	if err != nil {
		return err
	}
	if u == nil {
		return fmt.Errorf("there is no user %s", name)
	}
	groups, err := groupsOf(name)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: groups}
	cmd.Env = append(cmd.Env, "HOME="+u.home, "USER="+name, "LOGNAME="+name)
	return nil
}

// searched is where commands are looked for, whatever the login's own path is.
const searched = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func found(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searched, ":") {
		if full, err := exec.LookPath(dir + "/" + name); err == nil {
			return full, nil
		}
	}
	return "", fmt.Errorf("there is no program %s on the host", name)
}

// environment is what commands see: nothing of the login's own.
func environment() []string {
	return []string{"PATH=" + searched, "HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
}

// must runs argv and makes its failure an error that holds its output.
func must(ctx context.Context, id string, argv ...string) error {
	out, status, err := command(ctx, "/", "", argv...)
	if err != nil {
		return failed(id, strings.Join(argv, " ")+" could not be run", "see whether it is installed on the host", err)
	}
	if status != 0 {
		return failed(id, fmt.Sprintf("%s ended with status %d: %s", strings.Join(argv, " "), status, lastLines(out, 20)), "correct what it says", nil)
	}
	return nil
}

// lastLines returns at most n lines from the end of a text.
func lastLines(text string, n int) string {
	all := lines(strings.TrimSpace(text))
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// readBounded reads a file of at most most bytes; a larger one gives nil without an error.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil || int64(len(data)) > most {
		return nil, err
	}
	return data, nil
}
