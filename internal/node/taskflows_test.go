package node_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// as connects with the credential of an instance.
func (p *project) as(t *testing.T, instance string) *bus.Conn {
	t.Helper()
	grant, err := wire.ReadGrant(filepath.Join(p.state, "grants", instance+".json"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: p.bus(t), Grant: grant, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // nothing is on its way
	return conn
}

// What a service has queued and started is listed and cancelled from outside.
func TestTasksAndWorkflowsAreCancelledFromOutside(t *testing.T) {
	t.Parallel()
	p := up(t, `  pages:
    run: "%[1]s idle"
    handles: [page.fetch, page.show]
    enqueues: [page.fetch, page.show]
`)
	ctx, conn := testkit.Context(t), p.as(t, "pages.1")
	fetch, show := task.NewResultKind[string, string]("page.fetch", task.Config{}), task.NewKind[string]("page.show", task.Config{})
	alone, err := show.Enqueue(ctx, conn, "alone", task.In(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	done, err := p.client.CancelTasks(ctx, node.TaskFilter{IDs: []string{alone.ID}}, false)
	if err != nil || done.Count != 1 {
		t.Errorf("the task: %+v, %v", done, err)
	}
	if s, err := alone.Status(ctx); err != nil || s.State != task.Cancelled {
		t.Errorf("the task is %+v, %v", s, err)
	}
	flow, err := task.NewFlow("site", task.FlowConfig{}, task.Then(fetch.With("url").Named("fetch"), show).Named("show"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := flow.Start(ctx, conn, task.ID("site:1"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.client.Flows(ctx, node.FlowFilter{Name: "site", State: "running"})
	if err != nil || len(list.Flows) != 1 {
		t.Fatalf("there are %+v, %v", list, err)
	}
	one := list.Flows[0]
	if one.ID != h.ID || one.By != "pages.1" || len(one.Tasks) != 2 || one.Tasks[0].State != "pending" || one.Tasks[1].State != "waiting" || one.Tasks[1].Queue != "page.show" {
		t.Errorf("it is %+v", one)
	}
	if err := p.client.CancelFlow(ctx, h.ID); err != nil {
		t.Error(err)
	}
	if s, err := h.Wait(ctx); fault.Code(err) != task.CodeCancelled || s.Tasks[1].State != task.Cancelled {
		t.Errorf("it is %+v, %v", s, err)
	}
	if err := p.client.CancelFlow(ctx, "nosuch"); fault.Code(err) != task.CodeUnknown {
		t.Errorf("one that is not there: %v", err)
	}
	for filter, want := range map[node.FlowFilter]int{{State: "cancelled"}: 1, {State: "done"}: 0, {ID: "site:1"}: 1, {ID: "x"}: 0, {Name: "other"}: 0} {
		if list, err := p.client.Flows(ctx, filter); err != nil || len(list.Flows) != want {
			t.Errorf("%+v chooses %+v, %v", filter, list, err)
		}
	}
}
