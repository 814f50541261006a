package builtin

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRetryAfterFollowsTheDrainRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		within := func(b *budget, low, high time.Duration) {
			t.Helper()
			for range 50 { // it varies
				if d := b.retryAfter(); d < low || d > high {
					t.Fatalf("retry after %s, want %s to %s", d, low, high)
				}
			}
		}
		b := newBudget(1000)
		within(b, time.Second, 2*time.Second) // nothing waits
		if !b.take(1000) || b.take(1) {
			t.Fatal("the budget is not 1000")
		}
		within(b, 4*time.Second, 6*time.Second) // nothing is known
		for range 20 {                          // 50 bytes a second leave, and others come
			time.Sleep(time.Second)
			b.give(50)
			if !b.take(50) {
				t.Fatal("no room for what was given")
			}
		}
		within(b, 8*time.Second, 12*time.Second) // 500 of them must go
		b.give(600)
		within(b, time.Second, 2*time.Second)
		if !b.take(600) {
			t.Fatal("no room")
		}
		time.Sleep(10 * time.Minute) // all stands still
		within(b, time.Second, 36*time.Second)
	})
}

func TestBrokerIsAwayTooLongOnlyWhenItStaysAway(t *testing.T) {
	t.Parallel()
	var a awayClock
	now := time.Unix(1000, 0)
	for i, step := range []struct {
		connected bool
		after     time.Duration
		want      bool
	}{
		{false, 0, false},
		{false, storePatience, false},
		{false, storePatience + 1, true},
		{true, time.Hour, false},
		{false, time.Hour + 1, false},
		{false, time.Hour + storePatience, false},
		{false, 2 * time.Hour, true},
	} {
		if got := a.tooLong(step.connected, now.Add(step.after)); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
