package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// A tick's process is started by a node that may be killed at any moment before, between and after asking for it and
// writing it down.
func TestKilledNodeStartsNoTickTwice(t *testing.T) {
	t.Parallel()
	out := filepath.Join(testkit.TempDir(t), "ticks")
	p := up(t, `  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
`)
	if _, err := p.rewrite(t, `  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
  beat:
    run: [/bin/sh, -c, 'echo "$HOZO_TICK" >> "$0"', "%[2]s"]
    schedule: { every: 1s }
`, out); err != nil {
		t.Fatal(err)
	}
	ticks := func() []string {
		data, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Fields(string(data))
	}
	for range 6 {
		before := len(ticks())
		testkit.Eventually(t, func() bool { return len(ticks()) > before }, "another tick")
		// Right after a start is before the tick was written down, more often than not.
		kill(t, platform(t, p.status(t), "node").PID)
	}
	p.await(t, "a plan", func(s status.Snapshot) bool {
		all := service(s, "beat").Instances
		return len(all) == 1 && !all[0].Next.IsZero() && all[0].LastResult == "exit status 0"
	})
	seen := map[string]bool{}
	for _, tick := range ticks() {
		if seen[tick] {
			t.Errorf("tick %s was run twice", tick)
		}
		seen[tick] = true
	}
}
