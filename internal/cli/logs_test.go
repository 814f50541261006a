package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A follower sees every line once, in order, while logs are rotated and compressed, the instance is restarted and the
// node is killed.
func TestFollowedLogLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const lines = 3000
	manifest := fmt.Sprintf(`project: follow
services:
  count:
    run: [sh, -c, 'i=0; while [ $i -lt %d ]; do echo "$$ $i"; i=$((i+1)); done; exec sleep 1000']
    log: { max_bytes: 4KiB, keep: 1000, compress: true }
`, lines)
	if err := os.WriteFile(filepath.Join(dir, "hozo.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	hozo := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, filepath.Join(binDir, "hozo"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("hozo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Cleanup(func() { hozo("down") })
	hozo("up", "-d")

	follow := exec.CommandContext(ctx, filepath.Join(binDir, "hozo"), "logs", "-f", "--json", "--since", "1h", "count")
	follow.Dir = dir
	follow.Stderr = os.Stderr
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	// run reads one incarnation's lines from first to last.
	run := func() (pid int) {
		t.Helper()
		last := time.Time{}
		for want := range lines {
			if !in.Scan() {
				t.Fatalf("the follower ended: %v", in.Err())
			}
			var line struct {
				Text string
				Time time.Time
			}
			if err := json.Unmarshal(in.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			var by, number int
			if n, err := fmt.Sscan(line.Text, &by, &number); n != 2 || err != nil {
				t.Fatalf("line %q: %v", line.Text, err)
			}
			if want > 0 && by != pid || number != want || line.Time.Before(last) {
				t.Fatalf("in place of line %d of %d stands %q of %v", want, pid, line.Text, line.Time)
			}
			pid, last = by, line.Time
		}
		return pid
	}
	first := run()
	hozo("logs", "--rotate", "count")
	hozo("restart", "count")
	second := run()
	var snapshot struct {
		Platform []struct {
			Name string
			PID  int
		}
	}
	if err := json.Unmarshal([]byte(hozo("status", "--json")), &snapshot); err != nil {
		t.Fatal(err)
	}
	for _, p := range snapshot.Platform {
		if p.Name == "node" {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	hozo("logs", "--rotate", "count")
	if first == second {
		t.Error("the restart restarted nothing")
	}
	for range 100 { // the node comes back within moments
		cmd := exec.CommandContext(ctx, filepath.Join(binDir, "hozo"), "restart", "count")
		cmd.Dir = dir
		if err = cmd.Run(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if third := run(); third == second {
		t.Error("the second restart restarted nothing")
	}
	if err := follow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for in.Scan() {
		t.Errorf("one line more: %s", in.Text())
	}
	if err := follow.Wait(); follow.ProcessState.ExitCode() != 130 {
		t.Errorf("the follower ended with %v", err)
	}
}
