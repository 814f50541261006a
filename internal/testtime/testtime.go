// Package testtime marks connections whose time a test moves on: what waits on them must wait where it can be moved.
package testtime

type key struct{}

// attacher is a *bus.Conn.
type attacher interface {
	Attach(key any, make func() any) any
}

// Mark marks a connection, before anything else uses it.
func Mark(c attacher) { c.Attach(key{}, func() any { return true }) }

// Moved reports whether the connection is marked.
func Moved(c attacher) bool { return c.Attach(key{}, func() any { return false }).(bool) }
