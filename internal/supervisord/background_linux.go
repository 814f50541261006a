package supervisord

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// backgroundVar holds, in a daemon that goes into the background, the descriptor on which it tells that it has begun.
const backgroundVar = "HOZO_SUPERVISORD_READY"

// errTold is a failure that the daemon in the background has already told on standard error.
var errTold = errors.New("the daemon did not start")

// TellStatus says which status a program should exit with whose Main returned err, when the reason has already been told.
func TellStatus(err error) (int, bool) {
	if errors.Is(err, errTold) {
		return 2, true
	}
	return 0, false
}

// background is the way of this process into the background; nil stays in the foreground.
type background struct{ ready *os.File }

// takeBackground takes what startBackground left, so that no child of the daemon sees it.
func takeBackground() *background {
	text := os.Getenv(backgroundVar)
	if text == "" {
		return nil
	}
	_ = os.Unsetenv(backgroundVar) // fails for bad names only
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil
	}
	unix.CloseOnExec(fd)
	return &background{ready: os.NewFile(uintptr(fd), "ready")}
}

// startBackground starts this program again as a daemon, in a session of its own, and returns when it has opened its
// sockets. Until then it has this process's standard error to say what is wrong.
func startBackground() error {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), backgroundVar+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	told, err := io.ReadAll(ours)
	if err != nil {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if strings.HasPrefix(string(told), "ready") {
		return cmd.Process.Release()
	}
	if err := cmd.Wait(); err != nil {
		return errTold
	}
	return nil
}

// enter leaves the terminal and tells whoever waits for it.
func (b *background) enter(d *Daemon) error {
	s := d.conf.Supervisord
	d.log.info("daemonizing the supervisord process")
	if s.Directory != "" {
		if err := os.Chdir(s.Directory); err != nil {
			d.log.critical("can't chdir into %s: %v", quote(s.Directory), err)
		} else {
			d.log.info("set current directory: %s", quote(s.Directory))
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	unix.Umask(s.Umask)
	if _, err := b.ready.WriteString("ready\n"); err != nil {
		return err // whoever started the daemon is gone, and has not told anybody that it runs
	}
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return b.ready.Close()
}
