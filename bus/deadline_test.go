package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlineEndsTheCallThatOverrunsAndNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tooLong := errors.New("too long")
		d := &deadline{after: 8 * time.Second, overrun: tooLong}
		defer d.stop()
		// Calls that take less than their time go on for ever, back to back or with pauses.
		for i := range 100 {
			ctx := d.begin(t.Context())
			time.Sleep(7 * time.Second)
			if ctx.Err() != nil {
				t.Fatalf("call %d ended after 7s of 8s", i)
			}
			if i%3 == 0 && d.over() {
				t.Fatalf("call %d overran in 7s of 8s", i)
			}
			if i%6 == 0 {
				time.Sleep(time.Hour)
			}
		}
		// One that takes longer ends, with the cause, in its time and an eighth of it.
		start := time.Now()
		ctx := d.begin(t.Context())
		<-ctx.Done()
		if took := time.Since(start); took < 8*time.Second || took > 9*time.Second {
			t.Errorf("a call of 8s was ended after %v", took)
		}
		if !errors.Is(context.Cause(ctx), tooLong) || !d.over() {
			t.Errorf("cause %v", context.Cause(ctx))
		}
		// Whether it is told to be over or not, the next one is another call.
		for _, tell := range []bool{true, false} {
			<-d.begin(t.Context()).Done()
			if tell && !d.over() {
				t.Error("it did not overrun")
			}
			if ctx := d.begin(t.Context()); ctx.Err() != nil {
				t.Errorf("the call after one that overran has ended: %v", context.Cause(ctx))
			}
			if d.over() {
				t.Error("the call after one that overran overran")
			}
		}
	})
}

func TestDeadlineEndsWithWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &deadline{after: time.Hour}
		defer d.stop()
		stopped := errors.New("stopped")
		work, stop := context.WithCancelCause(t.Context())
		ctx := d.begin(work)
		stop(stopped)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), stopped) || d.over() {
			t.Errorf("cause %v", context.Cause(ctx))
		}
		if ctx := d.begin(work); ctx.Err() == nil {
			t.Error("a call begun after the end of work runs")
		}
	})
}
