package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// noteTask is a kind of task whose handler appends its id and arguments to the file that OUT names.
var noteTask = task.NewKind[map[string]any]("note", task.Config{})

func note(_ context.Context, t task.Task[map[string]any]) error {
	f, err := os.OpenFile(os.Getenv("OUT"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, t.ID, t.Args["to"])
	return errors.Join(err, f.Close())
}

const noteServices = `  notes:
    run: "%[1]s notetask"
    handles: [note]
    env: { OUT: "%[2]s" }
`

func TestKilledNodeAndBrokerMissNoTickOfACronAndDoubleNone(t *testing.T) {
	t.Parallel()
	out := filepath.Join(testkit.TempDir(t), "ticks")
	p := up(t, noteServices, out)
	steps, err := p.rewrite(t, noteServices+`cron:
  each: { task: note, at: "* * * * * *", overlap: allow, args: { to: all } }
`, out)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 1 || steps[0].Name != "cron each" {
		t.Errorf("a new cron is applied by %v", steps)
	}
	ticks := func() []string {
		data, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}
	more := func(what string) {
		t.Helper()
		before := len(ticks())
		testkit.Eventually(t, func() bool { return len(ticks()) > before+1 }, "ticks "+what)
	}
	more("at first")
	for _, victim := range []string{"node", "broker", "node"} {
		s := p.await(t, victim+" runs", func(s status.Snapshot) bool {
			return slices.ContainsFunc(s.Platform, func(one status.Process) bool { return one.Name == victim && one.PID > 0 })
		})
		kill(t, platform(t, s, victim).PID)
		more("after the kill of the " + victim)
	}
	var list []node.CronStatus
	testkit.Eventually(t, func() bool {
		list, err = p.client.Crons(testkit.Context(t))
		return err == nil && len(list) == 1 && list[0].Count > 0
	}, "the cron is listed")
	if c := list[0]; c.Name != "each" || c.Kind != "note" || c.When != "* * * * * *" || c.Next.IsZero() || c.Last.IsZero() || c.Skipped != 0 {
		t.Errorf("the cron is %+v", c)
	}
	all := ticks()
	slices.Sort(all)
	var last time.Time
	for _, line := range all {
		tick, err := time.Parse(time.RFC3339, strings.TrimSuffix(strings.TrimPrefix(line, "cron:each:"), " all"))
		if err != nil {
			t.Fatal(err)
		}
		if !last.IsZero() && tick.Sub(last) != time.Second {
			t.Errorf("after %s comes %s", last.Format(time.TimeOnly), line)
		}
		last = tick
	}
}
