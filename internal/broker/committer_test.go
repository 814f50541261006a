package broker_test

import (
	"encoding/json"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// commit asks for one commit.
func commit(t *testing.T, nc *nats.Conn, stream, body string) wire.Commit {
	t.Helper()
	var answer wire.Commit
	ask(t, nc, wire.CommitSubject+"."+stream, body, &answer)
	return answer
}

func ask(t *testing.T, nc *nats.Conn, subject, body string, into any) {
	t.Helper()
	msg, err := nc.RequestWithContext(testkit.Context(t), subject, []byte(body))
	if err != nil {
		t.Errorf("ask %s: %v", subject, err)
		return
	}
	if err := json.Unmarshal(msg.Data, into); err != nil {
		t.Errorf("%s answers %q: %v", subject, msg.Data, err)
	}
}

func TestOneSyncServesAllWhoWait(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "orders", MaxBytes: 1 << 20})
	const writers, each = 32, 8
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				ack, err := b.JS.Publish(testkit.Context(t), "orders", []byte("order"))
				if err != nil {
					t.Error(err)
					return
				}
				if done := commit(t, b.NC, "orders", strconv.FormatUint(ack.Sequence, 10)); done.Seq < ack.Sequence || done.Error != "" {
					t.Errorf("commit of %d is answered %+v", ack.Sequence, done)
				}
			}
		})
	}
	wg.Wait()
	var costs []wire.SyncCost
	ask(t, b.NC, wire.SyncSubject, "", &costs)
	if len(costs) != 1 || costs[0].Stream != "orders" || costs[0].Commits != writers*each {
		t.Fatalf("the cost of %d commits is %+v", writers*each, costs)
	}
	cost := costs[0]
	if cost.Syncs == 0 || cost.Syncs >= cost.Commits {
		t.Errorf("%d syncs served %d commits: nobody shared one", cost.Syncs, cost.Commits)
	}
	if cost.P50 <= 0 || cost.P99 < cost.P50 || cost.PerSecond <= 0 {
		t.Errorf("the figures say nothing: %+v", cost)
	}
}

func TestCommitKnowsAStreamThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	for range 3 {
		if _, err := b.JS.CreateStream(testkit.Context(t), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}}); err != nil {
			t.Fatal(err)
		}
		publishAll(t, b.JS, "orders", 3, 10)
		for seq := range uint64(3) {
			if done := commit(t, b.NC, "orders", strconv.FormatUint(seq+1, 10)); done.Seq != 3 {
				t.Errorf("commit of %d is answered %+v, the stream ends at 3", seq+1, done)
			}
		}
		if err := b.JS.DeleteStream(testkit.Context(t), "orders"); err != nil {
			t.Fatal(err)
		}
		if done := commit(t, b.NC, "orders", "3"); done.Error == "" {
			t.Errorf("a commit on a stream that is gone is answered %+v", done)
		}
	}
}

func TestCommitRefusesWhatIsNotOnDisk(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "fleeting", MaxBytes: 1 << 20, Memory: true})
	b.Declare(t, broker.StreamSpec{Name: "orders", MaxBytes: 1 << 20})
	for _, c := range []struct{ stream, body string }{
		{"nowhere", "1"}, {"fleeting", "1"}, {"orders", "-1"}, {"orders", "x"}, {"orders", ""},
	} {
		if done := commit(t, b.NC, c.stream, c.body); done.Error == "" {
			t.Errorf("a commit of %q on %q is answered %+v", c.body, c.stream, done)
		}
	}
	if done := commit(t, b.NC, "orders", "5"); done.Error != "" || done.Seq != 0 {
		t.Errorf("a commit beyond the end of an empty stream is answered %+v", done)
	}
}

func TestOnlyWhoStoresOrReadsMayCommit(t *testing.T) {
	t.Parallel()
	power := wire.Grant{Service: "a", Publish: []wire.Route{{Subject: "orders", Stream: "orders", Power: true}}}
	other := wire.Grant{Service: "a", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}}
	subject := wire.CommitSubject + ".orders"
	if pub, _ := broker.Rights(power); !contains(pub, subject) {
		t.Errorf("who stores with durability power may not publish %s: %q", subject, pub)
	}
	if pub, _ := broker.Rights(other); contains(pub, subject) {
		t.Errorf("who stores with durability process may publish %s", subject)
	}
}

func contains(patterns []string, subject string) bool {
	for _, p := range patterns {
		if wire.Covers(p, subject) {
			return true
		}
	}
	return false
}

func TestCostTellsAMemoryFileSystem(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerIn(t, testkit.Tmpfs(t, 64<<20))
	b.Declare(t, broker.StreamSpec{Name: "orders", MaxBytes: 1 << 20, Dedupe: time.Minute})
	publishAll(t, b.JS, "orders", 1, 10)
	if done := commit(t, b.NC, "orders", "1"); done.Seq != 1 {
		t.Fatalf("commit is answered %+v", done)
	}
	var costs []wire.SyncCost
	ask(t, b.NC, wire.SyncSubject, "", &costs)
	if len(costs) != 1 || !costs[0].Memory {
		t.Errorf("a store on tmpfs is told as %+v", costs)
	}
}
