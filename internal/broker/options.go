package broker

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	// serverName is stable because JetStream ties a store to the name of its server.
	serverName = "hozo"

	// maxPayload is 4 MiB: a frame aims at 256 KiB compressed, and one event of the largest ingestible size (1 MiB by
	// default) with its neighbours must still fit uncompressed.
	maxPayload = 4 << 20

	// maxPending is 64 MiB, nats-server's default: what one slow client may have waiting before it is cut off.
	maxPending = 64 << 20

	// mostReserve bounds the part of the file system that the store leaves free for logs, databases and grants.
	mostReserve = 256 << 20
)

func serverOptions(cfg Config, store string, storeLimit int64, auth server.Authentication) *server.Options {
	port := cfg.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return &server.Options{
		ServerName: serverName,
		Host:       "127.0.0.1", // never the default of all interfaces
		Port:       port,
		NoSigs:     true, // else the server traps SIGTERM and exits the process
		NoLog:      true, // the log is set by SetLoggerV2

		JetStream:          true,
		StoreDir:           store,
		JetStreamMaxStore:  storeLimit,
		JetStreamMaxMemory: cfg.Memory / 2, // streams in memory share the process's limit with its caches
		SyncAlways:         cfg.SyncAlways,

		MaxPayload: maxPayload,
		MaxPending: maxPending,

		// There is no other server to move clients to, so nothing is gained by a long goodbye (default 2 min).
		LameDuckDuration:    time.Second,
		LameDuckGracePeriod: 100 * time.Millisecond,

		CustomClientAuthentication: auth,
	}
}

// room is what a file system has for the store.
type room struct {
	totalBytes int64 // size of the file system
	freeBytes  int64 // free for this user
	usedBytes  int64 // in the store already
}

func measureRoom(store string) (room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(store, &st); err != nil {
		return room{}, fmt.Errorf("statfs %s: %w", store, err)
	}
	block := st.Bsize
	r := room{totalBytes: int64(st.Blocks) * block, freeBytes: int64(st.Bavail) * block}
	err := filepath.WalkDir(store, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		r.usedBytes += info.Size()
		return nil
	})
	return r, err
}

// limit is the most that the store may take when asked bytes are wanted, 0 meaning three quarters of what there is. The
// store's own files count as room: a restart with a full store must not shrink it.
func (r room) limit(asked int64) int64 {
	available := r.freeBytes + r.usedBytes
	most := max(available-min(mostReserve, r.totalBytes/20), 1)
	if asked == 0 {
		asked = available / 4 * 3
	}
	return min(asked, most)
}
