package builtin

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestPushedMessagesAreStoredInOrder(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, storing(rawStream, rawStream))
	address, stop := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream})
	startScript(t, "push.py", address, "20000").want("sent 20000")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 20000 }, "20000 events are stored")
	stop()
	wantEvents(t, b, numberedJSON(20000)...)
}

func TestStreamsWithoutFramesHoldOneMessageAnEvent(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := storing(rawStream, rawStream)
	g.Publish[0].Compression = "none" // and no frames
	conn := zmqGrant(t, b, g)
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream})
	startScript(t, "push.py", address, "200").want("sent 200")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 200 }, "200 events are stored")
	wantEvents(t, b, numberedJSON(200)...)
	s, err := b.JS.Stream(testkit.Context(t), wire.StreamName(rawStream))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 200 {
		t.Errorf("the stream holds %d messages, want 200", n)
	}
}

func TestFullStreamBlocksThePusher(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: rawStream, MaxBytes: 1 << 20})
	conn := zmqGrant(t, b, storing(rawStream, rawStream))
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream})
	s := startScript(t, "fill.py", address, "1000", "20000") // 40 MB of text, half of that when compressed
	blocked, ok := strings.CutPrefix(s.line(), "blocked ")
	n, err := strconv.Atoi(blocked)
	if !ok || err != nil || n == 0 || n >= 1000 {
		t.Fatalf("blocked after %q of 1000 messages", blocked)
	}
	b.Declare(t, broker.StreamSpec{Name: rawStream, MaxBytes: 256 << 20})
	s.want("sent 1000")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 1000 }, "all are stored")
	for i, e := range events(t, b, rawStream) {
		if number, _, _ := strings.Cut(e, " "); number != strconv.Itoa(i) {
			t.Fatalf("event %d is message %s", i, number)
		}
	}
}

func TestPusherOutlivesARestartOfTheGatewayAndTheBroker(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, storing(rawStream, rawStream))
	address, stop := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream})
	b.Stop(t)
	startScript(t, "push.py", address, "50").want("sent 50") // its messages wait here
	b.Start(t)
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 50 }, "what was sent meanwhile is stored")
	stop()
	late := startScript(t, "push.py", address, "50") // nobody listens: it waits and tries again
	ln, err := net.Listen("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newZMQ(conn, manifest.ZMQSocket{Pull: rawStream}, ln, testkit.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	late.want("sent 50")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 100 }, "the second process stores as well")
	wantEvents(t, b, slices.Concat(numberedJSON(50), numberedJSON(50))...)
}

func TestGarbageAndStrangersAreSentAwayAndOthersServed(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, storing(rawStream, rawStream))
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream, MaxMessage: 4096})
	for _, bytes := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("\x00", 100), "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + strings.Repeat("\x00", 48) + "\x02\x7f\xff\xff\xff\xff\xff\xff\xff"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
			t.Fatal(err)
		}
		for buf := make([]byte, 1024); err == nil; {
			_, err = c.Read(buf)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q is not sent away", bytes)
		}
		c.Close()
	}
	startScript(t, "push.py", address, "10").want("sent 10")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 10 }, "a good peer is served")
}

func TestMultipartEventsKeepTheirParts(t *testing.T) {
	t.Parallel()
	for _, parts := range [][][]byte{{[]byte("a")}, {{}, []byte("b"), {}}, {[]byte(strings.Repeat("x", 70_000)), []byte("\x00\x00\x00\x01")}} {
		got, err := splitParts(appendParts(nil, parts...))
		if err != nil || !slices.EqualFunc(got, parts, slices.Equal[[]byte]) {
			t.Errorf("%d parts became %d (%v)", len(parts), len(got), err)
		}
	}
	for _, bad := range []string{"", "\x00", "\x00\x00\x00\x02a", "\xff\xff\xff\xffa", "\x00\x00\x00\x01ab"} {
		if parts, err := splitParts([]byte(bad)); err == nil {
			t.Errorf("%q has parts %q", bad, parts)
		}
	}
	for topic, want := range map[string]string{"a": "s.a", "a.B_c": "s.a.B_c", "": "", "a..b": "", "a b": "", "*": "", "a.>": "", "a\xff": "", strings.Repeat("a", 129): ""} {
		if got, err := topicSubject("s", []byte(topic)); got != want || (err == nil) != (want != "") {
			t.Errorf("topic %q becomes %q (%v)", topic, got, err)
		}
	}
}
