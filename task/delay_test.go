package task_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// Delayed tasks wait in the broker: none begins before its time, each is run once. With HOZO_DELAYED there are so many, due
// over a minute, and 99 of 100 must begin within a second.
func TestDelayedTasksBeginWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	n, over := 5000, 2*time.Second
	long, err := strconv.Atoi(os.Getenv("HOZO_DELAYED"))
	if err == nil {
		n, over = long, time.Minute
	}
	w := worldOf(t, testkit.BrokerProcess(t))
	kind := task.NewKind[int64](kindName, task.Config{})
	ctx := context.WithoutCancel(t.Context())
	e, err := kind.NewEnqueuer(w.conn, task.EnqueuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	before := residentKB(t, w.PID(t))
	first := time.Now().Add(time.Second + time.Duration(n)*100*time.Microsecond)
	for i := range n {
		due := first.Add(over * time.Duration(i) / time.Duration(n))
		if _, err := e.Enqueue(ctx, due.UnixNano(), task.At(due)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	after := residentKB(t, w.PID(t))
	var mu sync.Mutex
	late := make([]time.Duration, 0, n)
	all := make(chan struct{})
	runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[int64]) error {
		d := time.Since(time.Unix(0, one.Args))
		mu.Lock()
		defer mu.Unlock()
		if late = append(late, d); len(late) == n {
			close(all)
		}
		return nil
	}, task.WorkerConfig{Concurrency: 16}))
	select {
	case <-all:
	case <-time.After(time.Until(first) + over + testkit.Patience):
		t.Fatal("not all were run")
	}
	w.waitQueued(t, 0)
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(late, cmp.Compare[time.Duration])
	t.Logf("%d tasks: late by %v at most 50, %v 99 of 100, %v all; the broker took %d bytes for each", n, late[n/2], late[n*99/100], late[n-1], (after-before)*1024/n)
	if len(late) != n || late[0] < 0 {
		t.Errorf("%d of %d were run, the first %v after its time", len(late), n, late[0])
	}
	if long > 0 && late[n*99/100] > time.Second {
		t.Errorf("99 of 100 were late by %v", late[n*99/100])
	}
}

// residentKB is the memory of a process; 0 where that cannot be told.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kb := 0
	if fields := strings.Fields(rest); len(fields) > 0 {
		kb, _ = strconv.Atoi(fields[0])
	}
	return kb
}
