package task_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// How many no-op tasks a second go from an enqueuer through the broker, a process of its own, to a worker?
func BenchmarkEndToEnd(b *testing.B) {
	broker := testkit.BrokerProcess(b)
	grant := wire.Grant{Service: "images", Handles: []string{kindName}, Enqueues: []string{kindName}}
	connect := func() *bus.Conn {
		conn, err := bus.Connect(context.Background(), bus.Config{URL: broker.URL, Grant: broker.Grant(b, grant)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close(context.Background()) }) // the broker may be gone
		return conn
	}
	producer, consumer := connect(), connect()
	kind := task.NewKind[[]byte](kindName, task.Config{})
	var done atomic.Int64
	all := make(chan struct{})
	worker := task.NewWorker(consumer, kind, func(context.Context, task.Task[[]byte]) error {
		if done.Add(1) == int64(b.N) {
			close(all)
		}
		return nil
	}, task.WorkerConfig{Concurrency: 8})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = worker.Run(ctx) })
	<-worker.Ready()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	for range 256 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := kind.Enqueue(context.Background(), producer, []byte(`{"n":12345678,"s":"0123456789"}`)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	<-all
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	cancel()
	wg.Wait()
}
