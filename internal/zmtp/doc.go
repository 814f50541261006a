// Package zmtp speaks ZMTP 3.0 and 3.1, ZeroMQ's protocol, from the side that listens: it makes a peer of libzmq, or of
// whatever else speaks it, out of an accepted connection.
//
// [Accept] shakes hands by the mechanism NULL or PLAIN and returns a [Conn] that reads and writes whole messages. What a
// socket type does with them, such as sending in turn or filtering by prefix, is the caller's.
//
// Nothing is trusted: every size is compared with a limit before anything is read or allocated for it, a handshake has a
// deadline, and what a peer may keep in memory here is bounded by [Config]. References: rfc.zeromq.org/spec/23 (3.0) and
// /spec/37 (3.1).
package zmtp
