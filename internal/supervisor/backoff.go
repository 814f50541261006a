package supervisor

import (
	"math/rand/v2"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
)

// jitterShare is how far a delay strays to either side, so that instances that fell together do not rise together.
const jitterShare = 0.2

// backoff says how long an instance waits before it is started again. The zero backoff starts at the policy's Delay.
type backoff struct {
	next time.Duration
}

// wait returns the delay after a run that lasted up, and doubles the one after. random is uniform in [0, 1).
func (b *backoff) wait(r plan.Restart, up time.Duration, random float64) time.Duration {
	if b.next == 0 || up >= r.Reset {
		b.next = r.Delay
	}
	d := min(b.next, r.Max)
	b.next = min(d*2, r.Max)
	return strayed(d, random)
}

// reset makes the next delay the first again.
func (b *backoff) reset() { b.next = 0 }

func strayed(d time.Duration, random float64) time.Duration {
	return time.Duration(float64(d) * (1 - jitterShare + 2*jitterShare*random))
}

// random is uniform in [0, 1).
func random() float64 { return rand.Float64() }
