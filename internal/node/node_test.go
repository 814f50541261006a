package node_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestKilledNodeComesBackAndEverythingElseRunsOn(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 2)
	p.feed(t, "one", "two")
	before := p.await(t, "two events", eventsIn("worker", 2))
	nodePID, brokerPID := platform(t, before, "node").PID, platform(t, before, "broker").PID
	kill(t, nodePID)
	after := p.await(t, "another node", func(s status.Snapshot) bool {
		return ready(s) && platform(t, s, "node").PID != nodePID
	})
	if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
		t.Errorf("services were touched (-before +after):\n%s", diff)
	}
	if got := platform(t, after, "broker").PID; got != brokerPID {
		t.Errorf("the broker was replaced: %d, before %d", got, brokerPID)
	}
	p.feed(t, "three")
	p.await(t, "three events, counted on", eventsIn("worker", 3))
}

func TestKilledBrokerComesBackAndServicesRunOn(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	p.feed(t, "one")
	before := p.await(t, "one event", eventsIn("worker", 1))
	brokerPID := platform(t, before, "broker").PID
	kill(t, brokerPID)
	after := p.await(t, "another broker", func(s status.Snapshot) bool {
		b := platform(t, s, "broker")
		return b.State == status.Ready && b.PID != brokerPID && len(s.Streams) == 1
	})
	if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
		t.Errorf("services were touched (-before +after):\n%s", diff)
	}
	p.feed(t, "two")
	s := p.await(t, "both events", eventsIn("worker", 2))
	if got := s.Streams[0].Messages; got != 2 {
		t.Errorf("stream holds %d frames, want 2", got)
	}
}

func TestTotalsOutliveARestartOfTheService(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	p.feed(t, "one", "two")
	before := p.await(t, "two events", eventsIn("worker", 2))
	kill(t, pids(before)["worker.1"])
	p.await(t, "another worker", func(s status.Snapshot) bool {
		return ready(s) && service(s, "worker").Instances[0].Restarts == 1
	})
	p.feed(t, "three")
	p.await(t, "the sum of both lives", eventsIn("worker", 3))
}

func TestInvalidManifestChangesNothing(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	before := p.status(t)
	p.write(t, manifestHead+"  worker: { run: x, scale: many, unknown: 1 }\n")
	_, err := p.client.Apply(testkit.Context(t), p.file, "")
	faults := fault.Flatten(err)
	if len(faults) < 2 || fault.ExitCode(err) != 2 {
		t.Fatalf("apply returned %v, want every mistake as misuse", err)
	}
	for _, one := range faults {
		if f, ok := fault.As(one); !ok || !strings.HasPrefix(f.Code, "manifest/") || !strings.Contains(f.Where, "hozo.yaml:") {
			t.Errorf("fault without a code or place: %v", one)
		}
	}
	after := p.status(t)
	if diff := cmp.Diff(pids(before), pids(after)); diff != "" {
		t.Errorf("services were touched (-before +after):\n%s", diff)
	}
}

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	before := pids(p.status(t))
	steps, err := p.rewrite(t, manifestServices, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 1 || steps[0].Name != "worker.2" {
		t.Errorf("steps to a second worker: %v", steps)
	}
	after := pids(p.await(t, "two workers", ready))
	if after["worker.1"] != before["worker.1"] || after["feeder.1"] != before["feeder.1"] || after["worker.2"] == 0 {
		t.Errorf("before %v, after %v", before, after)
	}
	grants := filepath.Join(p.state, "grants")
	if _, err := os.Stat(filepath.Join(grants, "worker.2.json")); err != nil {
		t.Errorf("the new worker has no grant: %v", err)
	}
	if _, err := p.rewrite(t, manifestServices, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(grants, "worker.2.json")); !os.IsNotExist(err) {
		t.Errorf("the grant of a worker that is gone: %v", err)
	}
	if steps, err := p.rewrite(t, manifestServices, 1); err != nil || len(steps) != 0 {
		t.Errorf("applying the same again: %v, %v", steps, err)
	}
}

