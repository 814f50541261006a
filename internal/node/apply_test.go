package node_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// fifty services that know nothing of Hozo; s17 says what it is, %[2]s is more of its lines.
func fifty() string {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "  s%d:\n    run: \"%%[1]s idle\"\n", i)
		if i == 17 {
			b.WriteString("%[2]s")
		}
	}
	return b.String()
}

func TestChangingOneOfFiftyRestartsExactlyThatOne(t *testing.T) {
	t.Parallel()
	p := up(t, fifty(), "    env: { LOG_LEVEL: info, TOKEN: hunter2 }\n")
	before := pids(p.status(t))

	p.write(t, manifestHead+fmt.Sprintf(fifty(), p.self, "    env: { LOG_LEVEL: debug, TOKEN: hunter3 }\n"))
	planned, err := p.client.Plan(testkit.Context(t), p.file, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Format(planned); got != "restart s17.1 (env.LOG_LEVEL, env.TOKEN changed)\n" {
		t.Errorf("the plan is %s", got)
	}
	if diff := cmp.Diff(before, pids(p.status(t))); diff != "" {
		t.Errorf("a plan changes something: %s", diff)
	}
	steps, err := p.client.Apply(testkit.Context(t), p.file, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(planned, steps); diff != "" {
		t.Errorf("apply does not do what plan said: %s", diff)
	}
	after := pids(p.await(t, "s17 to be replaced", func(s status.Snapshot) bool { return ready(s) && pids(s)["s17.1"] != before["s17.1"] }))
	delete(after, "s17.1")
	delete(before, "s17.1")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("others were restarted: %s", diff)
	}
	if steps, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil || len(steps) > 0 {
		t.Errorf("applying it again does %v, %v", steps, err)
	}

	// Keys that can change under a running process restart nothing, and what was stopped stays so.
	if err := p.client.Stop(testkit.Context(t), "s3"); err != nil {
		t.Fatal(err)
	}
	before = pids(p.status(t))
	hot := "    env: { LOG_LEVEL: debug, TOKEN: hunter3 }\n    restart: { policy: on-failure, delay: 1s, max: 2s, reset: 3s }\n    stop: { signal: INT, grace: 2s }\n" +
		"    log: { keep: 9, max_bytes: 1MiB }\n    needs: { s1: started }\n    build: make it\n"
	steps, err = p.rewrite(t, fifty(), hot)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 1 || steps[0].Op != plan.OpUpdate {
		t.Errorf("the hot change does %v", steps)
	}
	for _, key := range []string{"restart", "stop.signal", "stop.grace", "log.keep", "needs", "build"} {
		if !strings.Contains(steps[0].Reason, key) {
			t.Errorf("%s is not named: %s", key, steps[0].Reason)
		}
	}
	if diff := cmp.Diff(before, pids(p.status(t))); diff != "" {
		t.Errorf("the hot change restarts something, or starts what was stopped: %s", diff)
	}
	if _, err := p.rewrite(t, fifty(), "    rum: x\n"); err == nil {
		t.Error("an invalid manifest is applied")
	}
	if diff := cmp.Diff(before, pids(p.status(t))); diff != "" {
		t.Errorf("an invalid manifest changes something: %s", diff)
	}

	// A node that is killed comes back to what was applied, not to the file as it is by now.
	nodePID := platform(t, p.status(t), "node").PID
	kill(t, nodePID)
	s := p.await(t, "another node", func(s status.Snapshot) bool {
		return platform(t, s, "node").PID != nodePID && len(s.Services) == 50
	})
	if diff := cmp.Diff(before, pids(s)); diff != "" {
		t.Errorf("the new node changes something: %s", diff)
	}
}

func TestApplyAfterABuildRestartsTheServicesThatRunIt(t *testing.T) {
	t.Parallel()
	dir := testkit.TempDir(t)
	program := filepath.Join(dir, "program")
	build := func(more string) {
		t.Helper()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(self)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := os.OpenFile(program+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if _, err := out.WriteString(more); err != nil { // behind the end of the program: it still runs
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	build("one")
	services := "  a: { run: \"%[2]s idle\" }\n  b: { run: \"%[2]s idle\", scale: 2 }\n  c: { run: \"%[1]s idle\" }\n"
	p := up(t, services, program)
	before := pids(p.status(t))

	build("two")
	nodePID := platform(t, p.status(t), "node").PID
	kill(t, nodePID)
	s := p.await(t, "another node", func(s status.Snapshot) bool { return ready(s) && platform(t, s, "node").PID != nodePID })
	if diff := cmp.Diff(before, pids(s)); diff != "" {
		t.Errorf("a build that nobody has applied takes effect: %s", diff)
	}
	steps, err := p.client.Apply(testkit.Context(t), p.file, "")
	if err != nil {
		t.Fatal(err)
	}
	want := "restart a.1 (program changed)\nrestart b.1 (program changed)\nrestart b.2 (program changed)\n"
	if got := plan.Format(steps); got != want {
		t.Errorf("apply does %s", got)
	}
	after := pids(p.await(t, "the new program everywhere", func(s status.Snapshot) bool {
		now := pids(s)
		return ready(s) && now["a.1"] != before["a.1"] && now["b.1"] != before["b.1"] && now["b.2"] != before["b.2"]
	}))
	if after["c.1"] != before["c.1"] {
		t.Error("a service of another program was restarted")
	}
	if steps, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil || len(steps) > 0 {
		t.Errorf("applying it again does %v, %v", steps, err)
	}
}

func TestPlanNamesWhatChangesInStreams(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	p.write(t, strings.Replace(manifestHead, "64MiB }", "65MiB, keep: 1h }\n  other: {}", 1)+fmt.Sprintf(manifestServices, p.self, 1))
	steps, err := p.client.Plan(testkit.Context(t), p.file, "")
	if err != nil {
		t.Fatal(err)
	}
	want := "update  stream events.raw (keep, max_bytes changed)\nstart   stream other (new)\n"
	if got := plan.Format(steps); got != want {
		t.Errorf("the plan is %s", got)
	}
	before := pids(p.status(t))
	if _, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, pids(p.status(t))); diff != "" {
		t.Errorf("a change of a stream restarts something: %s", diff)
	}
	if steps, err := p.client.Plan(testkit.Context(t), p.file, ""); err != nil || len(steps) > 0 {
		t.Errorf("after the apply the plan is %v, %v", steps, err)
	}
}
