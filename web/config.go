package web

import (
	"cmp"
	"log/slog"
	"net"
	"time"
)

// Defaults of Config.
const (
	DefaultReadHeaderTimeout = 5 * time.Second  // a header is one packet for honest clients; slow-loris lives on this
	DefaultIdleTimeout       = 2 * time.Minute  // above the 60 s that common proxies keep their side open
	DefaultStall             = 30 * time.Second // a mobile client that changes cells is back well before
	DefaultMaxHeaderBytes    = 64 << 10         // eight times what common servers take for cookies
	DefaultMaxConns          = 10000            // at about 10 KiB an idle connection: 100 MiB at most
	DefaultMaxBody           = 16 << 20         // that of the built-in ingest service
	DefaultDrainGrace        = 10 * time.Second // the manifest's default stop grace
)

// Config tunes a Server. The zero Config is ready for production.
type Config struct {
	// Listener to serve on. Nil means the socket inherited from the platform (LISTEN_FDS), and without one
	// 127.0.0.1:$PORT.
	Listener net.Listener
	// Name of the inherited socket, as under listen in the manifest; default: the first.
	Name string
	// Logger receives panics of handlers and what net/http reports; nil discards.
	Logger *slog.Logger

	ReadHeaderTimeout time.Duration // to receive a request's header; default 5s
	IdleTimeout       time.Duration // between two requests of a connection; default 2m
	ReadStall         time.Duration // a request body with no new byte for so long is cut; default 30s
	WriteStall        time.Duration // an answer of which the client takes nothing for so long is cut; default 30s
	MaxHeaderBytes    int           // default 64 KiB
	MaxConns          int           // open connections, idle ones included; default 10000
	MaxBody           int64         // bytes of a request body; default 16 MiB
	DrainGrace        time.Duration // for requests in flight when the server stops; default 10s

	// Ready says why the service cannot work now, or nil. It is asked for every /readyz and must be fast and safe for
	// concurrent use. Nil means always ready.
	Ready func() error
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	c.ReadHeaderTimeout = cmp.Or(c.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, DefaultIdleTimeout)
	c.ReadStall = cmp.Or(c.ReadStall, DefaultStall)
	c.WriteStall = cmp.Or(c.WriteStall, DefaultStall)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, DefaultMaxHeaderBytes)
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.MaxBody = cmp.Or(c.MaxBody, DefaultMaxBody)
	c.DrainGrace = cmp.Or(c.DrainGrace, DefaultDrainGrace)
	return c
}