func TestChangedWiringRestartsTheService(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	before := pids(p.status(t))
	if _, err := p.rewrite(t, strings.Replace(manifestServices, "publishes: [events.raw]", "publishes: [events.raw, events.raw.late]", 1), 1); err != nil {
		t.Fatal(err)
	}
	p.await(t, "another feeder", func(s status.Snapshot) bool {
		now := pids(s)
		return ready(s) && now["feeder.1"] != before["feeder.1"] && now["worker.1"] == before["worker.1"]
	})
}

// reader is the first reader of the first stream, with the zero value while the broker has not told of any.
func reader(s status.Snapshot) status.Consumer {
	if len(s.Streams) == 0 || len(s.Streams[0].Consumers) == 0 {
		return status.Consumer{}
	}
	return s.Streams[0].Consumers[0]
}

func TestStoppedServiceStaysStoppedUntilStarted(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	if err := p.client.Stop(ctx, "worker"); err != nil {
		t.Fatal(err)
	}
	s := p.status(t)
	if got := service(s, "worker").Instances[0].State; got != status.Stopped {
		t.Errorf("worker is %s after stop", got)
	}
	p.feed(t, "one")
	p.await(t, "a backlog", func(s status.Snapshot) bool { return reader(s).Lag == 1 })
	if err := p.client.Start(ctx, "worker"); err != nil {
		t.Fatal(err)
	}
	p.await(t, "the backlog worked off", func(s status.Snapshot) bool {
		c := reader(s)
		return c.Service == "worker" && c.Lag == 0 && c.InFlight == 0
	})
	before := pids(p.status(t))["worker.1"]
	if err := p.client.Restart(ctx, "worker.1"); err != nil {
		t.Fatal(err)
	}
	if pids(p.status(t))["worker.1"] == before {
		t.Error("restart left the process")
	}
	if err := p.client.Stop(ctx, "nobody"); fault.ExitCode(err) != 2 {
		t.Errorf("stop of an unknown service: %v", err)
	}
}

