package broker

import (
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// lease says who a connection is and which password it has shown last.
type lease struct {
	user string
	sum  digest
}

// renew notes that the owner of a connection knows the current password of user. It returns why not, or "".
func (g *gate) renew(user string, r wire.Renewal) string {
	sum := digest(sha256.Sum256([]byte(r.Password)))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refreshLocked()
	found, ok := g.users[user]
	held, known := g.leases[r.Client]
	switch {
	case !known || held.user != user:
		return "the connection is not one of this user"
	case !ok || !equal(found.keys.current, sum):
		return "the password is not the current one"
	}
	g.leases[r.Client] = lease{user, sum}
	return ""
}

// lapsed returns the connections whose password has been replaced for longer than its grace, or whose user is gone, and
// forgets them.
func (g *gate) lapsed(now time.Time) map[uint64]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refreshLocked()
	if g.users == nil {
		return nil // the list cannot be seen: nobody new gets in, and nobody is thrown out for that
	}
	var over map[uint64]string
	for client, held := range g.leases {
		if found, ok := g.users[held.user]; ok && found.keys.keeps(held.sum, now) {
			continue
		}
		if over == nil {
			over = map[uint64]string{}
		}
		over[client] = held.user
		delete(g.leases, client)
	}
	return over
}

// clients lists the connections that have a lease.
func (g *gate) clients() []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.leases))
}

// gone forgets a connection that is no more.
func (g *gate) gone(client uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.leases, client)
}

// forget drops all leases: a new server numbers its connections from the start.
func (g *gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.leases)
}
