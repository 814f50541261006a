package broker_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const idleConnections = 10_000

// idleBytes is the most that one idle connection may take of the broker's memory; two thirds of it are usual. The race
// detector's shadow memory makes it four times as much.
func idleBytes() int64 {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				return 4 * 96 << 10
			}
		}
	}
	return 96 << 10
}

// Ten thousand connections that say nothing cost bounded memory, and others are served beside them.
func TestTenThousandIdleConnections(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	was := limit
	limit.Cur = max(limit.Cur, min(limit.Max, idleConnections+1024))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was) })
	n := idleConnections
	if most := int(limit.Cur) - 1024; most < n {
		n = most
		t.Logf("%d files may be open here: %d connections", limit.Cur, n)
	}
	b := testkit.BrokerProcess(t)
	g := b.Grant(t, wire.Grant{Service: "crowd", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}})
	before := residentBytes(t, b.PID(t))
	idle := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, c := range idle {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var wg sync.WaitGroup
	const dialers = 16
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < n; i += dialers {
				var err error
				if idle[i], err = idleClient(b, g); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	each := (residentBytes(t, b.PID(t)) - before) / int64(n)
	t.Logf("%d idle connections take %d KiB of the broker each", n, each>>10)
	if most := idleBytes(); each > most {
		t.Errorf("an idle connection takes %d bytes, most is %d", each, most)
	}
	if _, err := b.JS.Publish(testkit.Context(t), "orders", []byte("{}")); err != nil {
		t.Errorf("publish beside %d idle connections: %v", n, err)
	}
	b.Connect(t, b.Grant(t, wire.Grant{Service: "late", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}}))
}

// idleClient connects and returns when the broker has let it in.
func idleClient(b *testkit.TestBroker, g wire.Grant) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(b.Port), testkit.Patience)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, 4<<10)
	_, err = r.ReadString('\n') // INFO
	if err == nil {
		_, err = fmt.Fprintf(c, "CONNECT {\"user\":%q,\"pass\":%q,\"verbose\":false}\r\nPING\r\n", g.User, g.Password)
	}
	for line := ""; err == nil && line != "PONG\r\n"; {
		if line, err = r.ReadString('\n'); strings.HasPrefix(line, "-ERR") {
			err = fmt.Errorf("the broker says %q", line)
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// residentBytes is the memory of a process.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
