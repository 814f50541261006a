package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/hozotest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// modelled is a task and what a simple model knows of it.
type modelled struct {
	h      task.Handle
	script []string // how its attempts end; done behind the last
	state  task.State
	failed int
	runs   int           // calls of the handler so far
	due    time.Duration // of a task that is delayed or waits for its next attempt
	unique string        // what it holds
	ready  bool          // it could run but for the pause
}

const (
	modelAttempts = 3
	modelBackoff  = 10 * time.Second
	modelAdvance  = 1000 * time.Second // far longer than all attempts of a task together
)

// queueModel is a queue as it should be: everything at once, and time as the test says.
type queueModel struct {
	tasks  []*modelled
	now    time.Duration
	paused bool
}

// settle runs what can be run at m.now.
func (m *queueModel) settle() {
	for _, one := range m.tasks {
		waits := one.state == task.Scheduled || one.state == task.Retrying
		one.ready = one.ready || one.state == task.Pending || (waits && one.due <= m.now)
		if one.ready && one.state == task.Scheduled {
			one.state = task.Pending
		}
		if one.ready && m.paused {
			one.due = m.now // what it waits for next is counted from when it goes on
		}
		for one.ready && !m.paused {
			m.run(one)
			one.ready = one.state == task.Retrying && one.due <= m.now
		}
	}
}

func (m *queueModel) run(one *modelled) {
	how := "done"
	if one.runs < len(one.script) {
		how = one.script[one.runs]
	}
	one.runs++
	switch {
	case how == "done":
		one.state, one.unique = task.Done, ""
	case how == "snooze":
		one.state = task.Retrying
	case how == "reject", one.failed+1 >= modelAttempts:
		one.failed++
		one.state, one.unique = task.Dead, ""
	default:
		one.failed++
		one.state = task.Retrying
	}
	// A delay has its end between two times that the test sets, whatever its jitter is.
	one.due += modelBackoff
}

