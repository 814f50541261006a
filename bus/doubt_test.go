package bus_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// Owners and the broker are killed under load while the target's duplicate window is far shorter than a take-over lasts:
// what the next owner does again must be recognised without it.
func TestTakeOverLongAfterTheWindowDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	d := newDrill(t, 3)
	d.b.Declare(t, broker.StreamSpec{Name: keyedOut, Partitions: partitions, Keep: time.Hour, MaxBytes: 256 << 20, Dedupe: 100 * time.Millisecond})
	c := mover(t, d.b)
	const keys, players = 200, 16
	sent := make([]int, keys)
	var stop atomic.Bool
	var playing sync.WaitGroup
	for i := range players {
		playing.Go(func() {
			for n := 0; !stop.Load(); n++ {
				for k := i; k < keys; k += players {
					if _, err := moves.Publish(testkit.Context(t), c, move{fmt.Sprintf("key-%d", k), n}); err != nil {
						t.Errorf("publish: %v", err)
						return
					}
					sent[k]++
				}
			}
		})
	}
	defer playing.Wait()
	defer stop.Store(true)
	for range 3 {
		d.start()
	}
	d.shared()
	for round := range 3 {
		killed := d.any()
		d.alive[killed].Kill(t)
		delete(d.alive, killed)
		if round == 1 {
			d.b.Kill(t)
			d.b.Start(t)
		}
		d.shared()
		d.start()
		d.shared()
	}
	stop.Store(true)
	playing.Wait()
	doneWith(t, d.b)
	audit(t, d.b, sent)
}
