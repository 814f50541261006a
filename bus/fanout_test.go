package bus_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// Every service that consumes a stream gets each event once over all its instances, and one that is stopped holds up
// nobody and has missed nothing when it is back.
func TestEveryServiceGetsEachEventWhileOneIsStopped(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const services, instances, n = 3, 2, 4000
	ledgers := make([]*ledger, services+1)
	run := func(i int) (stop func()) {
		ledgers[i] = newLedger(n)
		var stops []func()
		for range instances {
			c := dial(t, b, wire.Grant{Service: fmt.Sprintf("reader-%d", i), Consumes: []wire.Source{{Stream: "raw"}}})
			stops = append(stops, start(t, newStage(t, c, bus.NewTopic[item]("raw"),
				func(_ context.Context, e bus.Event[item], _ *bus.Out) error {
					ledgers[i].add(e.Value.N)
					return nil
				}, bus.StageConfig{})))
		}
		return func() {
			for _, stop := range stops {
				stop()
			}
		}
	}
	for i := range services {
		run(i)
	}
	run(services)() // its consumer is there, and nobody reads it
	c := dial(t, b, wire.Grant{Service: "writer", Publish: []wire.Route{route("raw", "raw")}})
	fill(t, c, "raw", n, 50)
	for i := range services {
		testkit.Wait(t, ledgers[i].full)
		settled(t, b, "raw", fmt.Sprintf("reader-%d", i))
		ledgers[i].exact(t)
	}
	if ledgers[services].all != 0 {
		t.Errorf("the stopped service has handled %d events", ledgers[services].all)
	}
	run(services)
	testkit.Wait(t, ledgers[services].full)
	settled(t, b, "raw", fmt.Sprintf("reader-%d", services))
	ledgers[services].exact(t)
}
