package broker

import (
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// serverName is stable because JetStream ties a store to the name of its server.
	serverName = "hozo"

	// maxPayload is 4 MiB: a frame aims at 512 KiB uncompressed, and one event of the largest ingestible size (1 MiB by
	// default) with its neighbours must still fit uncompressed.
	maxPayload = 4 << 20

	// maxPending is 64 MiB, nats-server's default: what one slow client may have waiting before it is cut off.
	maxPending = 64 << 20

	// authTimeout is how many seconds a client may take to say who it is. On a machine so busy that a process does not
	// run for a while, nats-server's 2 s cut off those that had done nothing wrong.
	authTimeout = 10
)

func serverOptions(cfg Config, store string, storeLimit int64, auth server.Authentication) *server.Options {
	port := cfg.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	opts := &server.Options{
		ServerName: serverName,
		Host:       "127.0.0.1", // never the default of all interfaces
		Port:       port,
		NoSigs:     true, // else the server traps SIGTERM and exits the process
		NoLog:      true, // the log is set by SetLoggerV2

		JetStream:          true,
		StoreDir:           store,
		JetStreamMaxStore:  storeLimit + 1, // closing the store reserves a byte, which must not be promised to a stream
		JetStreamMaxMemory: cfg.Memory / 2, // streams in memory share the process's limit with its caches
		SyncAlways:         cfg.SyncAlways,

		MaxPayload: maxPayload,
		MaxPending: maxPending,

		AuthTimeout: authTimeout,

		// There is no other server to move clients to, so nothing is gained by a long goodbye (default 2 min).
		LameDuckDuration:    time.Second,
		LameDuckGracePeriod: 100 * time.Millisecond,

		CustomClientAuthentication: auth,
	}
	for _, door := range cfg.Doors {
		switch door.Kind {
		case DoorMQTT:
			opts.MQTT = server.MQTTOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT}
		case DoorWebSocket:
			opts.Websocket = server.WebsocketOpts{
				Host: "127.0.0.1", Port: server.RANDOM_PORT, NoTLS: true, // the door has it
				SameOrigin: len(cfg.Origins) == 0, AllowedOrigins: cfg.Origins, Compression: true,
			}
		}
	}
	return opts
}
