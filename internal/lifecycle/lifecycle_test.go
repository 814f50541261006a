package lifecycle_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hozo-dev/hozo/internal/lifecycle"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal notes what parts do, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, lines) {
		t.Errorf("got  %v\nwant %v", j.lines, lines)
	}
}

// part notes its start and stop. It is ready when told, or never.
type part struct {
	name  string
	log   *journal
	ready chan struct{}
	fail  chan error // ends it by itself
	err   error      // of an asked-for stop
	cause error      // why it was stopped
}

func newPart(name string, log *journal) *part {
	return &part{name: name, log: log, ready: make(chan struct{}), fail: make(chan error)}
}

func (p *part) Ready() <-chan struct{} { return p.ready }

func (p *part) Run(ctx context.Context) error {
	p.log.note("start " + p.name)
	defer p.log.note("stop " + p.name)
	select {
	case <-ctx.Done():
		p.cause = context.Cause(ctx)
		return p.err
	case err := <-p.fail:
		return err
	}
}

// bubble runs a group of a, b and c in a bubble: synctest.Wait then means that nothing more will happen by itself.
func bubble(t *testing.T, story func(t *testing.T, stop func(), a, b, c *part, log *journal, result func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		a, b, c := newPart("a", log), newPart("b", log), newPart("c", log)
		var g lifecycle.Group
		for _, p := range []*part{a, b, c} {
			g.Add(p.name, p)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1) // the one result
		var wg sync.WaitGroup
		wg.Go(func() { done <- g.Run(ctx) })
		synctest.Wait()
		story(t, cancel, a, b, c, log, func() error { wg.Wait(); return <-done })
	})
}

func TestGroupStartsEachAfterTheOneBeforeIsReady(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, stop func(), a, b, c *part, log *journal, result func() error) {
		log.want(t, "start a")
		close(a.ready)
		synctest.Wait()
		log.want(t, "start a", "start b")
		close(b.ready)
		synctest.Wait()
		log.want(t, "start a", "start b", "start c")
		stop()
		if err := result(); err != nil {
			t.Errorf("an asked-for stop gives %v", err)
		}
	})
}

func TestGroupStopsInReverseAndTellsWhy(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, stop func(), a, b, c *part, log *journal, result func() error) {
		for _, p := range []*part{a, b, c} {
			close(p.ready)
			synctest.Wait()
		}
		stop()
		if err := result(); err != nil {
			t.Error(err)
		}
		log.want(t, "start a", "start b", "start c", "stop c", "stop b", "stop a")
		if !errors.Is(a.cause, lifecycle.ErrStopped) {
			t.Errorf("the cause is %v", a.cause)
		}
	})
}

func TestGroupStopsAllWhenOneFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ func(), a, b, c *part, log *journal, result func() error) {
		for _, p := range []*part{a, b, c} {
			close(p.ready)
			synctest.Wait()
		}
		broken, late := errors.New("broken"), errors.New("late")
		a.err = late
		b.fail <- broken
		err := result()
		if !errors.Is(err, broken) || !errors.Is(err, late) {
			t.Errorf("error is %v, want both", err)
		}
		if !strings.Contains(err.Error(), "b: broken") || !strings.Contains(err.Error(), "a: late") {
			t.Errorf("%v does not name the parts", err)
		}
		log.want(t, "start a", "start b", "start c", "stop b", "stop c", "stop a")
	})
}

func TestGroupStopsAllWhenOneReturnsByItself(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ func(), a, b, c *part, log *journal, result func() error) {
		for _, p := range []*part{a, b, c} {
			close(p.ready)
			synctest.Wait()
		}
		c.fail <- nil
		if err := result(); err != nil {
			t.Error(err)
		}
		log.want(t, "start a", "start b", "start c", "stop c", "stop b", "stop a")
	})
}

func TestGroupDoesNotGoOnWhenAPartFailsBeforeItIsReady(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ func(), a, b, _ *part, log *journal, result func() error) {
		close(a.ready)
		synctest.Wait()
		broken := errors.New("broken")
		b.fail <- broken
		if err := result(); !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
		log.want(t, "start a", "start b", "stop b", "stop a")
	})
}

func TestGroupStopsWhileAPartIsNotReady(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, stop func(), a, _, _ *part, log *journal, result func() error) {
		stop()
		if err := result(); err != nil {
			t.Error(err)
		}
		log.want(t, "start a", "stop a")
	})
}

func TestEmptyGroupRunsUntilItIsStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var g lifecycle.Group
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
}
