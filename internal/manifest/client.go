package manifest

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Client is a program that Hozo does not start and that joins the bus by its own means.
type Client struct {
	Name      string
	Publishes []Route
	Consumes  []Source
	Watches   []string // live subjects that it hears
	Calls     []string // request subjects that it asks
	Serves    []string // request subjects that it answers
	Enqueues  []string `json:",omitempty"` // task kinds that it enqueues
}

// WebSock is where clients join by NATS over WebSocket.
type WebSock struct {
	Listen  string   // host:port, empty means not at all
	Origins []string `json:",omitempty"` // pages that may connect, like https://example.org; default: those of the same host
}

// TLS is a certificate: paths of PEM files.
type TLS struct {
	Cert string
	Key  string
	CA   string `json:",omitempty"` // when set, clients must show a certificate that it has signed
}

func newClient(name string) Client { return Client{Name: name} }

func clientKeys() []key[Client] {
	subjects := func() shape[[]string] { return listOf(nameText(dottedName()), true) }
	return []key[Client]{
		field("publishes", "Subjects that it may publish, each within one stream or live.", patterns(), func(c *Client) *[]Route { return &c.Publishes }),
		field("consumes", "Streams without frames, or parts of them, that it reads.", sources(), func(c *Client) *[]Source { return &c.Consumes }),
		field("watches", "Live subjects that it listens to.", listOf(nameText(subjectName()), true), func(c *Client) *[]string { return &c.Watches }),
		field("calls", "Requests that it asks others.", subjects(), func(c *Client) *[]string { return &c.Calls }),
		field("serves", "Requests that it answers.", subjects(), func(c *Client) *[]string { return &c.Serves }),
		field("enqueues", "Kinds of tasks that it enqueues.", subjects(), func(c *Client) *[]string { return &c.Enqueues }),
	}
}

func tlsKeys() []key[TLS] {
	return []key[TLS]{
		field("cert", "Certificate and its chain, a PEM file. It is read at each handshake.", filePath(), func(t *TLS) *string { return &t.Cert }),
		field("key", "Its private key, a PEM file.", filePath(), func(t *TLS) *string { return &t.Key }),
		field("ca", "Authority of the clients' certificates, a PEM file: then every client must show one.", filePath(), func(t *TLS) *string { return &t.CA }),
	}
}

// doorAddress is a port on the loopback, or host:port.
func doorAddress() shape[string] {
	of := scalar(schema{"anyOf": []any{
		schema{"type": "integer", "minimum": 1, "maximum": 65535},
		schema{"type": "string", "pattern": `^([0-9]+|.*:[0-9]+)$`},
	}}, "bad-listen", "a port or an address like 10.0.0.1:4222", func(s string) (string, error) {
		network, address, err := parseListen(s, "/")
		if err == nil && (network != "tcp" || strings.HasSuffix(address, ":0")) {
			err = fmt.Errorf("%q is no TCP address with a port", short(s))
		}
		return address, err
	})
	return of
}

func webSocket() shape[WebSock] {
	origin := scalar(schema{"type": "string", "pattern": `^https?://[^/]+$`}, "bad-origin", "an origin like https://example.org", func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
			return "", fmt.Errorf("%q is no origin", short(s))
		}
		return s, nil
	})
	long := object([]key[WebSock]{
		field("listen", "A port on the loopback, or host:port.", doorAddress(), func(w *WebSock) *string { return &w.Listen }),
		field("origins", "Origins of the pages that may connect. Default: those of the same host.", listOf(origin, true), func(w *WebSock) *[]string { return &w.Origins }),
	}, schema{"required": []any{"listen"}})
	port := doorAddress()
	return shape[WebSock]{schema{"anyOf": []any{port.schema, long.schema}}, func(d *decoder, n *node, path string, into *WebSock) {
		if n.scalar() {
			port.read(d, n, path, &into.Listen)
			return
		}
		long.read(d, n, path, into)
		if n.kind == kindMap && n.get("listen") == nil && !d.overlay {
			d.add(n.at, "no-key", path+" has no listen", "add listen: PORT")
		}
	}}
}

// foreign stands as the Builtin of a client that is checked as a service.
const foreign = "client"

// section and noun are where a service, or a client, stands and what it is called.
func section(s *Service) string {
	if s.Builtin == foreign {
		return "clients"
	}
	return "services"
}

