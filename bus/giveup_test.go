package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// giveUpAt says at which look at its error a giver stops itself; nothing: it handles every event.
const giveUpAt = "TEST_GIVE_UP_AT"

// runGiver is one instance of the service in a process of its own, until SIGTERM. It cannot handle even moves if it is to
// stop itself.
func runGiver() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := giveUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "giver:", err)
		os.Exit(1)
	}
}

func giveUp(ctx context.Context) error {
	c, err := bus.FromEnv(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	reason := &stoppingError{}
	reason.left.Store(-1)
	if text := os.Getenv(giveUpAt); text != "" {
		at, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		reason.left.Store(int64(at))
	}
	stage, err := bus.NewStage(c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
		if reason.left.Load() != -1 && e.Value.N%2 == 0 {
			return bus.Reject("giver/even", reason)
		}
		return copyMove(ctx, e, out)
	}, bus.StageConfig{})
	if err != nil {
		return err
	}
	err = stage.Run(ctx)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), testkit.Patience)
	defer cancel()
	if closeErr := c.Close(end); err == nil {
		err = closeErr
	}
	return err
}

// stoppingError is an error that stops its process when its text is asked for the n-th time: a stage asks when it records
// that it gives up an event, and again when it stores the dead letter.
type stoppingError struct{ left atomic.Int64 }

func (e *stoppingError) Error() string {
	if e.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // nobody forbids it
	}
	return "an even move"
}

// An owner is stopped at each moment between the failure of an event and its dead letter. Another one takes over, and
// the first wakes up: every event is handled or parked, and none is both.
func TestWhatALateOwnerParksWasNotHandled(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 6; at++ {
		t.Run(fmt.Sprintf("stopped at look %d", at), func(t *testing.T) {
			t.Parallel()
			b := testkit.Broker(t)
			grants := make([]string, 2)
			dir := testkit.TempDir(t)
			for i := range grants {
				data, err := json.Marshal(b.Grant(t, orderedGrant()))
				if err != nil {
					t.Fatal(err)
				}
				grants[i] = filepath.Join(dir, strconv.Itoa(i))
				if err := os.WriteFile(grants[i], data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			const n = 8
			b2 := bus.NewBuilder(wire.CodecNone) // one frame
			for i := range n {
				b2.Add(encoded(t, move{"key", i}))
			}
			c := mover(t, b)
			subject := wire.PartitionSubject(keyed, keyed, wire.PartitionOf([]byte("key"), partitions))
			if _, err := c.PublishFrame(testkit.Context(t), subject, nil, b2.Frame()); err != nil {
				t.Fatal(err)
			}
			first := testkit.Start(t, "giver", wire.EnvBus+"="+b.URL, wire.EnvGrant+"="+grants[0], fmt.Sprintf("%s=%d", giveUpAt, at))
			testkit.Eventually(t, func() bool { return stoppedProcess(t, first.PID) }, "the first owner has stopped itself")
			testkit.Start(t, "giver", wire.EnvBus+"="+b.URL, wire.EnvGrant+"="+grants[1])
			doneWith(t, b)
			first.Signal(t, syscall.SIGCONT)
			first.Signal(t, syscall.SIGTERM)
			testkit.Wait(t, first.Done)

			seen := map[int][]string{}
			for _, e := range stored(t, b, keyedOut) {
				if !wire.IsFence(keyedOut, e.msg.Subject()) {
					i := decodedMove(t, e.data).N
					seen[i] = append(seen[i], "handled")
				}
			}
			parked := 0
			for _, e := range stored(t, b, wire.DeadStream) {
				i := decodedMove(t, e.data).N
				seen[i] = append(seen[i], "parked")
				parked++
			}
			for i := range n {
				if len(seen[i]) != 1 {
					t.Errorf("move %d was %v", i, seen[i])
				}
			}
			t.Logf("%d of %d are parked", parked, n)
		})
	}
}

// stoppedProcess says whether a process stands still.
func stoppedProcess(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "T")
}
