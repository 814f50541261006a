package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine is where and from what a result comes.
type machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Commit string `json:"commit"`
	Load   string `json:"load"` // average over one minute before the run: what else the machine does
}

func describeMachine(ctx context.Context, root string) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown", Kernel: "unknown", Commit: "none"}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(load), " ")
	}
	if commit, err := output(ctx, root, "git", "rev-parse", "--short", "HEAD"); err == nil {
		m.Commit = commit
		if changes, err := output(ctx, root, "git", "status", "--porcelain"); err == nil && changes != "" {
			m.Commit += " with changes"
		}
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("machine  %d cores, %s, Linux %s, load %s before the run\nbuild    %s, commit %s\n",
		m.Cores, m.CPU, m.Kernel, m.Load, m.Go, m.Commit)
}

// output runs a command in dir and returns its standard output without the white space around it. The error carries what
// the command said.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, cmp.Or(strings.Join(args, " "), "-"), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
