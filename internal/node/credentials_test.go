package node_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// A password is replaced while events flow, and again by a node that was killed in between: no process starts anew, no
// event is lost, and the passwords before open nothing once their grace is over.
func TestCredentialsAreReplacedUnderLoadAndAcrossAKilledNode(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 2)
	s := p.await(t, "ready", ready)
	before := pids(s)
	read := func() wire.Grant {
		g, err := wire.ReadGrant(filepath.Join(p.state, "grants", "worker.1.json"))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	seen := map[string]bool{read().Password: true}
	n := 0
	feed := func() {
		for range 20 {
			p.feed(t, "good "+strconv.Itoa(n))
			n++
		}
	}
	for round := range 2 {
		done, err := p.client.Rotate(testkit.Context(t), nil, node.DefaultOverlap)
		if err != nil || len(done.Instances) != 3 {
			t.Fatalf("rotate: %v, %v", done, err)
		}
		now := read()
		if seen[now.Password] || now.Expires.Before(done.Until) {
			t.Errorf("round %d: the password was not replaced, or expires at once: %v", round, now.Expires)
		}
		seen[now.Password] = true
		feed()
		if round == 0 {
			kill(t, platform(t, s, "node").PID)
			s = p.await(t, "the next node", func(now status.Snapshot) bool {
				return ready(now) && platform(t, now, "node").PID != platform(t, s, "node").PID
			})
			if again := read(); again.Password != now.Password {
				t.Error("the next node replaced a password that was not due")
			}
		}
	}
	s = p.await(t, "everything handled", func(s status.Snapshot) bool {
		return service(s, "worker").Traffic.EventsIn >= uint64(n)
	})
	for name, pid := range pids(s) {
		if before[name] != pid {
			t.Errorf("%s was started anew", name)
		}
	}
	g := read()
	if _, err := nats.Connect(p.bus(t), nats.UserInfo(g.User, g.Password+"x"), nats.NoReconnect(), nats.Timeout(testkit.Patience)); err == nil {
		t.Error("a wrong password got in")
	}
	nc, err := nats.Connect(p.bus(t), nats.UserInfo(g.User, g.Password), nats.NoReconnect(), nats.Timeout(testkit.Patience))
	if err != nil {
		t.Fatalf("the current password is refused: %v", err)
	}
	nc.Close()
}
