package supervisor

import (
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
)

func TestBackoffDoublesToItsMaximumAndStartsOverAfterAStableRun(t *testing.T) {
	t.Parallel()
	r := plan.Restart{Delay: 100 * time.Millisecond, Max: time.Second, Reset: 10 * time.Second}
	var b backoff
	const middle = 0.5 // no jitter
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if got := b.wait(r, time.Second, middle); got != want*time.Millisecond {
			t.Errorf("delay %d is %s, want %dms", i, got, want)
		}
	}
	if got := b.wait(r, 10*time.Second, middle); got != r.Delay {
		t.Errorf("after a stable run the delay is %s, want %s", got, r.Delay)
	}
	if got := b.wait(r, 0, middle); got != 2*r.Delay {
		t.Errorf("the one after is %s, want %s", got, 2*r.Delay)
	}
}

func TestBackoffStraysByAFifth(t *testing.T) {
	t.Parallel()
	r := plan.Restart{Delay: 100 * time.Millisecond, Max: time.Second, Reset: time.Second}
	var low, high backoff
	if got := low.wait(r, 0, 0); got != 80*time.Millisecond {
		t.Errorf("the shortest is %s", got)
	}
	if got := high.wait(r, 0, 1); got != 120*time.Millisecond {
		t.Errorf("the longest is %s", got)
	}
}
