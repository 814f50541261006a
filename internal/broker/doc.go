// Package broker is the message engine: an embedded nats-server with JetStream on the loopback, who may do what on it,
// and the streams and consumers that it holds.
//
// It is the only room that imports nats-server, so that a service's binary never links it. Three parts of it run in two
// processes: [Broker] and its access check run in the broker process; [Provision], [Trim] and [WriteAccess] are called
// by the node, which decides who may get in and what there is.
package broker
