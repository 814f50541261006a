package supervisor_test

import (
	"os"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

func TestLogSettingsReachARunningProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	a := w.sleeper("a.1")
	a.Log.Keep = 5
	v.apply(t, a)
	pid := v.await(t, status.Ready, "a.1").PID
	old := func() {
		for _, slot := range []string{".1", ".2", ".3", ".4"} {
			must(t, os.WriteFile(a.Log.Path+slot, []byte("old\n"), 0o600))
		}
	}
	// await waits for what the keeper does on its own time.
	await := func(keep int) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(patience); ; <-tick.C {
			left := 0
			for _, slot := range []string{".1", ".2", ".3", ".4"} {
				if _, err := os.Stat(a.Log.Path + slot); err == nil {
					left++
				}
			}
			if left == keep {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d rotated files are left, not %d", left, keep)
			}
		}
	}
	old()
	a.Log.Keep = 2
	v.apply(t, a)
	await(2)

	// The next supervisor does not know what the last one wanted.
	v.stop()
	old()
	next := w.supervise(t)
	a.Log.Keep = 1
	next.apply(t, a)
	await(1)
	if now := next.get(t, "a.1"); now.PID != pid {
		t.Errorf("process %d became %d", pid, now.PID)
	}
}
