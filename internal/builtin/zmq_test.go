package builtin

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
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

// The peer blocks at its own high-water mark while the stream is full, and nothing of it is lost.
// unacknowledged is how much of a stream the gate has not finished.
// A peer that reads nothing gets what fits and holds nobody up; when it dies, what it was not given goes to others.
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
