package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const composeName = "process-compose"

// processCompose is F1bonacc1/process-compose. Its shortest pause before a restart is a second. It is told to flush each
// line of a log, because otherwise the last ones stay in its memory until it ends.
type processCompose struct {
	children
	bin  string
	port int
}

var _ manager = (*processCompose)(nil)

func (c *processCompose) name() string { return composeName }

func (c *processCompose) start(ctx context.Context, dir string, programs []program) error {
	c.children.dir = dir
	var err error
	if c.port, err = freePort(ctx); err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString("version: \"0.5\"\nprocesses:\n")
	for _, one := range programs {
		fmt.Fprintf(&text, "  %s: { command: \"exec %s\", log_location: %s, log_configuration: { no_metadata: true, disable_json: true, no_color: true, flush_each_line: true }, availability: { restart: always } }\n",
			one.name, strings.Join(one.argv, " "), c.path(one.name))
	}
	config := filepath.Join(dir, "process-compose.yaml")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return c.children.start("process-compose", []string{"HOME=" + dir}, nil, dir,
		c.bin, "up", "-f", config, "-t=false", "--keep-project", "-L", filepath.Join(dir, "main.log"), "-p", strconv.Itoa(c.port))
}

func (c *processCompose) stop(ctx context.Context) error {
	if err := runTool(ctx, c.bin, "down", "-p", strconv.Itoa(c.port)); err != nil {
		return fmt.Errorf("%w; %w", err, c.children.stop(syscall.SIGTERM))
	}
	return c.children.ended(stopPatience)
}

func (c *processCompose) status(ctx context.Context) error {
	return runTool(ctx, c.bin, "process", "list", "-p", strconv.Itoa(c.port))
}

func (c *processCompose) pids() ([]int, error)    { return c.children.pids(), c.alive() }
func (c *processCompose) parents() ([]int, error) { return c.pids() }
func (c *processCompose) path(program string) string {
	return filepath.Join(c.children.dir, program+".log")
}

func (c *processCompose) log(program string) (path, prefix string) {
	return c.path(program), "<nil> INF " /* even with no_metadata */
}
