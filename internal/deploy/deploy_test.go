package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy"
	"github.com/hozo-dev/hozo/internal/deploy/agent"
	"github.com/hozo-dev/hozo/internal/lab"
	"github.com/hozo-dev/hozo/internal/resource"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// crashFile, on a host, holds the number of the step before which its agent is killed, or "stop N" to be stopped there.
const crashFile = "/run/lab/crash"

// TestMain makes the test binary the agent that it sends to the hosts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "agent" {
		if err := agent.Main(context.Background(), agent.Config{Step: crashAt()}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func crashAt() func(string) {
	text, err := os.ReadFile(crashFile)
	if err != nil {
		return nil
	}
	word, stops := strings.CutPrefix(string(text), "stop ")
	left, err := strconv.Atoi(strings.TrimSpace(word))
	if err != nil {
		panic(err)
	}
	return func(string) {
		if left--; left != 0 {
			return
		}
		if stops {
			_ = os.WriteFile(crashFile+".reached", nil, 0o600)
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			return
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// config is a deploy of some resources to every host of a lab.
func config(l *lab.Lab, resources ...resource.Spec) deploy.Config {
	cfg := deploy.Config{
		Project: "shop", Env: "prod", By: "tester", Home: "/nonexistent", Dial: l.Dial,
		Getenv: func(string) string { return "" },
	}
	blobs := map[string][]byte{}
	for i, r := range resources {
		if text, ok := r.With["content"].(string); ok { // as the manifest's content becomes a digest
			with := map[string]any{"digest": resource.Digest([]byte(text))}
			for k, v := range r.With {
				if k != "content" {
					with[k] = v
				}
			}
			blobs[with["digest"].(string)] = []byte(text)
			resources[i].With = with
		}
	}
	for _, h := range l.Hosts {
		cfg.Hosts = append(cfg.Hosts, deploy.Host{
			Name: h.Name, Resources: resources, Blobs: blobs,
			Target: deploy.Target{Addr: h.Addr, User: "root", Key: l.KeyFile, KnownHosts: l.Known},
		})
	}
	return cfg
}

// settled makes a lab whose hosts have the agent already, as after a first deploy.
func settled(t *testing.T, hosts int) *lab.Lab {
	t.Helper()
	l := lab.New(t, hosts)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts {
		if err := os.MkdirAll(h.Path("/var/lib/hozo/agent"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.Path("/var/lib/hozo/agent/"+resource.Digest(data)), data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func file(path, content string, notify ...string) resource.Spec {
	return resource.Spec{Kind: "file", Name: path, With: map[string]any{"content": content}, Notify: notify}
}

// counted is a command that only runs when it is notified, and leaves a line each time.
func counted(name string) resource.Spec {
	return resource.Spec{Kind: "command", Name: name, With: map[string]any{"run": []string{"sh", "-c", "echo ran >>/var/ran-" + name}}}
}

func mustRun(t *testing.T, cfg deploy.Config) ([]deploy.HostPlan, []deploy.Result) {
	t.Helper()
	plans, results, err := deploy.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	return plans, results
}

func TestADeployBringsEveryHostThereInOneSessionAndAgainDoesNothing(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 2)
	cfg := config(l,
		resource.Spec{Kind: "user", Name: "app", With: map[string]any{"system": true}},
		resource.Spec{Kind: "directory", Name: "/srv/shop/data", With: map[string]any{"owner": "app", "mode": "0750"}},
		file("/srv/shop/motto", "first\nsecond\n", "command reload"),
		counted("reload"),
	)
	look := cfg
	look.Plan = true
	plans, results := mustRun(t, look)
	if len(results) != 0 {
		t.Errorf("a plan has results: %v", results)
	}
	for i, p := range plans {
		var ids []string
		for _, c := range p.Changes {
			ids = append(ids, string(c.Change.Op)+" "+c.ID)
		}
		want := []string{"create user app", "create directory /srv/shop/data", "create file /srv/shop/motto"}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s: %s", p.Host, diff)
		}
		if d := p.Changes[2].Change.Diff; !strings.Contains(d, "+first\n+second\n") {
			t.Errorf("the diff is %q", d)
		}
		if diff := cmp.Diff([]string{"command reload"}, p.Handlers); diff != "" {
			t.Error(diff)
		}
		layer, err := l.Hosts[i].Layer()
		if err != nil || slices.ContainsFunc(layer.Since(nil), func(p string) bool { return !strings.HasPrefix(p, "/var/lib/hozo") }) {
			t.Errorf("a plan has written %v, %v", layer, err)
		}
	}
	var events []string
	cfg.Event = func(e deploy.Event) {
		if e.Event != nil && !e.Begun && e.Host == "h1" {
			events = append(events, e.ID)
		}
	}
	_, results = mustRun(t, cfg)
	for i, r := range results {
		if r.Changed != 3 || r.Handled != 1 {
			t.Errorf("%+v", r)
		}
		if out, err := l.Hosts[i].Run(t.Context(), "cat /srv/shop/motto /var/ran-reload; stat -c '%U %a' /srv/shop/data"); err != nil || out != "first\nsecond\nran\napp 750\n" {
			t.Errorf("%q, %v", out, err)
		}
	}
	if diff := cmp.Diff([]string{"user app", "directory /srv/shop/data", "file /srv/shop/motto", "command reload"}, events); diff != "" {
		t.Error(diff)
	}
	before, err := l.Hosts[0].Received(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plans, results = mustRun(t, cfg)
	after, err := l.Hosts[0].Received(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after-before > 64<<10 {
		t.Errorf("a warm host was sent %d bytes", after-before)
	}
	for i := range plans {
		if plans[i].Pending() || results[i].Changed != 0 || plans[i].Unchanged != 4 {
			t.Errorf("again: %+v, %+v", plans[i], results[i])
		}
		if n := l.Hosts[i].Logins(); n != 3 {
			t.Errorf("%d logins for three runs", n)
		}
	}
}

func TestARunThatIsKilledAtAnyStepIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	h := l.Hosts[0]
	// Two files that notify, one handler each: 3 steps a file, 2 a handler.
	const steps = 10
	for n := 1; n <= steps; n++ {
		one, two := fmt.Sprintf("one%d", n), fmt.Sprintf("two%d", n)
		cfg := config(l, file("/srv/"+one, "x\n", "command "+one), file("/srv/"+two, "y\n", "command "+two, "command "+one), counted(one), counted(two))
		if err := os.WriteFile(h.Path(crashFile), []byte(strconv.Itoa(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := deploy.Run(t.Context(), cfg); fault.Code(err) != "deploy/agent-died" {
			t.Fatalf("step %d: %v", n, err)
		}
		if out, err := h.Run(t.Context(), "ls -A /srv | grep -v -x -e 'one[0-9]*' -e 'two[0-9]*' || true"); err != nil || out != "" {
			t.Errorf("step %d left %q, %v", n, out, err)
		}
		if err := os.Remove(h.Path(crashFile)); err != nil {
			t.Fatal(err)
		}
		mustRun(t, cfg)
		out, err := h.Run(t.Context(), fmt.Sprintf("cat /srv/%s /srv/%s /var/ran-%[1]s /var/ran-%[2]s", one, two))
		if err != nil || out != "x\ny\nran\nran\n" {
			t.Errorf("killed before step %d, then again: %q, %v", n, out, err)
		}
		cfg.Plan = true
		if plans, _ := mustRun(t, cfg); plans[0].Pending() {
			t.Errorf("step %d: still pending: %+v", n, plans[0])
		}
	}
	if err := os.WriteFile(h.Path(crashFile), []byte(strconv.Itoa(steps+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, config(l, file("/srv/one", "x\n", "command one"), file("/srv/two", "y\n", "command two", "command one"), counted("one"), counted("two")))
}

func TestOfTwoDeploysAtOnceOneWinsAndTheOtherIsToldWhoHasTheHosts(t *testing.T) {
	t.Parallel()
	l := settled(t, 3)
	cfg := config(l, file("/srv/f", "x\n"))
	waiting, proceed := make(chan struct{}), make(chan struct{})
	cfg.Approve = func([]deploy.HostPlan) (bool, error) { close(waiting); <-proceed; return true, nil }
	var first sync.WaitGroup
	var firstErr error
	first.Go(func() { _, _, firstErr = deploy.Run(t.Context(), cfg) })
	<-waiting
	second := config(l, file("/srv/f", "y\n"))
	second.By = "another"
	slices.Reverse(second.Hosts)
	_, results, err := deploy.Run(t.Context(), second)
	if fault.Code(fault.Flatten(err)[0]) != "deploy/locked" || results != nil || !strings.Contains(err.Error(), "of tester, since") {
		t.Errorf("%v, %v", results, err)
	}
	second.Plan = true
	if plans, _ := mustRun(t, second); len(plans) != 3 || !plans[0].Pending() {
		t.Errorf("a plan beside a deploy: %+v", plans)
	}
	close(proceed)
	first.Wait()
	if firstErr != nil {
		t.Error(firstErr)
	}
	second.Plan = false
	if _, results := mustRun(t, second); results[0].Changed != 1 {
		t.Errorf("afterwards: %+v", results)
	}
}

func TestNothingIsChangedWhereOneHostCannotBeDeployedTo(t *testing.T) {
	t.Parallel()
	l := settled(t, 2)
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Hosts[1].Resources = config(l, file("/srv/none/f", "x\n")).Hosts[1].Resources
	_, results, err := deploy.Run(t.Context(), cfg)
	if results != nil || fault.Code(fault.Flatten(err)[0]) != "resource/failed" || !strings.Contains(err.Error(), "h2: file /srv/none/f: its folder does not exist") {
		t.Errorf("%v, %v", results, err)
	}
	if _, err := os.Stat(l.Hosts[0].Path("/srv/f")); err == nil {
		t.Error("the other host was changed")
	}
}

func TestAHostThatFailsHalfWayStopsNoOtherAndKeepsItsDebts(t *testing.T) {
	t.Parallel()
	l := settled(t, 2)
	cfg := config(l, file("/srv/a", "x\n", "command reload"), resource.Spec{Kind: "command", Name: "break", With: map[string]any{
		"run": []string{"sh", "-c", "test ! -e /srv/broken && touch /srv/done"}, "creates": "/srv/done",
	}}, counted("reload"))
	if _, err := l.Hosts[1].Run(t.Context(), "touch /srv/broken"); err != nil {
		t.Fatal(err)
	}
	_, results, err := deploy.Run(t.Context(), cfg)
	if len(fault.Flatten(err)) != 1 || !strings.Contains(err.Error(), "h2: command break: sh -c") || results[0].Handled != 1 || results[1].Handled != 0 {
		t.Errorf("%+v, %v", results, err)
	}
	cfg.Plan = true
	if plans, _ := mustRun(t, cfg); !slices.Contains(plans[1].Handlers, "command reload") || plans[0].Pending() {
		t.Errorf("%+v", plans)
	}
	if _, err := l.Hosts[1].Run(t.Context(), "rm /srv/broken"); err != nil {
		t.Fatal(err)
	}
	cfg.Plan = false
	_, results = mustRun(t, cfg)
	if results[1].Changed != 1 || results[1].Handled != 1 {
		t.Errorf("%+v", results)
	}
	journal, err := os.ReadFile(l.Hosts[1].Path("/var/lib/hozo/deploy/shop.prod/journal"))
	if err != nil || strings.Count(string(journal), `"what":"handled"`) != 1 || !strings.Contains(string(journal), `"by":"tester"`) {
		t.Errorf("%s, %v", journal, err)
	}
}

func TestAnAgentWhoseLinkBreaksFinishesByItself(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	h := l.Hosts[0]
	cfg := config(l, file("/srv/a", "x\n", "command reload"), file("/srv/b", "x\n"), counted("reload"))
	if err := os.WriteFile(h.Path(crashFile), []byte("stop 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	var err error
	running.Go(func() { _, _, err = deploy.Run(ctx, cfg) })
	reached := func() bool { _, err := os.Stat(h.Path(crashFile + ".reached")); return err == nil }
	testkit.Eventually(t, reached, "the agent to stop in the middle")
	cancel() // the controller is gone
	running.Wait()
	if err == nil {
		t.Fatal("a cancelled deploy says nothing")
	}
	if _, err := h.Run(t.Context(), "rm "+crashFile+"; pkill -CONT -x agent || kill -CONT -1"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool {
		out, _ := h.Run(t.Context(), "cat /srv/a /srv/b /var/ran-reload")
		return out == "x\nx\nran\n"
	}, "the agent to finish alone")
	cfg.Plan = true
	testkit.Eventually(t, func() bool {
		plans, _, err := deploy.Run(t.Context(), cfg)
		return err == nil && !plans[0].Pending()
	}, "nothing to be left")
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	const canary = "correct-horse-battery"
	secret := file("/etc/shop.key", canary+"\n")
	secret.Secret, secret.With["mode"] = true, "0600"
	cfg := config(l, secret)
	var seen strings.Builder
	cfg.Event = func(e deploy.Event) { fmt.Fprintf(&seen, "%+v %+v\n", e, e.Event) }
	plans, _ := mustRun(t, cfg)
	text, err := json.Marshal(plans)
	if err != nil {
		t.Fatal(err)
	}
	journal, err := os.ReadFile(l.Hosts[0].Path("/var/lib/hozo/deploy/shop.prod/journal"))
	if err != nil {
		t.Fatal(err)
	}
	if all := string(text) + seen.String() + string(journal); strings.Contains(all, canary) || !strings.Contains(all, "(changed)") {
		t.Errorf("shown: %s", all)
	}
	if out, err := l.Hosts[0].Run(t.Context(), "cat /etc/shop.key; stat -c %a /etc/shop.key"); err != nil || out != canary+"\n600\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestASilentControllerLosesItsLease(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	cfg := config(l, file("/srv/f", "x\n"))
	begin := time.Now()
	cfg.Approve = func([]deploy.HostPlan) (bool, error) { return true, l.Hosts[0].Cut() }
	if _, _, err := deploy.Run(t.Context(), cfg); err == nil {
		t.Fatal("deployed through a cut cable")
	}
	if err := l.Hosts[0].Mend(); err != nil {
		t.Fatal(err)
	}
	cfg.Approve = nil
	testkit.Eventually(t, func() bool { _, _, err := deploy.Run(t.Context(), cfg); return err == nil }, "the lease to end")
	t.Logf("after %s", time.Since(begin))
}
