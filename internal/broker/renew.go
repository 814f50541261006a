package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/wire"
)

// serveRenewals answers the Renewals of services until the returned function is called.
func (b *Broker) serveRenewals() (stop func(), err error) {
	nc, err := nats.Connect(b.URL(), nats.UserInfo(probeUser, b.gate.ownPassword), nats.MaxReconnects(-1),
		nats.Name("hozo-broker-renewals"), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to the own server: %w", err)
	}
	_, err = nc.Subscribe(wire.RenewSubject+".>", func(m *nats.Msg) {
		var r wire.Renewal
		refusal := "the renewal cannot be decoded"
		if json.Unmarshal(m.Data, &r) == nil {
			refusal = b.gate.renew(strings.TrimPrefix(m.Subject, wire.RenewSubject+"."), r)
		}
		reply := nats.NewMsg(m.Reply)
		if refusal != "" {
			reply.Header.Set(wire.HeaderError, refusal)
		}
		_ = nc.PublishMsg(reply) // an owner who gets no answer asks again
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("listen for renewals: %w", err)
	}
	return nc.Close, nil
}

// endLapsed closes the connections whose credential is not good any more.
func (b *Broker) endLapsed(ctx context.Context, srv *server.Server) {
	for _, client := range b.gate.clients() { // none of the gate's locks is held while the server's is taken
		if srv.GetClient(client) == nil {
			b.gate.gone(client)
		}
	}
	for client, user := range b.gate.lapsed(time.Now()) {
		b.cfg.Logger.WarnContext(ctx, "a connection was closed: its credential has been replaced and it did not renew it", "user", user, "client", client)
		_ = srv.DisconnectClientByID(client) // it may have gone by itself meanwhile
	}
}
