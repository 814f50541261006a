package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestTapShowsWhatFlowsAndNothingElse(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	var got []string
	err := p.client.Tap(testkit.Context(t), node.Tap{Subject: "events.raw", Where: "n > 1"}, func(one node.Tapped) bool {
		if one.Ready {
			p.feed(t, `{"n":1}`, `{"n":2}`, `no JSON`, `{"n":3}`)
			return true
		}
		got = append(got, one.Subject+" "+string(one.Data))
		return len(got) < 2
	})
	if want := `events.raw {"n":2},events.raw {"n":3}`; err != nil || strings.Join(got, ",") != want {
		t.Errorf("tapped %q, %v; want %q", got, err, want)
	}
}

// A replay into a service is interrupted and resumed: the service gets every event once more, under its old name.
func TestReplayIsResumedWhereItWasLeftAndKeepsNames(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	const n = 300
	events := make([]string, n)
	for i := range events {
		events[i] = fmt.Sprintf("bad %d", i) // it is parked under its name, which tells who got what
	}
	p.feed(t, events...)
	p.await(t, "all parked", func(s status.Snapshot) bool { return service(s, "worker").Traffic.Parked == n })
	named := func() map[string]string {
		letters, err := p.client.DeadLetters(ctx, node.Filter{}, 0, 2*n)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for _, l := range letters {
			all[l.Event] = l.Subject
		}
		return all
	}
	before := named()
	if _, err := p.client.DropDead(ctx, node.Selection{All: true}, nil); err != nil {
		t.Fatal(err)
	}
	r := node.Replay{ID: "again", Stream: "events.raw", To: "worker", Events: 200}
	interrupted, stop := context.WithCancel(ctx)
	at, err := p.client.Replay(interrupted, r, false, func(at node.Replayed) {
		if at.Frames > 20 {
			stop()
		}
	})
	stop()
	if err == nil || at.Done {
		t.Fatalf("the interrupted replay: %+v, %v", at, err)
	}
	kill(t, platform(t, p.status(t), "node").PID)
	p.await(t, "the next node", ready)
	done, err := p.client.Replay(ctx, node.Replay{ID: "again", Stream: "events.raw", To: "worker"}, true, nil)
	if err != nil || !done.Done || done.Sent != n || done.Frames < at.Frames {
		t.Fatalf("the resumed replay: %+v, %v", done, err)
	}
	testkit.Eventually(t, func() bool { return len(named()) == n }, "all parked again")
	for event, subject := range named() {
		if before[event] != subject {
			t.Errorf("event %s came as %q, was %q", event, subject, before[event])
		}
	}
	retries, err := p.admin(t).Stream(ctx, "hozo_retry")
	if err != nil {
		t.Fatal(err)
	}
	info, err := retries.Info(ctx, jetstream.WithSubjectFilter("hozo.retry.worker.events_raw.>"))
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(info.State.Subjects)) != info.State.Msgs || info.State.Msgs != done.Frames {
		t.Errorf("%d frames were sent %d times, the replay says %d", len(info.State.Subjects), info.State.Msgs, done.Frames)
	}
}
