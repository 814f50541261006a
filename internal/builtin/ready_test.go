package builtin

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/wire"
)

// A sink whose folder another process still writes to has no watermark, so it is not ready; it becomes so by itself.
func TestSinkIsReadyOnceItHasItsWatermark(t *testing.T) {
	t.Parallel()
	const stream = "events.routed"
	b := testkit.Broker(t)
	dir := t.TempDir()
	before := holdFolder(t, dir, stream)
	socket := filepath.Join(testkit.TempDir(t), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	p := start(t, b, "sink", wire.Grant{Consumes: []wire.Source{{Stream: stream, Ordered: true}}}, manifest.Target{File: dir}, "NOTIFY_SOCKET="+socket)
	testkit.Eventually(t, func() bool { return strings.Contains(p.Output(), "sink waits for its target") }, "the sink waits")
	datagram := make([]byte, 64)
	if err := told.SetReadDeadline(time.Now()); err != nil { // one that calls itself ready at once has said so by now
		t.Fatal(err)
	}
	if n, err := told.Read(datagram); err == nil {
		t.Fatalf("the service says %q without a watermark", datagram[:n])
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if err := told.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	n, err := told.Read(datagram)
	if err != nil || string(datagram[:n]) != "READY=1" {
		t.Fatalf("the service says %q, %v", datagram[:n], err)
	}
	after, err := file.Open(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if _, err := after.Watermark(t.Context(), stream); fault.Code(err) != "file/locked" {
		t.Errorf("the sink is ready and does not hold its folder: %v", err)
	}
}

// holdFolder claims a source as a writer that runs already.
func holdFolder(t *testing.T, dir, stream string) *file.Target {
	t.Helper()
	target, err := file.Open(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() }) // closed by the test before
	if _, err := target.Watermark(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	return target
}
