package node_test

import (
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestFiltersChooseAmongDeadLetters(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	began := time.Now()
	p.feed(t, "bad one", "bad two", "bad three")
	var all []node.DeadLetter
	testkit.Eventually(t, func() bool {
		var err error
		if all, err = p.client.DeadLetters(ctx, node.Filter{}, 0, 0); err != nil {
			t.Fatal(err)
		}
		return len(all) == 3
	}, "three parked events")
	for name, c := range map[string]struct {
		filter node.Filter
		want   int
	}{
		"its service":       {node.Filter{Service: "worker"}, 3},
		"another service":   {node.Filter{Service: "feeder"}, 0},
		"its stream":        {node.Filter{Stream: "events.raw"}, 3},
		"another stream":    {node.Filter{Stream: "events"}, 0},
		"its code":          {node.Filter{Code: "tiny/bad"}, 3},
		"another code":      {node.Filter{Code: "tiny"}, 0},
		"its event":         {node.Filter{ID: all[1].Event}, 1},
		"another event":     {node.Filter{ID: "events.raw:99:0"}, 0},
		"its data":          {node.Filter{Grep: "bad t(wo|hree)"}, 2},
		"its error":         {node.Filter{Grep: "it is bad"}, 3},
		"since before":      {node.Filter{Since: began}, 3},
		"since later":       {node.Filter{Since: time.Now().Add(time.Hour)}, 0},
		"until before":      {node.Filter{Until: began}, 0},
		"until later":       {node.Filter{Until: time.Now().Add(time.Hour)}, 3},
		"several of these":  {node.Filter{Service: "worker", Stream: "events.raw", Code: "tiny/bad", Grep: "one"}, 1},
		"several, one not ": {node.Filter{Service: "worker", Code: "x", Grep: "one"}, 0},
	} {
		got, err := p.client.DeadLetters(ctx, c.filter, 0, 0)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %d letters, %v; want %d", name, len(got), err, c.want)
		}
		dry, err := p.client.DropDead(ctx, node.Selection{Filter: c.filter, DryRun: true}, nil)
		if err != nil || dry.Count != c.want || !dry.DryRun {
			t.Errorf("%s: a dry run would drop %+v, %v; want %d", name, dry, err, c.want)
		}
	}
	for _, wrong := range []node.Filter{{Service: "*"}, {Grep: "("}, {ID: "events.raw"}} {
		if _, err := p.client.DeadLetters(ctx, wrong, 0, 0); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
	if left, err := p.client.DeadLetters(ctx, node.Filter{}, 0, 0); err != nil || len(left) != 3 {
		t.Errorf("dry runs left %d letters, %v", len(left), err)
	}
}

// Two who send back the same letters at the same time send each back once.
func TestRetryTwiceDeliversOnce(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	events := make([]string, 20)
	for i := range events {
		events[i] = "bad"
	}
	p.feed(t, events...)
	var letters []node.DeadLetter
	testkit.Eventually(t, func() bool {
		var err error
		if letters, err = p.client.DeadLetters(ctx, node.Filter{}, 0, 0); err != nil {
			t.Fatal(err)
		}
		return len(letters) == len(events)
	}, "parked events")
	seqs := make([]uint64, len(letters))
	for i, l := range letters {
		seqs[i] = l.Seq
	}
	var done [2]node.Bulk
	var wg sync.WaitGroup
	for i := range done {
		wg.Go(func() {
			var err error
			if done[i], err = p.client.RetryDead(ctx, node.Selection{Seqs: seqs}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done[0].Count+done[1].Count != len(seqs) || done[0].Gone+done[1].Gone != len(seqs) {
		t.Errorf("sent back %+v and %+v, want %d together", done[0], done[1], len(seqs))
	}
	retries, err := p.admin(t).Stream(ctx, "hozo_retry")
	if err != nil {
		t.Fatal(err)
	}
	if n := retries.CachedInfo().State.Msgs; n != uint64(len(seqs)) {
		t.Errorf("%d events are on their way, want %d", n, len(seqs))
	}
}
