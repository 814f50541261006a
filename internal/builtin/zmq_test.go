package builtin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// serveZMQ runs a socket and returns its address for pyzmq.
func serveZMQ(t testing.TB, conn *bus.Conn, z manifest.ZMQSocket) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if z.HWM == 0 {
		z.HWM = 1000
	}
	r, err := newZMQ(conn, z, ln, testkit.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("zmq: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	testkit.Wait(t, r.Ready())
	return "tcp://" + ln.Addr().String(), stop
}

// script is a running program of testdata/zmq. It knows nothing of Hozo.
type script struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	lines chan string // closed at the end
	tail  strings.Builder
}

// python is Debian's, for which the package python3-zmq is.
const python = "/usr/bin/python3"

func startScript(t testing.TB, name string, args ...string) *script {
	t.Helper()
	if err := exec.Command(python, "-c", "import zmq").Run(); err != nil {
		t.Fatalf("pyzmq is missing: run internal/testkit/deps.sh (%v)", err)
	}
	s := &script{t: t, name: name, lines: make(chan string)}
	s.cmd = exec.CommandContext(t.Context(), python, append([]string{filepath.Join("testdata", "zmq", name)}, args...)...)
	s.cmd.Stderr = &s.tail
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	ended := make(chan struct{})
	reader.Go(func() {
		defer close(s.lines)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			select {
			case s.lines <- lines.Text():
			case <-ended:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = s.cmd.Process.Kill() // it may have ended
		reader.Wait()
		_ = s.cmd.Wait()
	})
	return s
}

// line is the next line that the script prints.
func (s *script) line() string {
	s.t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			s.t.Fatalf("%s ended: %s", s.name, s.tail.String())
		}
		return line
	case <-time.After(testkit.Patience):
		s.t.Fatalf("%s says nothing", s.name)
		return ""
	}
}

func (s *script) want(line string) {
	s.t.Helper()
	if got := s.line(); got != line {
		s.t.Fatalf("%s says %q, want %q", s.name, got, line)
	}
}

func zmqGrant(t testing.TB, b *testkit.TestBroker, g wire.Grant) *bus.Conn {
	t.Helper()
	g.Service = "gate"
	return connect(t, b, b.Grant(t, g))
}

func storing(subject, stream string) wire.Grant {
	return wire.Grant{Publish: []wire.Route{{Subject: subject, Stream: stream}}}
}

func numberedJSON(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"n":%d}`, i))
	}
	return all
}

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

// The peer blocks at its own high-water mark while the stream is full, and nothing of it is lost.
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

// unacknowledged is how much of a stream the gate has not finished.
func unacknowledged(t testing.TB, b *testkit.TestBroker, stream string) uint64 {
	c, err := b.JS.Consumer(testkit.Context(t), wire.StreamName(stream), "gate")
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().NumPending + uint64(c.CachedInfo().NumAckPending)
}

// A peer that reads nothing gets what fits and holds nobody up; when it dies, what it was not given goes to others.
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

func TestRequestsAreAnsweredAndFailuresHaveThreeParts(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	server := connect(t, b, b.Grant(t, wire.Grant{Service: "pricing", Serves: []string{"pricing.quote"}}))
	call := bus.NewCall[[]byte, []byte]("pricing.quote")
	run(t, call.Serve(server, func(_ context.Context, q []byte) ([]byte, error) {
		if string(q) == "bad" {
			return nil, &fault.Error{Code: "pricing/unknown", What: "no such thing"}
		}
		return append([]byte("price of "), q...), nil
	}, bus.ServeConfig{}))
	conn := zmqGrant(t, b, wire.Grant{Calls: []string{"pricing.quote"}})
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Rep: "pricing.quote"})
	s := startScript(t, "req.py", address, "apple", "bad", "pear")
	s.want("price of apple")
	if got := s.line(); !strings.HasPrefix(got, "|pricing/unknown|") || !strings.Contains(got, "no such thing") {
		t.Errorf("the failure is %q", got)
	}
	s.want("price of pear")
}

func TestPlainLetsInThoseInTheFile(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	conn := zmqGrant(t, b, storing(rawStream, rawStream))
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# who may push\nann:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := serveZMQ(t, conn, manifest.ZMQSocket{Pull: rawStream, Plain: file})
	startScript(t, "plain.py", address, "ann", "wrong").want("refused")
	startScript(t, "plain.py", address, "", "").want("refused")
	startScript(t, "plain.py", address, "ann", "secret").want("let in")
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 1 }, "its message is stored")
	wantEvents(t, b, "hello of ann")

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readUsers(file); fault.Code(err) != "zmq/users" || !strings.Contains(err.Error(), "everybody") {
		t.Errorf("an open file gives %v", err)
	}
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
