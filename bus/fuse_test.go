package bus_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

func TestFusedStepsAreOnePieceOfWork(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	twice := func(_ context.Context, e bus.Event[int], emit func(int) error) error {
		return errors.Join(emit(e.Value), emit(10*e.Value))
	}
	var got []string
	id := wire.EventID{Stream: "raw", Seq: 3}
	handle := bus.Fuse(bus.Chain(twice, func(_ context.Context, e bus.Event[int], emit func(string) error) error {
		if e.Value == 50 {
			return no
		}
		return emit(string(rune('a' + e.Value)))
	}), func(_ context.Context, e bus.Event[string], _ *bus.Out) error {
		if e.ID != id || e.Attempt != 2 {
			t.Errorf("the last step sees %+v", e)
		}
		got = append(got, e.Value)
		return nil
	})
	if err := handle(t.Context(), bus.Event[int]{ID: id, Attempt: 2, Value: 1}, nil); err != nil || !slices.Equal(got, []string{"b", "k"}) {
		t.Errorf("%v, %v", got, err)
	}
	if err := handle(t.Context(), bus.Event[int]{ID: id, Attempt: 2, Value: 5}, nil); !errors.Is(err, no) {
		t.Errorf("a failing step: %v", err)
	}
}
