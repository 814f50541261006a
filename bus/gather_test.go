package bus_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

var part = bus.NewCall[item, item]("shard.part")

// shards starts instances that each answer with their own number; the third fails, and those after it wait for release.
func shards(t *testing.T, b *testkit.TestBroker, n int, release <-chan struct{}) *bus.Conn {
	t.Helper()
	for number := 1; number <= n; number++ {
		c := dial(t, b, wire.Grant{Service: "shard", Serves: []string{"shard.part"}})
		start(t, part.Serve(c, func(ctx context.Context, q item) (item, error) {
			switch {
			case number == 3:
				return item{}, &fault.Error{Code: "shard/broken", What: "no data"}
			case number > 3:
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return item{N: number * q.N}, nil
		}, bus.ServeConfig{Workers: 2}))
	}
	return dial(t, b, wire.Grant{Service: "asker", Calls: []string{"shard.part"}})
}

func gather(t *testing.T, conn *bus.Conn, ctx context.Context, cfg bus.GatherConfig) (got []int, errs []error) { //nolint:revive // t first, as everywhere here
	t.Helper()
	for answer, err := range part.Gather(ctx, conn, item{N: 10}, cfg) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got = append(got, answer.N)
	}
	slices.Sort(got)
	return got, errs
}

func TestGatherHearsEveryInstanceAndItsFaults(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	asker := shards(t, testkit.Broker(t), 5, release)
	close(release)
	got, errs := gather(t, asker, testkit.Context(t), bus.GatherConfig{Max: 5})
	if !slices.Equal(got, []int{10, 20, 40, 50}) || len(errs) != 1 || fault.Code(errs[0]) != "shard/broken" {
		t.Errorf("answers %v, errors %v", got, errs)
	}
	// One instance answers one Ask.
	if _, err := part.Ask(testkit.Context(t), asker, item{N: 1}); err != nil && fault.Code(err) != "shard/broken" {
		t.Error(err)
	}
}

func TestGatherIsContentAfterAStallAndSaysWhatIsMissingAtTheEnd(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	asker := shards(t, testkit.Broker(t), 4, release)
	defer close(release)
	got, errs := gather(t, asker, testkit.Context(t), bus.GatherConfig{Stall: 50 * quick})
	if !slices.Equal(got, []int{10, 20}) || len(errs) != 1 || fault.Code(errs[0]) != "shard/broken" {
		t.Errorf("after a stall: answers %v, errors %v", got, errs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*quick)
	defer cancel()
	got, errs = gather(t, asker, ctx, bus.GatherConfig{Max: 4})
	if !slices.Equal(got, []int{10, 20}) || len(errs) != 2 || fault.Code(errs[1]) != bus.CodeTimedOut {
		t.Errorf("at the deadline: answers %v, errors %v", got, errs)
	}
}

func TestGatherEndsEarlyAndWhenNobodyIsThere(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	alone := dial(t, b, wire.Grant{Service: "alone", Calls: []string{"shard.part"}})
	if got, errs := gather(t, alone, testkit.Context(t), bus.GatherConfig{}); len(got) != 0 || len(errs) != 1 || fault.Code(errs[0]) != bus.CodeNoResponder {
		t.Errorf("nobody there: answers %v, errors %v", got, errs)
	}
	denied := dial(t, b, wire.Grant{Service: "denied"})
	if _, errs := gather(t, denied, testkit.Context(t), bus.GatherConfig{}); len(errs) != 1 || fault.Code(errs[0]) != bus.CodeNoCall {
		t.Errorf("not declared: %v", errs)
	}
	asker := shards(t, b, 2, nil)
	first := errors.New("no answer")
	for _, err := range part.Gather(testkit.Context(t), asker, item{N: 1}, bus.GatherConfig{}) {
		first = err
		break
	}
	if first != nil {
		t.Error(first)
	}
}
