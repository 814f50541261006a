package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
)

// build runs the build commands of m, one after the other: each is free to use every core. A command that several
// services share runs once.
func (o *options) build(ctx context.Context, m *manifest.Manifest) error {
	paint := newPainter(o.env.Stderr, o.env)
	var done []string
	for _, s := range m.Services {
		key := s.Dir + "\x00" + strings.Join(s.Build, "\x00")
		if len(s.Build) == 0 || slices.Contains(done, key) {
			continue
		}
		done = append(done, key)
		start := time.Now()
		cmd := exec.CommandContext(ctx, s.Build[0], s.Build[1:]...)
		cmd.Dir = s.Dir
		cmd.Env = os.Environ()
		for name, value := range s.Env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &fault.Error{
				Code: "cli/build-failed", What: fmt.Sprintf("service %q does not build", s.Name), Where: strings.Join(s.Build, " ") + " (in " + s.Dir + ")",
				Source: tail(output.String(), buildOutputLines), Fix: "correct what the build command reports; nothing was started", Err: err,
			}
		}
		o.say("%s %s %s", paint.green("built"), s.Name, paint.dim(fmt.Sprintf("%.1fs", time.Since(start).Seconds())))
	}
	return nil
}

// buildOutputLines of a failed build are shown: compilers say the cause first, but put the summary last.
const buildOutputLines = 20

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
