package hozotest_test

import (
	"context"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/hozotest"
	"github.com/hozo-dev/hozo/task"
)

type mail struct{ To string }

var (
	send = task.NewKind[mail]("mail.send", task.Config{})

	t *testing.T // that of a test function
)

// reminderIsSentAfterAnHour is the body of a test function.
func reminderIsSentAfterAnHour(t *testing.T) {
	env := hozotest.New(t, hozotest.Config{Text: `
project: mail
services:
  sender: { run: ./sender, handles: [mail.send] }
`}) // or Manifest: "../hozo.yaml"

	sent := make(chan string, 2)
	env.Run("sender", hozo.Handle(send, func(_ context.Context, one task.Task[mail]) error {
		sent <- one.Args.To
		return nil
	}))
	if _, err := send.Enqueue(t.Context(), env.Conn(), mail{"a@example.com"}, task.In(time.Hour)); err != nil {
		t.Fatal(err)
	}
	env.Drain()
	if len(sent) != 0 {
		t.Error("it was sent early")
	}
	env.Advance(time.Hour)
	if len(sent) != 1 {
		t.Errorf("it was sent %d times", len(sent))
	}
}

// A service sends mail an hour after it was asked to.
func Example() {
	reminderIsSentAfterAnHour(t)
}
