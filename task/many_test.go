package task_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

func images(n int) []image {
	all := make([]image, n)
	for i := range all {
		all[i].Path = fmt.Sprintf("%d.png", i)
	}
	return all
}

// collects runs a worker that counts how often each path comes.
func collects(t *testing.T, w *world) (seen func() (different, twice int)) {
	t.Helper()
	var mu sync.Mutex
	paths := map[string]int{}
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, task.Config{}), func(_ context.Context, one task.Task[image]) error {
		mu.Lock()
		defer mu.Unlock()
		paths[one.Args.Path]++
		return nil
	}, task.WorkerConfig{}))
	return func() (different, twice int) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range paths {
			twice += n - 1
		}
		return len(paths), twice
	}
}

func TestEnqueueManyStoresAllInPartsOfAThousand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[image](kindName, task.Config{})
	handles, err := kind.EnqueueMany(testkit.Context(t), w.conn, images(2501), task.Key("a customer"))
	if err != nil || len(handles) != 2501 {
		t.Fatalf("%d handles, %v", len(handles), err)
	}
	if n := w.queued(t); n != 2501 {
		t.Fatalf("%d tasks are queued", n)
	}
	if s, err := handles[2500].Status(testkit.Context(t)); err != nil || s.State != task.Pending {
		t.Errorf("the last: %+v, %v", s, err)
	}
	seen := collects(t, w)
	w.waitQueued(t, 0)
	if n, twice := seen(); n != 2501 || twice != 0 {
		t.Errorf("%d tasks came, %d again", n, twice)
	}
}

func TestEnqueueManyStoresNothingWhenOneCannotBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	kind := task.NewKind[image](kindName, task.Config{})
	args := images(10)
	args[9].Path = strings.Repeat("x", 9<<20)
	if handles, err := kind.EnqueueMany(ctx, w.conn, args); fault.Code(err) != bus.CodeTooLarge || len(handles) != 0 {
		t.Errorf("one is too large: %d handles, %v", len(handles), err)
	}
	if _, err := kind.EnqueueMany(ctx, w.conn, images(2), task.ID("one")); fault.Code(err) != task.CodeBadOption {
		t.Errorf("one id for two: %v", err)
	}
	if handles, err := kind.EnqueueMany(ctx, w.conn, nil); err != nil || len(handles) != 0 {
		t.Errorf("none: %v, %v", handles, err)
	}
	if n := w.queued(t); n != 0 {
		t.Errorf("%d tasks are queued", n)
	}
}

func TestEnqueueManyWaitsForItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[image](kindName, task.Config{})
	handles, err := kind.EnqueueMany(testkit.Context(t), w.conn, images(20), task.In(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range handles {
		if s, err := h.Status(testkit.Context(t)); err != nil || s.State != task.Scheduled {
			t.Fatalf("%+v, %v", s, err)
		}
	}
}

func TestEnqueuersLoseNothingWhenTheBrokerIsKilled(t *testing.T) {
	t.Parallel()
	const n = 6000
	w := worldOf(t, testkit.BrokerProcess(t))
	ctx := testkit.Context(t)
	kind := task.NewKind[image](kindName, task.Config{})
	seen := collects(t, w)
	e, err := kind.NewEnqueuer(w.conn, task.EnqueuerConfig{Window: 256})
	if err != nil {
		t.Fatal(err)
	}
	all := images(2 * n)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < n; i += 500 {
			if _, err := kind.EnqueueMany(ctx, w.conn, all[n+i:n+i+500]); err != nil {
				t.Error(err)
			}
		}
	})
	for i, one := range all[:n] {
		if i == n/3 {
			w.Kill(t)
			w.Start(t)
		}
		if _, err := e.Enqueue(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	w.waitQueued(t, 0)
	if got, _ := seen(); got != 2*n {
		t.Errorf("%d of %d tasks came", got, 2*n)
	}
}

func TestEnqueuerTellsWhatItRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(testkit.Context(t))
	kind := task.NewKind[image](kindName, task.Config{})
	e, err := kind.NewEnqueuer(w.conn, task.EnqueuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Enqueue(ctx, image{}, task.Unique("a")); fault.Code(err) != task.CodeBadOption {
		t.Errorf("unique: %v", err)
	}
	if _, err := e.Enqueue(ctx, image{strings.Repeat("x", 9<<20)}); fault.Code(err) != bus.CodeTooLarge {
		t.Errorf("large: %v", err)
	}
	if _, err := task.NewKind[image]("other.kind", task.Config{}).NewEnqueuer(w.conn, task.EnqueuerConfig{}); fault.Code(err) != bus.CodeNoRoute {
		t.Errorf("a kind that is not granted: %v", err)
	}
	h, err := e.Enqueue(ctx, image{"a.png"}, task.WithPriority(task.High))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := h.Status(ctx); err != nil || s.State != task.Pending {
		t.Errorf("%+v, %v", s, err)
	}
	w.Stop(t)
	_, _ = e.Enqueue(ctx, image{"b.png"}) // it is sent, or not
	cancel()
	if err := e.Flush(ctx); err == nil {
		if _, err = e.Enqueue(ctx, image{"c.png"}); err == nil {
			t.Error("without a broker everything is stored")
		}
	}
}

// However a task is enqueued, the report of the instance counts it once it is stored.
func TestEveryWayToEnqueueIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[image](kindName, task.Config{})
	ctx := testkit.Context(t)
	if _, err := kind.EnqueueMany(ctx, w.conn, images(1200)); err != nil {
		t.Fatal(err)
	}
	window, err := kind.NewEnqueuer(w.conn, task.EnqueuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range images(30) {
		if _, err := window.Enqueue(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	if err := window.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	enqueue(t, w, "a.png")

	reports, err := w.JS.Conn().SubscribeSync(wire.ReportSubject + ".>")
	if err == nil {
		err = w.JS.Conn().Flush() // else the report may be sent before the broker knows of the subscription
	}
	if err != nil {
		t.Fatal(err)
	}
	over, end := context.WithCancel(ctx)
	end()
	if err := w.conn.RunReports(over); err != nil { // the last report is sent in any case
		t.Fatal(err)
	}
	msg, err := reports.NextMsgWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var r wire.Report
	if err := json.Unmarshal(msg.Data, &r); err != nil {
		t.Fatal(err)
	}
	if n := r.Edges[wire.EdgeKey("enqueues", kindName)]; n != 1231 {
		t.Errorf("%d tasks are counted, 1231 were enqueued", n)
	}
}
