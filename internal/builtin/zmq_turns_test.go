package builtin

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func publishJSON(t testing.TB, b *testkit.TestBroker, stream, subject string, n int) {
	t.Helper()
	g := b.Grant(t, wire.Grant{Service: "source", Publish: []wire.Route{{Subject: stream + ".>", Stream: stream}, {Subject: stream, Stream: stream}}})
	p, err := connect(t, b, g).NewPublisher(subject, bus.PublisherConfig{FrameBytes: 512})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range numberedJSON(n) {
		if _, err := p.Publish(testkit.Context(t), []byte(e)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPullersShareAStreamAndItIsAcknowledged(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Push: rawStream, HWM: 20})
	first, second := startScript(t, "pull.py", address, "1000000"), startScript(t, "pull.py", address, "1000000")
	first.want("ready")
	second.want("ready")
	const n = 3000
	publishJSON(t, b, rawStream, rawStream, n)
	seen, each := map[string]int{}, [2]int{}
	for len(seen) < n {
		select {
		case line := <-first.lines:
			seen[line]++
			each[0]++
		case line := <-second.lines:
			seen[line]++
			each[1]++
		case <-time.After(testkit.Patience):
			t.Fatalf("%d of %d messages came", len(seen), n)
		}
	}
	for line, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", line, times)
		}
	}
	if each[0] < n/10 || each[1] < n/10 {
		t.Errorf("shared as %v", each)
	}
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "everything is acknowledged")
}

func unacknowledged(t testing.TB, b *testkit.TestBroker, stream string) uint64 {
	c, err := b.JS.Consumer(testkit.Context(t), wire.StreamName(stream), "gate")
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().NumPending + uint64(c.CachedInfo().NumAckPending)
}

func TestSlowPullerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Push: rawStream, HWM: 10})
	deaf, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if err := deaf.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	ready := "READY\x0bSocket-Type\x00\x00\x00\x04PULL"
	hello := "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + strings.Repeat("\x00", 48) + "\x04" + string(rune(1+len(ready))) + "\x05" + ready
	if _, err := deaf.Write([]byte(hello)); err != nil {
		t.Fatal(err)
	}
	g := b.Grant(t, storing(rawStream, rawStream))
	p, err := connect(t, b, g).NewPublisher(rawStream, bus.PublisherConfig{FrameBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	puller := startScript(t, "pull.py", address, "1000000")
	puller.want("ready")
	const n = 4000 // 40 MB: far more than any socket buffer
	pad := strings.Repeat("x", 10_000)
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := range n {
			if _, err := p.Publish(testkit.Context(t), fmt.Appendf(nil, "%d %s", i, pad)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer publisher.Wait()
	seen := map[string]bool{}
	count := func() {
		number, _, _ := strings.Cut(puller.line(), " ")
		seen[number] = true
	}
	for len(seen) < n/2 { // with a peer beside it that has not taken its half
		count()
	}
	deaf.Close()
	// What the deaf peer's socket had taken is lost with it; its kernel buffers hold less than a quarter.
	for len(seen) < n*3/4 {
		count()
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range puller.lines { // the script must be able to go on
		}
	}()
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "everything is acknowledged")
	_ = puller.cmd.Process.Kill()
	testkit.Wait(t, drained)
}
