// Package testkit gives tests real things to work against: a broker, child processes, full disks; and the waiting that
// goes with them. Only _test files import it.
package testkit

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait of this package. It is a minute: the slowest step seen on a busy two-core machine under the
// race detector took 6s, others have slower and busier ones, and a wait that fails is a failed test anyway.
const Patience = time.Minute

// Wait receives from ch, or fails t after Patience. A closed channel gives the zero value.
func Wait[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatalf("nothing came within %s", Patience)
		panic("unreachable")
	}
}

// Eventually asks cond every 10ms until it holds, or fails t with msg after Patience. It is for things outside of this
// process only; inside there is always an event to Wait for.
func Eventually(t testing.TB, cond func() bool, msg string) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(Patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %s: %s", Patience, msg)
		}
		<-ticker.C
	}
}

// Context returns a context that ends with t, and at the latest after Patience, so that a call that hangs fails its own
// test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// TempDir makes a folder that is removed with t. Unlike t.TempDir its path is short (about 16 bytes), so that unix
// sockets fit in it: their paths are limited to 107 bytes.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hz")
	if err != nil {
		t.Fatalf("make a temporary folder: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the temporary folder: %v", err)
		}
	})
	return dir
}

// Logger returns a logger that writes to t's log, at level Info and above, and drops what comes after the end of t.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	mu     sync.Mutex
	t      testing.TB
	closed bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}
