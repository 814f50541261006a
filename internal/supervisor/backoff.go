package supervisor

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
)

// jitterShare is how much longer than it says a delay may be, so that instances that fell together do not rise
// together. It is never shorter: what a policy promises to a neighbour that has to recover holds.
const jitterShare = 0.2

// promptDelays is how many of the policy's Delay a run must have lasted for the first restart to come at once. With the
// default that is the second of s6: what fails sooner has likely failed to start, and would fail again.
const promptDelays = 10

// backoff says when an instance that fell is started again. It reads no clock: all its times are of keeper.Monotonic,
// so no setting of the wall clock moves them. The zero backoff has forgiven everything.
type backoff struct {
	next   time.Duration   // delay after the next fall; 0: the policy's Delay
	starts []time.Duration // within the policy's Window, oldest first; never more than Budget+1 of them count
	spent  bool            // the budget is, and no run has been stable since
}

// again is what a backoff says after a fall.
type again struct {
	after time.Duration // from the fall to the next start
	spent bool          // the budget of restarts is
	never bool          // it is not started again: spent, and the policy then fails
}

// started notes a start.
func (b *backoff) started(r plan.Restart, now time.Duration) {
	b.prune(now - r.Window)
	b.starts = append(b.starts, now)
	// More than the budget tell nothing new.
	b.starts = slices.Delete(b.starts, 0, max(0, len(b.starts)-r.Budget-1))
}

// fell returns what comes after a fall at now of a run that lasted up: the first restart at once, if the program had been
// up, then the policy's Delay, doubled from fall to fall. random is uniform in [0, 1).
func (b *backoff) fell(r plan.Restart, now, up time.Duration, random float64) again {
	first := b.next == 0 || up >= r.Reset
	if first {
		b.next, b.spent = r.Delay, false
	}
	after := time.Duration(0)
	if !first || up < promptDelays*r.Delay {
		after = strayed(min(b.next, r.Max), random)
		b.next = min(b.next*2, r.Max)
	}
	b.prune(now + after - r.Window)
	b.spent = b.spent || len(b.starts) >= r.Budget
	switch {
	case !b.spent:
		return again{after: after}
	case r.Then == plan.Fail:
		return again{spent: true, never: true}
	default:
		return again{after: max(after, strayed(r.RetryAfter, random)), spent: true}
	}
}

func (b *backoff) prune(before time.Duration) {
	b.starts = slices.DeleteFunc(b.starts, func(s time.Duration) bool { return s <= before })
}

// forgive makes the next fall the first one again.
func (b *backoff) forgive() { *b = backoff{} }

// backoffLabel is a backoff as a process's label, from which the next supervisor goes on.
type backoffLabel struct {
	Next   time.Duration   `json:"next,omitempty"`
	Starts []time.Duration `json:"starts,omitempty"`
	Spent  bool            `json:"spent,omitempty"`
}

func (b *backoff) label() string {
	text, err := json.Marshal(backoffLabel{b.next, b.starts, b.spent})
	if err != nil {
		panic("supervisor: internal error: a backoff that JSON cannot hold: " + err.Error())
	}
	return string(text)
}

// backoffOf reads a label; one that is missing or cannot be read forgives.
func backoffOf(label string) backoff {
	var l backoffLabel
	if err := json.Unmarshal([]byte(label), &l); err != nil {
		return backoff{}
	}
	return backoff{l.Next, l.Starts, l.Spent}
}

func strayed(d time.Duration, random float64) time.Duration {
	return time.Duration(float64(d) * (1 + jitterShare*random))
}

// random is uniform in [0, 1).
func random() float64 { return rand.Float64() }
