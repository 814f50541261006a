// Package web serves HTTP the way a Hozo service needs it: on the socket that the platform holds for it, with limits on
// everything that a client controls, with health pages, and with a drain that loses no request.
//
// It is net/http underneath: a handler is an http.Handler and every router works. HTTP/1.1 and unencrypted HTTP/2 with
// prior knowledge (h2c) are served on the same port.
//
// What a client can do to a Server is bounded:
//
//	connections          MaxConns; further ones wait in the kernel's queue
//	header               64 KiB, within ReadHeaderTimeout
//	body                 MaxBody; a body that stands still for ReadStall is cut
//	reading the answer   an answer that the client does not take for WriteStall is cut
//	keep-alive           IdleTimeout
//
// There is no limit on how long a handler may think: that is the service's own business. A handler that runs for as
// long as its client listens (server-sent events, WebSocket) should watch [Draining].
//
// /healthz says that the process lives and /readyz that it can work; both are served unless the handler has its own.
package web