func noun(s *Service) string {
	if s.Builtin == foreign {
		return "client"
	}
	return "service"
}

// asService is c for the checks that services and clients share. The lists are the client's own.
func (c *Client) asService() *Service {
	return &Service{Name: c.Name, Builtin: foreign, Publishes: c.Publishes, Consumes: c.Consumes, Watches: c.Watches, Calls: c.Calls, Serves: c.Serves, Enqueues: c.Enqueues}
}

// members are the services and the clients.
func (c *checker) members() []*Service {
	var all []*Service
	for i := range c.m.Services {
		all = append(all, &c.m.Services[i])
	}
	for i := range c.m.Clients {
		all = append(all, c.m.Clients[i].asService())
	}
	return all
}

func (c *checker) clients() {
	for i := range c.m.Clients {
		client := &c.m.Clients[i]
		at := c.key("clients", client.Name)
		if slices.Contains([]string{"node", "broker", "keeper", "hozo"}, client.Name) {
			c.add(at, "reserved-name", fmt.Sprintf("%q is the name of a part of the platform", client.Name), "choose another name")
		}
		if slices.ContainsFunc(c.m.Services, func(s Service) bool { return s.Name == client.Name }) {
			c.add(at, "duplicate-name", fmt.Sprintf("client %q has the name of a service", client.Name), "choose another name")
		}
		if n := c.node("clients", client.Name); n != nil && n.kind == kindMap && len(n.entries) == 0 {
			c.add(at, "idle-client", fmt.Sprintf("client %q may do nothing", client.Name), "add publishes, consumes, watches, calls, serves or enqueues")
		}
		c.wiring(client.asService())
		for _, from := range client.Consumes {
			j := slices.IndexFunc(c.m.Streams, func(s Stream) bool { return s.Name == from.Stream })
			if j >= 0 && c.m.Streams[j].Frames {
				c.add(c.item(from.Subject, "clients", client.Name, "consumes"), "framed-stream", fmt.Sprintf("client %q consumes %s, whose messages are frames of many events, which only Hozo's packages open", client.Name, from.Stream),
					fmt.Sprintf("write streams: { %s: { frames: false } }, or read it by builtin: push", from.Stream))
			}
		}
	}
}

// broker checks where clients come in.
func (c *checker) broker() {
	b := &c.m.Broker
	doors := []struct{ key, address string }{{"listen", b.Listen}, {"mqtt", b.MQTT}, {"websocket", b.WebSocket.Listen}}
	for _, door := range doors {
		addr, err := netip.ParseAddrPort(door.address)
		if err == nil && !addr.Addr().IsLoopback() && b.TLS == (TLS{}) && c.node("broker", "tls") == nil {
			c.add(c.value("broker", door.key), "no-tls", fmt.Sprintf("broker.%s is open to the network, and passwords and events would cross it in clear", door.key),
				"add tls: { cert: FILE, key: FILE } to broker, or listen on 127.0.0.1")
		}
	}
	var open []Listen
	for _, door := range doors {
		l := Listen{"broker." + door.key, "tcp", door.address}
		for _, s := range c.m.Services {
			for _, other := range s.Listen {
				if clash(l, other) {
					c.add(c.value("broker", door.key), "address-in-use", fmt.Sprintf("%s is taken by %s of service %q", l.Address, other.Name, s.Name), "choose another port")
				}
			}
		}
		for _, other := range open {
			if clash(l, other) {
				c.add(c.value("broker", door.key), "address-in-use", fmt.Sprintf("%s is taken by %s", l.Address, other.Name), "choose another port")
			}
		}
		open = append(open, l)
	}
	tls := c.node("broker", "tls")
	if tls == nil || tls.kind != kindMap {
		return
	}
	for _, name := range []string{"cert", "key"} {
		if tls.get(name) == nil {
			c.add(c.key("broker", "tls"), "no-key", "broker.tls has no "+name, fmt.Sprintf("add %s: FILE", name))
		}
	}
	if b.Listen == "" && b.MQTT == "" && b.WebSocket.Listen == "" && c.node("broker", "listen") == nil && c.node("broker", "mqtt") == nil && c.node("broker", "websocket") == nil {
		c.add(c.key("broker", "tls"), "idle-tls", "broker.tls serves nothing: neither listen nor mqtt nor websocket is set", "remove it, or add listen: ADDRESS")
	}
}
