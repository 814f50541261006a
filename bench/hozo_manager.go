package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const hozoName = "hozo"

// hozoManager is a project of ours with nothing in it but programs.
type hozoManager struct {
	bin string
	dir string
}

var _ manager = (*hozoManager)(nil)

func (h *hozoManager) name() string { return hozoName }

func (h *hozoManager) start(ctx context.Context, dir string, programs []program) error {
	h.dir = dir
	var text strings.Builder
	text.WriteString("project: bench-process\nservices:\n")
	for _, one := range programs {
		fmt.Fprintf(&text, "  %s: { run: %s, log: { max_bytes: 1GiB } }\n", one.name, strings.Join(one.argv, " "))
	}
	if err := os.WriteFile(h.manifest(), []byte(text.String()), 0o600); err != nil {
		return err
	}
	return h.command(ctx, "up", "-d")
}

func (h *hozoManager) stop(ctx context.Context) error { return h.command(ctx, "down") }

func (h *hozoManager) status(ctx context.Context) error { return h.command(ctx, "ps") }

func (h *hozoManager) pids() ([]int, error) { return ownProcesses(h.bin, h.state()) }

// parents are the processes called keeper.
func (h *hozoManager) parents() ([]int, error) {
	all, err := h.pids()
	if err != nil {
		return nil, err
	}
	var keepers []int
	for _, pid := range all {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(line), "\x00keeper") {
			keepers = append(keepers, pid)
		}
	}
	if len(keepers) == 0 {
		return nil, fmt.Errorf("no keeper in %s", h.state())
	}
	return keepers, nil
}

func (h *hozoManager) log(program string) (path, prefix string) {
	return filepath.Join(h.state(), "logs", program+".1.log"), ""
}

func (h *hozoManager) manifest() string { return filepath.Join(h.dir, "hozo.yaml") }
func (h *hozoManager) state() string    { return filepath.Join(h.dir, "state") }

func (h *hozoManager) command(ctx context.Context, verb string, args ...string) error {
	return runTool(ctx, append([]string{h.bin, verb, "--file", h.manifest(), "--state", h.state()}, args...)...)
}