func TestDeadLettersAreListedSentBackAndDropped(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	p.feed(t, "good", "bad one", "bad two")
	letters := func() []node.DeadLetter {
		t.Helper()
		all, err := p.client.DeadLetters(ctx, node.Filter{Service: "worker"}, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	testkit.Eventually(t, func() bool { return len(letters()) == 2 }, "two parked events")
	first := letters()[0]
	if first.Service != "worker" || first.Code != "tiny/bad" || first.Subject != "events.raw" || !strings.Contains(first.Error, "it is bad") {
		t.Errorf("letter: %+v", first)
	}
	if _, err := wire.ParseEventID(first.Event); err != nil {
		t.Error(err)
	}
	whole, err := p.client.DeadLetter(ctx, first.Seq)
	if err != nil || (string(whole.Data) != "bad one" && string(whole.Data) != "bad two") {
		t.Errorf("letter %d holds %q, %v", first.Seq, whole.Data, err)
	}
	p.await(t, "a problem that says so", func(s status.Snapshot) bool {
		return slices.ContainsFunc(s.Problems, func(p status.Problem) bool { return p.Code == "dlq/not-empty" })
	})
	// Twice: the way back must be free again for an event that comes back a second time.
	for range 2 {
		seqs := []uint64{letters()[0].Seq, letters()[1].Seq}
		if n, err := p.client.RetryDead(ctx, node.Selection{Filter: node.Filter{Service: "worker"}}, nil); n.Count != 2 || err != nil {
			t.Fatalf("sent back %+v letters, %v", n, err)
		}
		testkit.Eventually(t, func() bool {
			now := letters()
			return len(now) == 2 && now[0].Seq > seqs[1] && now[1].Seq > seqs[1]
		}, "both parked again under new numbers")
	}
	i := slices.IndexFunc(letters(), func(l node.DeadLetter) bool { return l.Event == first.Event })
	if i < 0 || letters()[i].Subject != first.Subject {
		t.Fatalf("events that came back: %+v, want %s among them", letters(), first.Event)
	}
	back := letters()[i]
	if n, err := p.client.DropDead(ctx, node.Selection{Seqs: []uint64{back.Seq}}, nil); n.Count != 1 || err != nil {
		t.Errorf("dropped %+v letters, %v", n, err)
	}
	if n, err := p.client.DropDead(ctx, node.Selection{Seqs: []uint64{back.Seq}}, nil); n.Count != 0 || n.Gone != 1 || err != nil {
		t.Errorf("dropped it again: %+v, %v", n, err)
	}
	if _, err := p.client.DeadLetter(ctx, back.Seq); fault.Code(err) != "dlq/unknown" {
		t.Errorf("a dropped letter: %v", err)
	}
	if n, err := p.client.DropDead(ctx, node.Selection{All: true}, nil); n.Count != 1 || err != nil {
		t.Errorf("dropped %+v letters, %v", n, err)
	}
	if n, err := p.client.RetryDead(ctx, node.Selection{}, nil); n.Count != 0 || fault.ExitCode(err) != 2 {
		t.Errorf("an empty selection sent back %+v, %v", n, err)
	}
}

func TestInterruptedRetryIsFinishedOnce(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	p.feed(t, "bad")
	var letters []node.DeadLetter
	parked := func() bool {
		var err error
		if letters, err = p.client.DeadLetters(ctx, node.Filter{}, 0, 0); err != nil {
			t.Fatal(err)
		}
		return len(letters) == 1
	}
	testkit.Eventually(t, parked, "a parked event")
	first := letters[0]
	id, err := wire.ParseEventID(first.Event)
	if err != nil {
		t.Fatal(err)
	}
	// A node that was killed while it set the letter aside has left it in both places.
	aside := nats.NewMsg(wire.DeadSubject("worker", id) + ".back")
	aside.Data = []byte("bad")
	aside.Header.Set(wire.HeaderSource, first.Event)
	aside.Header.Set(wire.HeaderSubject, first.Subject)
	aside.Header.Set("Hozo-Letter", strconv.FormatUint(first.Seq, 10))
	js := p.admin(t)
	ack, err := js.PublishMsg(ctx, aside)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.client.RetryDead(ctx, node.Selection{All: true}, nil); n.Count != 1 || err != nil {
		t.Fatalf("sent back %+v letters, %v", n, err)
	}
	testkit.Eventually(t, func() bool { return parked() && letters[0].Seq > ack.Sequence }, "the event parked again")
	retries, err := js.Stream(ctx, wire.StreamName(wire.RetryStream))
	if err != nil {
		t.Fatal(err)
	}
	if n := retries.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("the event was sent back %d times", n)
	}
}

func TestDownLeavesNoProcess(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 2)
	if n := len(processes(t, p.dir)); n < 6 {
		t.Fatalf("%d processes run, want at least keeper, node, broker and three instances", n)
	}
	if err := p.client.Down(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	p.awaitOver(t)
	if left := processes(t, p.dir); len(left) > 0 {
		t.Errorf("left running:\n%s", strings.Join(left, "\n"))
	}
	if _, err := p.client.Status(testkit.Context(t)); fault.Code(err) != "node/not-running" {
		t.Errorf("status after down: %v", err)
	}
}

func TestSecretsArePrivate(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	for _, name := range []string{"grants/worker.1.json", "grants/feeder.1.json", "grants/node.json", "broker/access.json", "node.sock"} {
		info, err := os.Stat(filepath.Join(p.state, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o", name, got)
		}
	}
}

func TestEventsTellWhatHappens(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx, cancel := context.WithCancel(testkit.Context(t))
	seen := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var told []status.State
		for e, err := range p.client.Events(ctx) {
			if err != nil {
				return // the test ends
			}
			if e.Instance == "worker.1" {
				told = append(told, e.State)
			}
			if len(told) >= 4 && slices.Contains(told, status.Stopping) && slices.Contains(told, status.Starting) && told[len(told)-1] == status.Ready {
				close(seen)
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	// Nothing tells when the stream is open, so there is more than one thing to see.
	testkit.Eventually(t, func() bool {
		if err := p.client.Restart(ctx, "worker.1"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-seen:
			return true
		default:
			return false
		}
	}, "a restart in the stream of events")
}
