package task

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestCallContextEndsLikeARealOneHoweverLateItIsAsked(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for name, test := range map[string]struct {
		limit time.Duration
		end   func(c *callContext, stop context.CancelCauseFunc)
		err   error
		cause error
	}{
		"goes on":           {time.Hour, func(*callContext, context.CancelCauseFunc) {}, nil, nil},
		"cancelled":         {time.Hour, func(c *callContext, _ context.CancelCauseFunc) { c.cancel(why); c.cancel(nil) }, context.Canceled, why},
		"over time":         {-time.Second, func(*callContext, context.CancelCauseFunc) {}, context.DeadlineExceeded, &overrun{-time.Second}},
		"worker is stopped": {time.Hour, func(_ *callContext, stop context.CancelCauseFunc) { stop(why) }, context.Canceled, why},
	} {
		for _, early := range []bool{false, true} {
			work, stop := context.WithCancelCause(t.Context())
			c := newCallContext(work, test.limit)
			if early {
				c.Done()
			}
			test.end(c, stop)
			child, end := context.WithCancel(c)
			cause := context.Cause(c)
			overran, isOverrun := errors.AsType[*overrun](cause)
			known := errors.Is(cause, test.cause) || (isOverrun && overran.limit == test.limit)
			if c.Err() != test.err || child.Err() != test.err || !known {
				t.Errorf("%s, early %v: %v, of a child %v, because of %v", name, early, c.Err(), child.Err(), cause)
			}
			if until, ok := c.Deadline(); !ok || time.Until(until) > test.limit {
				t.Errorf("%s: deadline %v, %v", name, until, ok)
			}
			c.cancel(nil)
			if child.Err() == nil {
				t.Errorf("%s: a child outlives the call", name)
			}
			end()
			stop(nil)
		}
	}
}
