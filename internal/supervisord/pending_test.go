//go:build linux

package supervisord

import (
	"context"
	"errors"
	"testing"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

// The answer to a shutdown is the last thing that a daemon does: it has its client, though everything ends at once.
func TestAnAnswerIsNotLostWhenTheDaemonEndsRightAfterIt(t *testing.T) {
	t.Parallel()
	for range 200 {
		d := &Daemon{calls: make(chan func()), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			answer := <-d.calls
			answer()
			close(d.closed)
			cancel()
		}()
		res, err := d.ask(ctx, func() result { return value(true) })
		<-ended
		if err != nil || res.value != true {
			t.Fatalf("the answer to a call: %v, error %v; want true", res.value, err)
		}
	}
}

// A call that nobody will answer any more says why.
func TestACallWithoutAnAnswerEndsWithItsCause(t *testing.T) {
	t.Parallel()
	gone := errors.New("the client has gone")
	unanswered := func() result {
		return waitFor(func() (any, bool, *xmlrpc.Fault) { return nil, false, nil })
	}
	for _, c := range []struct {
		name string
		end  func(*Daemon, context.CancelCauseFunc)
		want error
	}{
		{"the daemon ends", func(d *Daemon, _ context.CancelCauseFunc) { close(d.closed) }, errClosing},
		{"the client goes", func(_ *Daemon, cancel context.CancelCauseFunc) { cancel(gone) }, gone},
	} {
		d := &Daemon{calls: make(chan func()), closed: make(chan struct{})}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			call := <-d.calls
			call()
			c.end(d, cancel)
		}()
		_, err := d.ask(ctx, unanswered)
		<-ended
		cancel(nil)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}
