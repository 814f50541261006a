package bus_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/bus"
)

type order struct{ ID, Country string }

// Parallel: all workers of all instances share a stream; scale: 4 in the manifest makes four instances.
func ExampleNewStage_parallel() {
	check := func(conn *bus.Conn) (*bus.Stage, error) {
		return bus.NewStage(conn, bus.NewTopic[order]("orders"), func(context.Context, bus.Event[order], *bus.Out) error {
			return nil
		}, bus.StageConfig{Workers: 8})
	}
	_ = check
}

// Sequence: two steps in one process. With a topic between two Stages they would be two programs.
func ExampleFuse() {
	checked := bus.NewTopic[order]("orders.checked")
	upper := func(_ context.Context, e bus.Event[order], emit func(order) error) error {
		e.Value.Country = strings.ToUpper(e.Value.Country)
		return emit(e.Value)
	}
	handle := bus.Fuse(upper, func(_ context.Context, e bus.Event[order], out *bus.Out) error {
		return checked.Send(out, e.Value)
	})
	_ = handle
}

// Selective routing: the handler chooses the subject, and readers choose by wildcard: consumes: [orders.to.jp.>].
func ExampleTopic_At() {
	routed := bus.NewTopic[order]("orders.to")
	handle := func(_ context.Context, e bus.Event[order], out *bus.Out) error {
		return routed.At("orders.to."+e.Value.Country).Send(out, e.Value)
	}
	_ = handle
}

// Join: the three parts of an order, whichever come first, or those that came within a minute. The stream has a key and
// the service consumes it with ordered: true.
func ExampleNewCollect() {
	packed := bus.NewTopic[[]order]("orders.packed")
	join := func(conn *bus.Conn) (*bus.Stage, error) {
		return bus.NewCollect(conn, bus.NewTopic[order]("orders.parts"), func(_ context.Context, s bus.Set[order], out *bus.Out) error {
			if !s.Complete() {
				return bus.Reject("orders/incomplete", fmt.Errorf("order %s has %d parts", s.Key, len(s.Events)))
			}
			var parts []order
			for _, e := range s.Events {
				parts = append(parts, e.Value)
			}
			return packed.Send(out, parts)
		}, bus.CollectConfig{Size: 3, Timeout: time.Minute})
	}
	_ = join
}

// Scatter-gather: every instance of a service is asked, and the best answers in time win.
func ExampleCall_Gather() {
	type quote struct{ Price int }
	ask := bus.NewCall[order, quote]("price.quote")
	best := func(ctx context.Context, conn *bus.Conn, o order) (lowest quote) {
		for q, err := range ask.Gather(ctx, conn, o, bus.GatherConfig{Max: 3, Stall: 50 * time.Millisecond}) {
			if err == nil && (lowest.Price == 0 || q.Price < lowest.Price) {
				lowest = q
			}
		}
		return lowest
	}
	_ = best
}

// Live: every instance hears what is published while it runs; a slow one forgets the oldest and counts them.
func ExampleTopic_Watch() {
	prices := bus.NewTopic[int]("prices")
	show := func(conn *bus.Conn) *bus.Watcher {
		return prices.Watch(conn, func(_ context.Context, e bus.Event[int]) error {
			fmt.Println(e.Subject, e.Value)
			return nil
		}, bus.WatchConfig{Buffer: 1000, Full: bus.DropOldest})
	}
	_ = show
}
