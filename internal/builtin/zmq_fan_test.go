package builtin

import (
	"net"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestSubscribersGetWhatTheySubscribeTo(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	f := serveFan(t, conn, manifest.ZMQSocket{Pub: rawStream, HWM: 1000})
	all, push := startScript(t, "sub.py", f.address, "", "20"), startScript(t, "sub.py", f.address, rawStream+".pu", "10")
	all.want("ready")
	push.want("ready")
	testkit.Eventually(t, func() bool { return f.subscriptions() == 2 }, "both have subscribed")
	publishJSON(t, b, rawStream, rawStream+".push", 10)
	publishJSON(t, b, rawStream, rawStream+".watch", 10)
	for _, e := range numberedJSON(10) {
		push.want(rawStream + ".push " + e)
		all.want(rawStream + ".push " + e)
	}
	for _, e := range numberedJSON(10) {
		all.want(rawStream + ".watch " + e)
	}
}

func TestLiveEventsGoToSubscribersAndComeFromPublishers(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, wire.Grant{Watches: []string{"prices.>"}})
	f := serveFan(t, conn, manifest.ZMQSocket{Pub: "prices.>", HWM: 1000})
	in, _ := serveZMQ(t, connect(t, b, b.Grant(t, wire.Grant{Service: "in", Live: []string{"prices.>"}})), manifest.ZMQSocket{Sub: "prices.>"})
	s := startScript(t, "sub.py", f.address, "prices.b", "5")
	s.want("ready")
	testkit.Eventually(t, func() bool { return f.subscriptions() == 1 }, "it has subscribed")
	startScript(t, "pub.py", in, "5").want("sent 10")
	for _, e := range numberedJSON(5) {
		s.want("prices.berlin " + e)
	}
}

type servedFan struct {
	*zmqFan
	address string
}

func (f servedFan) subscriptions() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		n += len(p.prefixes)
	}
	return n
}

func serveFan(t *testing.T, conn *bus.Conn, z manifest.ZMQSocket) servedFan {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newZMQ(conn, z, ln, testkit.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	return servedFan{r.(*zmqFan), "tcp://" + ln.Addr().String()}
}

func TestSlowSubscriberLosesAndOthersDoNot(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	f := serveFan(t, conn, manifest.ZMQSocket{Pub: rawStream, HWM: 1})
	here, there := net.Pipe() // without buffers: what is not read is not written
	defer here.Close()
	served := make(chan error, 1)
	go func() { f.meet(t.Context(), there, f.give); served <- nil }()
	go func() {
		ready := "READY\x0bSocket-Type\x00\x00\x00\x03SUB"
		_, _ = here.Write([]byte("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + strings.Repeat("\x00", 48) + "\x04" + string(rune(1+len(ready))) + "\x05" + ready + "\x00\x01\x01"))
	}()
	answer := make([]byte, 64+2+1+len("READY\x0bSocket-Type\x00\x00\x00\x03PUB"))
	for n := 0; n < len(answer); {
		m, err := here.Read(answer[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	testkit.Eventually(t, func() bool { return f.subscriptions() == 1 }, "it has subscribed")
	publishJSON(t, b, rawStream, rawStream, 100)
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "nobody waits for it")
	if n := conn.Counters().Dropped.Load(); n != 99 {
		t.Errorf("%d messages were dropped of 100, of which one is in its hands", n)
	}
	here.Close()
	testkit.Wait(t, served)
}

func TestPublishersTopicsBecomeSubjects(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, storing("weather.>", "weather"))
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Sub: "weather.>"})
	startScript(t, "pub.py", address, "500").want("sent 1000")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 1000 }, "all are stored")
	s, err := b.JS.Stream(testkit.Context(t), "weather")
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"weather.berlin", "weather.tokyo.north"} {
		if _, err := s.GetLastMsgForSubject(testkit.Context(t), subject); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
}
