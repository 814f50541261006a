package bus_test

import (
	"context"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// What goes over an edge is counted on both of its sides, under the words of the manifest.
func TestEdgesAreCounted(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	ask, serve := asker(t, b), server(t, b)
	start(t, double.Serve(serve, func(_ context.Context, req item) (item, error) { return req, nil }, bus.ServeConfig{}))
	for range 3 {
		if _, err := double.Ask(testkit.Context(t), ask, item{N: 1}); err != nil {
			t.Fatal(err)
		}
	}
	pub, subs := live(t, b, 1)
	watch := prices.Watch(subs[0], func(context.Context, bus.Event[item]) error { return nil }, bus.WatchConfig{Full: bus.Block})
	start(t, watch)
	send(t, pub, 1, 5)
	for _, c := range []struct {
		conn       *bus.Conn
		word, name string
		want       uint64
	}{{ask, "calls", "math.double", 3}, {serve, "serves", "math.double", 3}, {subs[0], "watches", "prices", 5}} {
		testkit.Eventually(t, func() bool { return c.conn.Counters().Edge(c.word, c.name) == c.want }, wire.EdgeKey(c.word, c.name))
	}
}
