//go:build linux

package supervisord

import (
	"context"
	"errors"
	"slices"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

// errClosing ends calls that were waiting when the daemon ended.
var errClosing = errors.New("the daemon is ending")

// step is a call that has not got its answer yet: the loop asks it again after every change, until it is done.
type step func() (value any, done bool, fault *xmlrpc.Fault)

// result is the answer to a call, or the step that will give it.
type result struct {
	value any
	fault *xmlrpc.Fault
	wait  step
}

func value(v any) result                       { return result{value: v} }
func fail(code faultCode, about string) result { return result{fault: newFault(code, about)} }
func waitFor(s step) result                    { return result{wait: s} }

// pendingCall is a client that waits.
type pendingCall struct {
	ctx   context.Context //nolint:containedctx // the loop must know who has gone away
	wait  step
	reply chan result
}

// ask has the loop make a call, and waits for the answer.
func (d *Daemon) ask(ctx context.Context, call func() result) (result, error) {
	reply := make(chan result, 1) // the loop never waits for a client
	select {
	case d.calls <- func() {
		r := call()
		if r.wait == nil {
			reply <- r
			return
		}
		d.pending = append(d.pending, &pendingCall{ctx: ctx, wait: r.wait, reply: reply})
		d.changed()
	}:
	case <-ctx.Done():
		return result{}, context.Cause(ctx)
	case <-d.closed:
		return result{}, errClosing
	}
	var err error
	select {
	case r := <-reply:
		return r, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-d.closed:
		err = errClosing
	}
	select {
	case r := <-reply: // the last thing that the loop did: a daemon that ends cancels ctx right after it
		return r, nil
	default:
		return result{}, err
	}
}

// runPending asks every waiting call whether it has its answer.
func (d *Daemon) runPending() {
	d.pending = slices.DeleteFunc(d.pending, func(c *pendingCall) bool {
		if c.ctx.Err() != nil {
			return true
		}
		v, done, fault := c.wait()
		if fault != nil {
			c.reply <- result{fault: fault}
			return true
		}
		if done {
			c.reply <- value(v)
		}
		return done
	})
}
