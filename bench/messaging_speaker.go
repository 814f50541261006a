package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// speaker is a running program.
type speaker struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *bufio.Reader
	err   bytes.Buffer
}

func speak(argv []string) (*speaker, error) { return speakWith(nil, argv) }

// speakWith adds to the environment.
func speakWith(env, argv []string) (*speaker, error) {
	one := &speaker{cmd: exec.Command(argv[0], argv[1:]...)} // stop ends it
	one.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	one.cmd.Env = append(one.cmd.Env, env...)
	one.cmd.Stderr = &one.err
	one.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, err := one.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := one.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	one.stdin, one.said = stdin, bufio.NewReader(stdout)
	if err := one.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	return one, nil
}

func (s *speaker) pid() int { return s.cmd.Process.Pid }

// say lets the program go on.
func (s *speaker) say() error {
	_, err := io.WriteString(s.stdin, "go\n")
	return err
}

// hear returns the next line that the program says. When ctx ends first the program is killed.
func (s *speaker) hear(ctx context.Context) (string, error) {
	defer context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })()
	line, err := s.said.ReadString('\n')
	if err == nil {
		return strings.TrimSpace(line), nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	_ = s.cmd.Wait() // it has closed its output; what it wrote about why is complete after this
	return "", fmt.Errorf("%s ended: %s", strings.Join(s.cmd.Args, " "), strings.TrimSpace(s.err.String()))
}

func (s *speaker) account(ctx context.Context) (account, error) {
	var a account
	line, err := s.hear(ctx)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return a, fmt.Errorf("%s said %q: %w", s.cmd.Args[0], line, err)
	}
	return a, nil
}

// stop lets the program end and kills it when it does not. A relay of ZeroMQ never does by itself.
func (s *speaker) stop() error { return s.stopWithin(endPatience) }

func (s *speaker) stopWithin(d time.Duration) error {
	_ = s.stdin.Close()
	late := time.AfterFunc(d, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	_ = s.cmd.Wait() // how it ended was told by what it said
	return nil
}

// endPatience is how long a program may take to end. Those that wait in a library for a message never do.
const endPatience = 100 * time.Millisecond
