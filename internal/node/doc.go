// Package node is the composition root of one host: it turns the manifest into instances, grants and streams, hands them
// to the supervisor and the broker, sums up what happens, and serves the control API that the command line and the
// console use. It holds no state that it cannot read back, so it can be killed at any moment: services run on.
package node
