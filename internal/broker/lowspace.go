package broker

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats-server/v2/server"
)

// intake closes the store to new messages while the file system's space is low. The server's own limit is measured once,
// at its start, and others fill the disk too. It is for one goroutine.
type intake struct {
	account *server.Account
	store   string
	log     *slog.Logger
	closed  bool
	failing bool // the limits could not be set last time
}

// look measures the space and acts on it.
func (i *intake) look(ctx context.Context) {
	space, err := SpaceOf(i.store)
	if err != nil {
		return // the server fails on such a folder by itself
	}
	closed := i.closed
	switch {
	case space.Low():
		closed = true
	case space.ample():
		closed = false
	}
	if closed == i.closed {
		return
	}
	if err := i.account.UpdateJetStreamLimits(accountLimits(closed)); err != nil {
		if !i.failing {
			i.log.WarnContext(ctx, "the limits of the store cannot be set", "error", err)
		}
		i.failing = true
		return
	}
	i.closed, i.failing = closed, false
	if closed {
		i.log.WarnContext(ctx, "space is low: no new messages are taken", "free_bytes", space.FreeBytes, "reserve_bytes", space.Reserve())
	} else {
		i.log.InfoContext(ctx, "there is space again: new messages are taken", "free_bytes", space.FreeBytes)
	}
}

// accountLimits are no limits at all, or none but that nothing more goes to disk. The server refuses messages over an
// account's limit with error 10002 and serves readers as ever.
func accountLimits(closed bool) map[string]server.JetStreamAccountLimits {
	limits := server.JetStreamAccountLimits{
		MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1,
		MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}
	if closed {
		limits.MaxStore = 0
	}
	return map[string]server.JetStreamAccountLimits{"": limits}
}
