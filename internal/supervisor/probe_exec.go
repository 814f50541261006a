package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// maxProbeOutput bounds the output of a probe that is kept for the reason of its failure: the last of it.
	maxProbeOutput = 4 << 10
	// maxProbeReason bounds the line of it that is shown.
	maxProbeReason = 200
)

// askExec runs a probe program as the user of s, in its folder and environment. The keeper starts what is to outlive
// the node; a probe is not, so it is the node's own child: the keeper needs no record, log and name for each of some
// fifty programs a second. It is killed with its process group when ctx ends. Should the node be killed meanwhile, the
// keeper ends it with the rest of the node's tree, which it knows by the session and by HOZO_RUN.
func askExec(ctx context.Context, argv []string, s plan.Spec) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = append(append([]string{}, s.Env...), wire.EnvRun+"="+os.Getenv(wire.EnvRun))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.UID != nil && int(*s.UID) != os.Geteuid() {
		gid := uint32(os.Getegid())
		if s.GID != nil {
			gid = *s.GID
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: *s.UID, Gid: gid, Groups: s.Groups}
	}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // not reaped yet, so the pid is its own
	cmd.WaitDelay = time.Second                                                          // for what holds the output and left the group
	err := cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		reason := failed.String()
		if last := out.lastLine(); last != "" {
			reason += ": " + last
		}
		return errors.New(reason)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it said yes; something that it started still writes
	}
	if err != nil {
		return fmt.Errorf("run probe: %w", err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p[max(0, len(p)-maxProbeOutput):]...)
	t.buf = t.buf[max(0, len(t.buf)-maxProbeOutput):]
	return len(p), nil
}

func (t *tail) lastLine() string {
	lines := bytes.Split(bytes.TrimSpace(t.buf), []byte{'\n'})
	last := lines[len(lines)-1]
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' ' // it is shown on terminals
		}
		return r
	}, strings.ToValidUTF8(string(last[:min(len(last), maxProbeReason)]), "\uFFFD"))
}
