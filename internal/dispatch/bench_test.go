package dispatch_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/dispatch"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// What does it cost that a queue is fair? Tasks of ten keys that do nothing, from the first enqueued to the last done, with
// workers that are there from the start (flow) and with a backlog that is worked off afterwards (backlog).
func BenchmarkTasks(b *testing.B) {
	for _, backlog := range []bool{false, true} {
		for _, fair := range []bool{false, true} {
			name := map[bool]string{false: "flow", true: "backlog"}[backlog] + "/" + map[bool]string{false: "plain", true: "fair"}[fair]
			b.Run(name, func(b *testing.B) { benchmark(b, backlog, fair) })
		}
	}
}

func benchmark(b *testing.B, backlog, fair bool) {
	engine := testkit.BrokerProcess(b)
	conn, err := bus.Connect(b.Context(), bus.Config{URL: engine.URL, Grant: engine.Grant(b, wire.Grant{Service: "mail", Handles: []string{kindName}, Enqueues: []string{kindName}})})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.Context())) }() // it has nothing to store
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 2) // one each
	running := 1
	if fair {
		layout := engine.Layout()
		layout.Queues[0].Paced = true
		if err := broker.Provision(ctx, engine.JS, layout); err != nil {
			b.Fatal(err)
		}
		d := dispatch.New(engine.NC, engine.JS, testkit.Logger(b))
		d.Set([]dispatch.Queue{{Name: kindName}})
		running++
		go func() { ended <- d.Run(ctx) }()
	}
	var done atomic.Int64
	all := make(chan struct{})
	worker := task.NewWorker(conn, mail, func(context.Context, task.Task[int]) error {
		if done.Add(1) == int64(b.N) {
			close(all)
		}
		return nil
	}, task.WorkerConfig{Concurrency: 16})
	start := func() { go func() { ended <- worker.Run(ctx) }() }
	e, err := mail.NewEnqueuer(conn, task.EnqueuerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	b.ResetTimer()
	if !backlog {
		start()
	}
	for i := range b.N {
		if _, err := e.Enqueue(ctx, i, task.Key(keys[i%len(keys)])); err != nil {
			b.Fatal(err)
		}
	}
	if err := e.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	if backlog {
		start()
	}
	<-all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	b.StopTimer()
	cancel()
	for range running {
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}
