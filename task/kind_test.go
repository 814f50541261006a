package task

import (
	"testing"
	"time"
)

func TestDelayDoublesUpToItsMostAndIsSpread(t *testing.T) {
	t.Parallel()
	cfg := Config{Backoff: time.Second, MaxBackoff: 10 * time.Second}.withDefaults()
	for attempt, full := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1 << 40: 10 * time.Second,
	} {
		seen := make(map[time.Duration]bool)
		for range 20 {
			d := cfg.delay(attempt)
			if d < full/2 || d > full {
				t.Errorf("delay after attempt %d is %v, want %v to %v", attempt, d, full/2, full)
			}
			seen[d] = true
		}
		if len(seen) < 2 {
			t.Errorf("delay after attempt %d is always the same", attempt)
		}
	}
}

func TestZeroConfigIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	want := Config{Attempts: 10, Backoff: time.Second, MaxBackoff: 5 * time.Minute, Timeout: 5 * time.Minute, Crashes: 3}
	if got := (Config{}).withDefaults(); got != want {
		t.Errorf("defaults are %+v, want %+v", got, want)
	}
	if got := (Config{Backoff: time.Hour}).withDefaults().MaxBackoff; got != time.Hour {
		t.Errorf("a first backoff of an hour grows to %v", got)
	}
}
