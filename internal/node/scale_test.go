package node_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

func TestScaleByHandLastsAndTouchesNothingElse(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	before := pids(p.status(t))
	steps, err := p.client.Scale(testkit.Context(t), map[string]int{"worker": 3})
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Format(steps); got != "start   worker.2 (new)\nstart   worker.3 (new)\n" {
		t.Errorf("steps: %s", got)
	}
	three := func(s status.Snapshot) bool { return ready(s) && len(service(s, "worker").Instances) == 3 }
	s := p.await(t, "three workers", three)
	if sc := service(s, "worker").Scaling; sc == nil || sc.By != "hand" || sc.Declared != "1" || sc.Wanted != 3 {
		t.Errorf("status says %+v", sc)
	}
	scaled := pids(s)
	if scaled["worker.1"] != before["worker.1"] || scaled["feeder.1"] != before["feeder.1"] {
		t.Errorf("before %v, now %v", before, scaled)
	}
	p.feed(t, "one", "two", "three") // the new ones have rights of their own, or none of them would be ready
	p.await(t, "three events", eventsIn("worker", 3))

	nodePID := platform(t, s, "node").PID
	kill(t, nodePID)
	s = p.await(t, "another node", func(s status.Snapshot) bool { return three(s) && platform(t, s, "node").PID != nodePID })
	if diff := cmp.Diff(scaled, pids(s)); diff != "" {
		t.Errorf("the new node changes something: %s", diff)
	}
	if steps, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil || len(steps) > 0 {
		t.Errorf("an apply of the same manifest does %v, %v", steps, err)
	}
	for _, bad := range []map[string]int{{"nosuch": 2}, {"worker": 1000}, {"worker": -1}} {
		if _, err := p.client.Scale(testkit.Context(t), bad); fault.ExitCode(err) != 2 {
			t.Errorf("%v is answered by %v", bad, err)
		}
	}
	steps, err = p.client.Scale(testkit.Context(t), map[string]int{"worker": 0})
	if err != nil || len(steps) != 2 || steps[0].Op != plan.OpStop {
		t.Errorf("back to the manifest: %v, %v", steps, err)
	}
	if _, err := os.Stat(filepath.Join(p.state, "grants", "worker.3.json")); !os.IsNotExist(err) {
		t.Errorf("the grant of a worker that is gone: %v", err)
	}
	access, err := os.ReadFile(filepath.Join(p.state, "broker", "access.json"))
	if err != nil || strings.Contains(string(access), `"worker.3"`) || !strings.Contains(string(access), `"worker.1"`) {
		t.Errorf("the broker knows who is gone, or not who is there: %v", err)
	}
}

func TestBurstIsAbsorbedByGrowingAndThenItShrinks(t *testing.T) {
	t.Parallel()
	const services = `  worker:
    run: "%[1]s gated"
    env: { GATE: "%[2]s" }
    health: notify
    consumes: [events.raw]
    scale: { min: 1, max: 3, on: lag, target: 8, grow_after: 0, shrink_after: 1s }
  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
`
	gate := filepath.Join(testkit.TempDir(t), "gate")
	p := up(t, services, gate)
	p.write(t, "cores: 64\n"+manifestHead+fmt.Sprintf(services, p.self, gate)) // others use this machine, too
	if _, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil {
		t.Fatal(err)
	}
	first := pids(p.status(t))["worker.1"]

	var mu sync.Mutex // guards told
	var told []string
	ctx, cancel := context.WithCancel(testkit.Context(t))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	listen := func() { // until the node ends
		for e, err := range p.client.Events(ctx) {
			if err == nil && e.Change == status.ChangeScaled {
				mu.Lock()
				told = append(told, e.Instance+" "+e.ChangeReason)
				mu.Unlock()
			}
		}
	}
	wg.Go(listen)

	events := func(n int, name string) {
		t.Helper()
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf("%s %d", name, i)
		}
		p.feed(t, all...)
	}
	events(4, "trickle")
	p.await(t, "the trickle to be seen", func(s status.Snapshot) bool {
		sc := service(s, "worker").Scaling
		return sc != nil && sc.Reason == "lag 4, 8 an instance" && sc.Wanted == 1
	})
	events(40, "burst")
	s := p.await(t, "three workers", func(s status.Snapshot) bool { return ready(s) && len(service(s, "worker").Instances) == 3 })
	if sc := service(s, "worker").Scaling; sc.By != "load" || sc.Declared != "1 to 3 on lag" || !strings.Contains(sc.Last, "→") || !strings.Contains(sc.Last, "lag 44, 8 an instance") {
		t.Errorf("status says %+v", sc)
	}
	p.await(t, "the most to be named", func(s status.Snapshot) bool {
		return service(s, "worker").Scaling.Reason == "lag 44, 8 an instance; 3 is the most"
	})

	// A node that starts again goes on with what load has chosen.
	nodePID, three := platform(t, s, "node").PID, pids(s)
	kill(t, nodePID)
	s = p.await(t, "another node", func(s status.Snapshot) bool { return ready(s) && platform(t, s, "node").PID != nodePID })
	if diff := cmp.Diff(three, pids(s)); diff != "" {
		t.Errorf("the new node changes something: %s", diff)
	}
	wg.Go(listen)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = p.await(t, "one worker again", func(s status.Snapshot) bool { return ready(s) && len(service(s, "worker").Instances) == 1 })
	if pids(s)["worker.1"] != first {
		t.Error("the first worker was restarted")
	}
	p.await(t, "every event to be handled once", eventsIn("worker", 44))
	var drain status.Drain
	p.await(t, "nothing left behind", func(s status.Snapshot) bool { return drain.Behind(s) == "" })
	if dead, err := p.admin(t).Stream(testkit.Context(t), wire.StreamName(wire.DeadStream)); err != nil || dead.CachedInfo().State.Msgs != 0 {
		t.Errorf("events were parked: %v", err)
	}
	testkit.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		all := strings.Join(told, "\n")
		return strings.Contains(all, "worker 1 → 2: lag") && strings.Contains(all, "→ 1: lag 0, 8 an instance")
	}, "the events of growing and shrinking")
}