// Random sequences of all that can be done to a queue end as the model says, on the real broker. HOZO_MODEL_SEEDS=1000 is a
// long form.
func TestQueueBehavesAsItsModel(t *testing.T) {
	t.Parallel()
	const queue = "model.task"
	seeds := uint64(4)
	if text := os.Getenv("HOZO_MODEL_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.ParseUint(text, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	kind := task.NewKind[int](queue, task.Config{Attempts: modelAttempts, Backoff: modelBackoff, MaxBackoff: modelBackoff, Keep: time.Hour})
	env := hozotest.New(t, hozotest.Config{Text: "project: p\nservices: { a: { run: x, handles: [" + queue + "] } }"})
	var mu sync.Mutex
	var scripts [][]string // by the arguments
	var calls []int
	env.Run("a", hozo.Handle(kind, func(_ context.Context, one task.Task[int]) error {
		mu.Lock()
		defer mu.Unlock()
		n := calls[one.Args]
		calls[one.Args]++
		if n >= len(scripts[one.Args]) {
			return nil
		}
		switch scripts[one.Args][n] {
		case "fail":
			return errors.New("it fails")
		case "reject":
			return task.Reject(errors.New("it is rejected"))
		case "snooze":
			return task.Snooze(modelBackoff)
		}
		return nil
	}))
	// Uniform choices by a seed: property generators favour small values, and the rare sequences are what this is about.
	play := func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // not a secret
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		m := &queueModel{}
		run := fmt.Sprint(time.Now().UnixNano()) // uniquenesses of this run
		mu.Lock()
		base := len(scripts)
		mu.Unlock()
		// pick chooses among the tasks in these states, or all.
		pick := func(states ...task.State) *modelled {
			var all []*modelled
			for _, one := range m.tasks {
				if one.h.ID != "" && (len(states) == 0 || slices.Contains(states, one.state)) {
					all = append(all, one)
				}
			}
			if len(all) == 0 {
				return nil
			}
			return all[rng.IntN(len(all))]
		}
		enqueue := func(id string) {
			script := make([]string, rng.IntN(5))
			for i := range script {
				script[i] = []string{"done", "fail", "fail", "snooze", "reject"}[rng.IntN(5)]
			}
			delay := []time.Duration{0, 0, modelAdvance / 2, modelAdvance * 3 / 2}[rng.IntN(4)]
			name := []string{"", "", "x", "y"}[rng.IntN(4)]
			var opts []task.Option
			if delay > 0 {
				opts = append(opts, task.In(delay))
			}
			var holder *modelled
			if name != "" {
				opts = append(opts, task.Unique(run+name))
				for _, one := range m.tasks {
					if one.unique == name {
						holder = one
					}
				}
			}
			if id != "" {
				opts = append(opts, task.ID(id))
			}
			mu.Lock()
			scripts, calls = append(scripts, script), append(calls, 0)
			number := len(scripts) - 1
			mu.Unlock()
			h, err := kind.Enqueue(ctx, env.Conn(), number, opts...)
			if err != nil {
				t.Fatal(err)
			}
			one := &modelled{h: h, script: script, state: task.Pending, due: m.now, unique: name}
			switch {
			case id != "":
				if !h.Duplicate || h.ID != id {
					t.Errorf("a second task %s is %+v", id, h)
				}
				one = nil
			case holder != nil:
				if !h.Duplicate || h.ID != holder.h.ID {
					t.Errorf("a second %s is %+v, want %s", name, h, holder.h.ID)
				}
				one = nil
			case h.Duplicate:
				t.Errorf("%+v is a duplicate of nothing", h)
			case delay > 0:
				one.state, one.due = task.Scheduled, m.now+delay
			}
			if one == nil { // the place of its script stays empty
				one = &modelled{}
			}
			m.tasks = append(m.tasks, one)
		}
		actions := map[string]func(){
			"enqueue": func() { enqueue("") },
			"enqueue again": func() {
				if one := pick(); one != nil {
					enqueue(one.h.ID)
				}
			},
			"advance": func() {
				m.now += modelAdvance
				env.Advance(modelAdvance)
			},
			"pause": func() {
				m.paused = true
				env.Pause(queue)
			},
			"resume": func() {
				m.paused = false
				env.Resume(queue)
			},
			"cancel": func() {
				one := pick()
				if one == nil {
					return
				}
				err := one.h.Cancel(ctx)
				live := one.state != task.Done && one.state != task.Dead && one.state != task.Cancelled
				switch {
				case live && err != nil, !live && one.state != task.Cancelled && fault.Code(err) != task.CodeEnded:
					t.Errorf("cancel of a task that is %s: %v", one.state, err)
				case live:
					one.state, one.unique, one.ready = task.Cancelled, "", false
				}
			},
			"retry": func() {
				one := pick(task.Dead)
				if one == nil {
					return
				}
				for _, letter := range env.DeadLetters() {
					if letter.Task == one.h.ID {
						env.Retry(letter)
						one.state, one.failed, one.due = task.Pending, 0, m.now
					}
				}
				if one.state == task.Dead {
					t.Errorf("a dead task has no letter")
				}
			},
		}
		names := []string{"enqueue", "enqueue", "enqueue", "enqueue again", "advance", "advance", "pause", "resume", "cancel", "retry", "retry"}
		for range 20 {
			name := names[rng.IntN(len(names))]
			actions[name]()
			env.Drain()
			m.settle()
			for i, one := range m.tasks {
				if one.h.ID == "" {
					continue
				}
				s, err := one.h.Status(ctx)
				if err != nil || s.State != one.state {
					t.Fatalf("after %s task %d (%v) is %s, %v; want %s", name, i, one.script, s.State, err, one.state)
				}
				mu.Lock()
				ran := calls[base+i]
				mu.Unlock()
				if ran != one.runs {
					t.Fatalf("after %s task %d (%v) was run %d times, want %d", name, i, one.script, ran, one.runs)
				}
			}
		}
		if env.Resume(queue); m.paused {
			m.paused = false
		}
		env.Advance(2 * modelAdvance) // nothing is left for the next
		m.now += 2 * modelAdvance
		m.settle()
		for i, one := range m.tasks {
			if one.h.ID == "" {
				continue
			}
			if s, err := one.h.Status(ctx); err != nil || s.State != one.state {
				t.Fatalf("at the end task %d (%v) is %s, %v; want %s", i, one.script, s.State, err, one.state)
			}
		}
	}
	for seed := range seeds {
		if play(t, seed); t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}
