package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// renewTries and renewTimeout bound the renewal of a connection: together they are well within the minute for which
	// the platform lets an old password live on.
	renewTries   = 4
	renewTimeout = 5 * time.Second
)

// credential is the password of this process on the bus. The platform replaces it in the file while the process runs.
type credential struct {
	path string // of the grant; empty when there is no file to read again

	mu    sync.Mutex
	grant wire.Grant
	conns []*nats.Conn // made with this credential
}

// covers notes a connection to be renewed with the others.
func (c *credential) covers(nc *nats.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(slices.DeleteFunc(c.conns, (*nats.Conn).IsClosed), nc)
}

func (c *credential) covered() []*nats.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = slices.DeleteFunc(c.conns, (*nats.Conn).IsClosed)
	return slices.Clone(c.conns)
}

// now returns the user and the newest password: every connection is made with it.
func (c *credential) now() (user, password string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != "" {
		if g, err := wire.ReadGrant(c.path); err == nil && g.User == c.grant.User {
			c.grant = g
		} // else the one before is the best there is
	}
	return c.grant.User, c.grant.Password
}

// followCredential has the platform tell when the file with the grant has a new password.
func (c *Conn) followCredential() error {
	c.credential.covers(c.nc)
	if c.credential.path == "" || c.cfg.Grant.Inbox == "" {
		return nil
	}
	_, err := c.nc.Subscribe(wire.CredentialSubject(c.cfg.Grant.Inbox), func(*nats.Msg) { c.renew() })
	if err != nil {
		return fmt.Errorf("listen for new credentials: %w", err)
	}
	return nil
}

// renew shows the broker the new password, so that the connections outlive the old one: nothing in flight notices. One
// for which it does not succeed is closed by the broker later, and then made anew with the new password.
func (c *Conn) renew() {
	user, password := c.credential.now()
	ctx, cancel := context.WithTimeout(context.Background(), renewTries*renewTimeout)
	defer cancel()
	for _, nc := range c.credential.covered() {
		for attempt := 0; ; attempt++ {
			err := c.renewOnce(ctx, nc, user, password)
			if err == nil || nc.IsClosed() {
				break
			}
			if attempt+1 == renewTries || !sleep(ctx, retryDelay(attempt)) {
				c.log.Warn("the bus did not take the new credential; the connection will be made anew", "error", err)
				break
			}
		}
	}
}

// renewOnce renews one connection of this process, over the main one.
func (c *Conn) renewOnce(ctx context.Context, nc *nats.Conn, user, password string) error {
	client, err := nc.GetClientID()
	if err != nil {
		return err
	}
	data, err := json.Marshal(wire.Renewal{Client: client, Password: password})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	answer, err := c.nc.RequestWithContext(ctx, wire.RenewSubject+"."+user, data)
	if err != nil {
		return err
	}
	if refusal := answer.Header.Get(wire.HeaderError); refusal != "" {
		return errors.New(refusal)
	}
	return nil
}
