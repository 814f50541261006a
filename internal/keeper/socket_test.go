//go:build linux

package keeper_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

func TestInheritedSocketAcceptsAcrossRestarts(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx := limited(t)
	for _, l := range []keeper.Listen{
		{Name: "web.http", Network: "tcp", Address: "127.0.0.1:0"},
		{Name: "web.local", Network: "unix", Address: k.state + "/web.sock"},
	} {
		s, err := k.client.Listen(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			asked, err := net.Dial(s.Network, s.Address) // before anybody accepts
			if err != nil {
				t.Fatal(err)
			}
			p := k.spawn("web", "serve", func(sp *keeper.Spawn) { sp.Listen = []string{l.Name} })
			got, err := io.ReadAll(asked)
			if err != nil {
				t.Fatal(err)
			}
			if err := asked.Close(); err != nil {
				t.Error(err)
			}
			_, port, _ := strings.Cut(s.Address, "127.0.0.1:")
			if want := fmt.Sprintf("%d %d 1 %s %s\n", p.PID, p.PID, l.Name, port); string(got) != want {
				t.Errorf("%s: got %q, want %q", l.Name, got, want)
			}
			if err := k.client.Kill(ctx, "web"); err != nil {
				t.Fatal(err)
			}
			if err := k.client.Forget(ctx, "web"); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.client.Unlisten(ctx, l.Name); err != nil {
			t.Error(err)
		}
		if c, err := net.Dial(s.Network, s.Address); err == nil {
			t.Errorf("%s is open after unlisten", l.Name)
			_ = c.Close()
		}
	}
}

func TestSameSocketIsOpenedOnce(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx := limited(t)
	l := keeper.Listen{Name: "a", Network: "tcp", Address: "127.0.0.1:0"}
	first, err := k.client.Listen(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []keeper.Listen{l, {Name: "a", Network: "tcp", Address: first.Address}} {
		if s, err := k.client.Listen(ctx, again); err != nil || s != first {
			t.Errorf("listen %v again: %v, %v; first was %v", again, s, err, first)
		}
	}
	_, err = k.client.Listen(ctx, keeper.Listen{Name: "a", Network: "tcp", Address: "127.0.0.2:0"})
	if fault.Code(err) != "keeper/socket-exists" {
		t.Errorf("other address: %v", err)
	}
	_, err = k.client.Listen(ctx, keeper.Listen{Name: "b", Network: "udp", Address: "127.0.0.1:0"})
	if fault.Code(err) != "keeper/bad-request" {
		t.Errorf("udp: %v", err)
	}
	if err := k.client.Unlisten(ctx, "none"); fault.Code(err) != "keeper/no-socket" {
		t.Errorf("unlisten: %v", err)
	}
	_, sockets, err := k.client.List(ctx)
	if err != nil || len(sockets) != 1 || sockets[0] != first {
		t.Errorf("list: %v, %v", sockets, err)
	}
}

func TestAddressInUseNamesItsHolder(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx := limited(t)
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": k.state + "/taken.sock"} {
		taken, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		address = taken.Addr().String()
		_, err = k.client.Listen(ctx, keeper.Listen{Name: "a", Network: network, Address: address})
		e, _ := fault.As(err)
		if fault.Code(err) != "keeper/address-in-use" || e.Where != address ||
			!strings.Contains(e.What, fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("%s: %v", network, err)
		}
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStaleUnixSocketIsReplaced(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/stale.sock"
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	l := keeper.Listen{Name: "a", Network: "unix", Address: path}
	if _, err := k.client.Listen(limited(t), l); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(k.state+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = keeper.Listen{Name: "b", Network: "unix", Address: k.state + "/file"}
	if _, err := k.client.Listen(limited(t), l); fault.Code(err) != "keeper/address-in-use" {
		t.Errorf("a file that is no socket was replaced: %v", err)
	}
}