// gatedTask is a kind of task that takes as long as the gate is closed.
var gatedTask = task.NewKind[string]("gated", task.Config{})

func TestServicesGrowOnRequestsInFlightAndOnTheAgeOfTasks(t *testing.T) {
	t.Parallel()
	const services = `  web:
    run: "%[1]s gatedweb"
    env: { GATE: "%[2]s" }
    listen: { http: 0 }
    health: notify
    scale: { min: 1, max: 2, on: requests, target: 4, grow_after: 0, shrink_after: 1s }
  tasks:
    run: "%[1]s gatedtask"
    env: { GATE: "%[2]s" }
    health: notify
    handles: [gated]
    scale: { min: 1, max: 2, on: task_age, target: 100ms, grow_after: 0, shrink_after: 1s }
  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
    enqueues: [gated]
`
	gate := filepath.Join(testkit.TempDir(t), "gate")
	p := up(t, services, gate)
	p.write(t, "cores: 64\n"+manifestHead+fmt.Sprintf(services, p.self, gate)) // others use this machine, too
	if _, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil {
		t.Fatal(err)
	}
	p.await(t, "the first report", func(s status.Snapshot) bool {
		return service(s, "web").Scaling.Reason == "0.0 requests in flight, 4 an instance"
	})
	address := "http://" + service(p.status(t), "web").Listen["http"]
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 10 {
		wg.Go(func() {
			resp, err := http.Get(address)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %s", resp.Status)
			}
		})
	}
	grant, err := wire.ReadGrant(filepath.Join(p.state, "grants", "feeder.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	conn, err := bus.Connect(ctx, bus.Config{Grant: grant, URL: p.bus(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close the feeder: %v", err)
		}
	}()
	for range 3 {
		if _, err := gatedTask.Enqueue(ctx, conn, "x"); err != nil {
			t.Fatal(err)
		}
	}
	s := p.await(t, "two of each", func(s status.Snapshot) bool {
		return ready(s) && len(service(s, "web").Instances) == 2 && len(service(s, "tasks").Instances) == 2
	})
	if last := service(s, "web").Scaling.Last; !strings.Contains(last, "1 → 2: ") || !strings.Contains(last, "requests in flight, 4 an instance") {
		t.Errorf("web: %s", last)
	}
	if last := service(s, "tasks").Scaling.Last; !strings.Contains(last, "1 → 2: oldest task ") {
		t.Errorf("tasks: %s", last)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = p.await(t, "one of each", func(s status.Snapshot) bool {
		return ready(s) && len(service(s, "web").Instances) == 1 && len(service(s, "tasks").Instances) == 1
	})
	if n := service(s, "tasks").Traffic.Tasks; n != 3 {
		t.Errorf("%d tasks are done, 3 were enqueued", n)
	}
}
