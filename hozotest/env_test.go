package hozotest_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/hozotest"
	"github.com/hozo-dev/hozo/task"
)

func TestReminderIsSentAfterAnHour(t *testing.T) {
	t.Parallel()
	reminderIsSentAfterAnHour(t)
}

// told is a test that notes what it is failed with.
type told struct {
	testing.TB
	said string
}

func (t *told) Fatalf(format string, args ...any) {
	t.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (t *told) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprint(args...)) }

// failure is what do fails a test with.
func failure(t *testing.T, do func(testing.TB)) string {
	t.Helper()
	inner, done := &told{TB: t}, make(chan struct{})
	go func() {
		defer close(done)
		do(inner)
	}()
	<-done
	return inner.said
}

func TestMistakesAreSaid(t *testing.T) {
	t.Parallel()
	const text = "project: p\nservices: { a: { run: x, handles: [k] } }"
	stuck := make(chan struct{})
	defer close(stuck)
	for name, test := range map[string]struct {
		do   func(testing.TB)
		want string
	}{
		"no manifest": {func(t testing.TB) { hozotest.New(t, hozotest.Config{}) }, "give either the path of a manifest or its text"},
		"bad manifest": {func(t testing.TB) {
			hozotest.New(t, hozotest.Config{Text: "project: p\nservices: { a: { run: x, handels: [k] } }"})
		}, `"handels"`},
		"no file": {func(t testing.TB) { hozotest.New(t, hozotest.Config{Manifest: "nosuch.yaml"}) }, "nosuch.yaml"},
		"no service": {func(t testing.TB) {
			hozotest.New(t, hozotest.Config{Text: text}).Run("b", hozo.Grace(time.Second))
		}, `no instance 1 of a service "b"`},
		"no part": {func(t testing.TB) {
			hozotest.New(t, hozotest.Config{Text: text}).Run("a", hozo.Handle(task.NewKind[int]("other", task.Config{}), func(context.Context, task.Task[int]) error { return nil }))
		}, `service "a" may not handle tasks of kind "other"`},
		"not done": {func(t testing.TB) {
			env, k := hozotest.New(t, hozotest.Config{Text: text}), task.NewKind[int]("k", task.Config{})
			env.Run("a", hozo.Handle(k, func(context.Context, task.Task[int]) error { <-stuck; return nil }), hozo.Grace(100*time.Millisecond))
			if _, err := k.Enqueue(context.Background(), env.Conn(), 1); err != nil {
				t.Fatal(err)
			}
			defer func() { stuck <- struct{}{} }()
			defer env.SetPatience(hozotest.DefaultPatience)
			env.SetPatience(200 * time.Millisecond)
			env.Drain()
		}, "1 tasks of kind k"},
	} {
		if said := failure(t, test.do); !strings.Contains(said, test.want) {
			t.Errorf("%s: it says %q, want %q", name, said, test.want)
		}
	}
}
