package agent

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/internal/deploy/protocol"
)

// Main is the agent as a process: it serves the session on its standard streams. A link that breaks must not end what
// it is doing, so the signals of a lost link are ignored, for the whole process.
func Main(ctx context.Context, cfg Config) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	// Streams that can be waited for with a deadline, and closed while somebody reads.
	for _, fd := range []int{0, 1} {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("prepare the session's streams: %w", err)
		}
	}
	return Run(ctx, os.NewFile(0, "stdin"), patient{os.NewFile(1, "stdout")}, cfg)
}

// patient gives a write as long as a lease lasts, so that a dead link with full buffers holds no host.
type patient struct{ f *os.File }

func (p patient) Write(data []byte) (int, error) {
	_ = p.f.SetWriteDeadline(time.Now().Add(protocol.Lease)) // a file, in a test, has none and never blocks
	return p.f.Write(data)
}
