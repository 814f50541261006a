package task_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// shape is a random workflow: what each of its tasks waits for, and how it ends.
type shape []shapeNode

type shapeNode struct {
	after   []int // earlier ones
	failure bool  // a failure branch of after
	dies    bool
	fails   int // how often before it ends
}

func anyShape(t *rapid.T) shape {
	s := make(shape, rapid.IntRange(1, 9).Draw(t, "tasks"))
	for i := range s {
		n := &s[i]
		if i > 0 {
			n.after = rapid.SliceOfNDistinct(rapid.IntRange(0, i-1), 0, min(i, 4), rapid.ID[int]).Draw(t, "after")
			slices.Sort(n.after)
		}
		n.failure = len(n.after) > 0 && rapid.IntRange(0, 4).Draw(t, "failure") == 0
		n.dies = rapid.IntRange(0, 5).Draw(t, "dies") == 0
		n.fails = rapid.IntRange(0, 1).Draw(t, "fails")
	}
	return s
}

// failing are the tasks whose failure begins the failure branch i.
func (s shape) failing(i int) map[int]bool {
	all := map[int]bool{}
	var visit func(int)
	visit = func(o int) {
		all[o] = true
		if !s[o].failure {
			for _, before := range s[o].after {
				visit(before)
			}
		}
	}
	for _, o := range s[i].after {
		visit(o)
	}
	return all
}

// expected is how each task must end.
func (s shape) expected() []task.State {
	all := make([]task.State, len(s))
	for i, n := range s {
		own := task.Done
		if n.dies {
			own = task.Dead
		}
		if n.failure {
			all[i] = task.Skipped
			for o := range s.failing(i) {
				if all[o] == task.Dead {
					all[i] = own
				}
			}
			continue
		}
		all[i] = own
		for _, o := range n.after {
			if all[o] != task.Done {
				all[i] = task.Blocked
			}
		}
	}
	return all
}

// Random workflows run each task once, behind what it waits for, and end as a simple model says.
func TestRandomWorkflowsEndAsTheModelSays(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	var mu sync.Mutex
	var now shape
	var flow string
	var ended []int // in their order
	tries := map[int]int{}
	place := func(id string) (i int, ours bool) {
		_, err := fmt.Sscanf(strings.TrimPrefix(id, flow+":"), "n%d", &i)
		return i, err == nil && strings.HasPrefix(id, flow+":")
	}
	handle := func(id string) error {
		mu.Lock()
		defer mu.Unlock()
		i, ours := place(id)
		if !ours {
			t.Errorf("%s is run after the end of its workflow", id)
			return nil
		}
		for _, before := range now[i].after {
			if !now[i].failure && !slices.Contains(ended, before) {
				t.Errorf("n%d is run before n%d has ended", i, before)
			}
		}
		if tries[i]++; tries[i] <= now[i].fails {
			return errors.New("not yet")
		}
		if ended = append(ended, i); now[i].dies {
			return task.Reject(errors.New("it dies"))
		}
		return nil
	}
	runs(t, task.NewWorker(f.conn, note, func(_ context.Context, one task.Task[string]) error { return handle(one.ID) }, task.WorkerConfig{}))
	runs(t, task.NewWorker(f.conn, alert, func(_ context.Context, one task.Task[task.Failure]) error { return handle(one.ID) }, task.WorkerConfig{}))
	rapid.Check(t, func(rt *rapid.T) {
		s := anyShape(rt)
		var members []task.Member
		for i, n := range s {
			var of []task.Member
			for _, before := range n.after {
				of = append(of, members[before])
			}
			if n.failure {
				members = append(members, task.OnFailure(alert, of...).Named(fmt.Sprintf("n%d", i)))
			} else {
				members = append(members, note.With("").Named(fmt.Sprintf("n%d", i)).After(of...))
			}
		}
		made, err := task.NewFlow("random", task.FlowConfig{}, members...)
		if err != nil {
			rt.Fatal(err)
		}
		mu.Lock()
		now, flow, ended = s, fmt.Sprintf("flow%d", time.Now().UnixNano()), nil
		clear(tries)
		mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		h, err := made.Start(ctx, f.conn, task.ID(flow))
		if err != nil {
			rt.Fatal(err)
		}
		status, _ := h.Wait(ctx) // a failure is compared below
		mu.Lock()
		defer mu.Unlock()
		want, failed := s.expected(), false
		for _, one := range status.Tasks {
			var i int
			if _, err := fmt.Sscanf(one.Name, "n%d", &i); err != nil {
				rt.Fatal(err)
			}
			failed = failed || want[i] == task.Dead
			if one.State != want[i] {
				rt.Errorf("n%d is %s, want %s", i, one.State, want[i])
			}
			calls := 0
			if want[i] == task.Done || want[i] == task.Dead {
				calls = s[i].fails + 1
			}
			if tries[i] != calls {
				rt.Errorf("n%d was run %d times, want %d", i, tries[i], calls)
			}
		}
		if whole := map[bool]task.State{true: task.Failed, false: task.Done}[failed]; status.State != whole || !status.Ended || len(status.Tasks) != len(s) {
			rt.Errorf("the workflow is %+v, want %s", status, whole)
		}
	})
}
