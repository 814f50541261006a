package testkit

import (
	"context"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/internal/lifecycle"
)

const (
	stressRunners = 4 // at once: twice the cores of the smallest machine that the tests run on
	stressRounds  = 4
)

// Stress starts and stops Runners from many goroutines: stopped before they run, while they start, and when they are
// ready. Every Run must return nil within Patience. newRunner is called concurrently and gives a new Runner each time.
func Stress(t *testing.T, newRunner func() lifecycle.Runner) {
	t.Helper()
	var wg sync.WaitGroup
	for range stressRunners {
		wg.Go(func() {
			for round := range stressRounds {
				stressOne(t, newRunner(), round%3)
			}
		})
	}
	wg.Wait()
}

func stressOne(t *testing.T, r lifecycle.Runner, moment int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if moment == 0 {
		cancel()
	}
	ended := make(chan error, 1) // one Run, one result: it never blocks on its way out
	var wg sync.WaitGroup
	wg.Go(func() { ended <- r.Run(ctx) })
	if moment == 1 {
		select {
		case <-r.Ready():
		case err := <-ended:
			t.Errorf("Run ended before it was ready: %v", err)
			return
		}
		var stop sync.WaitGroup
		for range 3 { // a stop may be asked for by several at once
			stop.Go(cancel)
		}
		stop.Wait()
	}
	cancel()
	err := <-ended
	wg.Wait()
	if err != nil {
		t.Errorf("Run after an asked-for stop: %v", err)
	}
}
