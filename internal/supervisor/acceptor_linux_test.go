package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestWhoAcceptedAConnectionIsKnown(t *testing.T) {
	t.Parallel()
	for _, listen := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::]:0"}, // asked over IPv4 below
		{"unix", filepath.Join(testkit.TempDir(t), "s")},
	} {
		t.Run(listen.network+listen.address, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen(listen.network, listen.address)
			if err != nil {
				t.Skip(err) // a host without IPv6
			}
			defer l.Close()
			address := l.Addr().String()
			if tcp, ok := l.Addr().(*net.TCPAddr); ok {
				address = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
			}
			conn, err := net.Dial(listen.network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx := context.Background()
			if inode, err := otherEnd(conn); err != nil || inode != 0 {
				t.Errorf("before it is accepted: inode %d, %v", inode, err)
			}
			if err := acceptedBy(ctx, conn, os.Getpid()); !errors.Is(err, errOthers) {
				t.Errorf("nobody has accepted, and: %v", err)
			}
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if err := acceptedBy(ctx, conn, os.Getpid()); err != nil {
				t.Errorf("we have accepted, and: %v", err)
			}
			if err := acceptedBy(ctx, conn, 1); !errors.Is(err, errOthers) {
				t.Errorf("init has not accepted, and: %v", err)
			}
		})
	}
}
