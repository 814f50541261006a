package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/wire"
)

// ClientFile is how a foreign client joins: .hozo/clients/NAME.json, 0600. Its outer fields are those of a context of
// the nats command line, so that the file is one.
type ClientFile struct {
	Description string      `json:"description"`
	URL         string      `json:"url"` // of NATS
	User        string      `json:"user"`
	Password    string      `json:"password"`
	InboxPrefix string      `json:"inbox_prefix"` // the only reply subjects that it may subscribe to begin so
	Hozo        ClientPlace `json:"hozo"`
}

// ClientPlace is what a ClientFile says beside.
type ClientPlace struct {
	Project   string        `json:"project"`
	MQTT      string        `json:"mqtt,omitempty"`      // URL
	WebSocket string        `json:"websocket,omitempty"` // URL
	Publishes []string      `json:"publishes,omitempty"`
	Consumes  []wire.Source `json:"consumes,omitempty"` // and the durable consumer of each
	Watches   []string      `json:"watches,omitempty"`
	Calls     []string      `json:"calls,omitempty"`
	Serves    []string      `json:"serves,omitempty"`
	Enqueues  []string      `json:"enqueues,omitempty"`
}

func (s state) clients() string           { return filepath.Join(string(s), "clients") }
func (s state) client(name string) string { return filepath.Join(s.clients(), name+".json") }

// ReadClient reads the file of a client in a state folder.
func ReadClient(stateDir, name string) (ClientFile, error) {
	var f ClientFile
	err := read(state(stateDir).client(name), &f)
	if errors.Is(err, os.ErrNotExist) {
		return f, &fault.Error{
			Code: "node/no-client", Kind: fault.Misuse, Where: state(stateDir).client(name), What: fmt.Sprintf("there is no client %q", name),
			Fix: fmt.Sprintf("add clients: { %s: { publishes: [SUBJECT] } } to the manifest, and `hozo apply`", name),
		}
	}
	return f, err
}

// Clients lists the names of the clients in a state folder.
func Clients(stateDir string) ([]string, error) {
	entries, err := os.ReadDir(state(stateDir).clients())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the clients: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := cutSuffix(e.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

func cutSuffix(name, suffix string) (string, bool) {
	if filepath.Ext(name) != suffix {
		return "", false
	}
	return name[:len(name)-len(suffix)], true
}

// clientGrants makes what the broker must know of each client. Passwords that exist are kept, because clients hold them.
func clientGrants(m *manifest.Manifest, st state) ([]wire.Grant, error) {
	var grants []wire.Grant
	for _, c := range m.Clients {
		var old ClientFile
		err := read(st.client(c.Name), &old)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the credential of client %s: %w", c.Name, err)
		}
		if old.Password == "" {
			old.Password = newPassword()
		}
		g := clientWiring(m, c)
		g.Password = old.Password
		grants = append(grants, g)
	}
	return grants, nil
}

// clientWiring is what the lines of a client say.
func clientWiring(m *manifest.Manifest, c manifest.Client) wire.Grant {
	g := wire.Grant{
		Version: wire.GrantVersion, Project: m.Project, Service: c.Name, User: c.Name,
		Inbox: "_INBOX." + c.Name, Consumes: clientSources(c), Watches: c.Watches, Calls: c.Calls, Serves: c.Serves,
		Enqueues: c.Enqueues, Queues: grantQueues(m, c.Enqueues),
	}
	for _, p := range c.Publishes {
		if p.Live {
			g.Live = append(g.Live, p.Subject)
		} else {
			g.Publish = append(g.Publish, wire.Route{Subject: p.Subject, Stream: p.Stream})
		}
	}
	return g
}

// clientSources are the streams that a client consumes, each by the durable consumer of its name.
func clientSources(c manifest.Client) []wire.Source {
	var all []wire.Source
	for _, from := range c.Consumes {
		i := slices.IndexFunc(all, func(have wire.Source) bool { return have.Stream == from.Stream })
		if i < 0 {
			i = len(all)
			all = append(all, wire.Source{Stream: from.Stream, Durable: c.Name})
		}
		if from.Subject != from.Stream { // else the whole of it
			all[i].Subjects = append(all[i].Subjects, from.Subject)
		}
	}
	return all
}

// writeClients stores the clients' files and removes those of clients that are gone.
func writeClients(st state, m *manifest.Manifest, grants []wire.Grant, port int) error {
	if len(grants) > 0 {
		if err := os.MkdirAll(st.clients(), 0o700); err != nil {
			return fmt.Errorf("make the folder of clients: %w", err)
		}
	}
	for i, g := range grants {
		f := ClientFile{
			Description: fmt.Sprintf("client %s of project %s", g.User, m.Project),
			URL:         fmt.Sprintf("nats://127.0.0.1:%d", port), User: g.User, Password: g.Password, InboxPrefix: g.Inbox,
			Hozo: ClientPlace{
				Project: m.Project, Consumes: g.Consumes, Watches: g.Watches, Calls: g.Calls, Serves: g.Serves, Enqueues: g.Enqueues,
				MQTT: doorURL(m.Broker, "mqtt", "mqtts", m.Broker.MQTT), WebSocket: doorURL(m.Broker, "ws", "wss", m.Broker.WebSocket.Listen),
			},
		}
		for _, p := range m.Clients[i].Publishes {
			f.Hozo.Publishes = append(f.Hozo.Publishes, p.Subject)
		}
		if url := doorURL(m.Broker, "nats", "tls", m.Broker.Listen); url != "" {
			f.URL = url
		}
		if err := write(st.client(g.User), f); err != nil {
			return fmt.Errorf("write the credential of client %s: %w", g.User, err)
		}
	}
	names, err := Clients(string(st))
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(grants, func(g wire.Grant) bool { return g.User == name }) {
			continue
		}
		if err := os.Remove(st.client(name)); err != nil {
			return fmt.Errorf("remove the credential of client %s: %w", name, err)
		}
	}
	return nil
}

// doorURL is how a program of this host reaches a door, or "".
func doorURL(b manifest.Broker, plain, secure, address string) string {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	scheme, host := plain, addr.Addr().String()
	if b.TLS != (manifest.TLS{}) {
		scheme = secure
	}
	if addr.Addr().IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port()))
}

// doorArgs tells the broker's process where clients come in.
func doorArgs(b manifest.Broker) []string {
	var args []string
	for _, one := range [][2]string{
		{"--listen", b.Listen},
		{"--mqtt", b.MQTT},
		{"--websocket", b.WebSocket.Listen},
		{"--tls-cert", b.TLS.Cert},
		{"--tls-key", b.TLS.Key},
		{"--tls-ca", b.TLS.CA},
	} {
		if one[1] != "" {
			args = append(args, one[0], one[1])
		}
	}
	for _, origin := range b.WebSocket.Origins {
		args = append(args, "--origin", origin)
	}
	return args
}

// withClients adds the clients to who may connect.
func withClients(a broker.Access, clients []wire.Grant) broker.Access {
	for _, g := range clients {
		a.Users = append(a.Users, broker.ClientOf(g))
	}
	return a
}

// clientSteps says what changes for the clients.
func clientSteps(before, after []wire.Grant) []plan.Step {
	find := func(all []wire.Grant, name string) (wire.Grant, bool) {
		i := slices.IndexFunc(all, func(g wire.Grant) bool { return g.User == name })
		if i < 0 {
			return wire.Grant{}, false
		}
		g := all[i]
		g.Password = "" // made anew where it is not known, which is no change of the manifest's
		return g, true
	}
	var steps []plan.Step
	for _, g := range after {
		step := plan.Step{Op: plan.OpUpdate, Name: "client " + g.User}
		now, _ := find(after, g.User)
		switch old, known := find(before, g.User); {
		case !known:
			step.Op, step.Reason = plan.OpStart, "new"
		case !reflect.DeepEqual(old, now):
			step.Keys = plan.Changed(old, now)
			step.Reason = plan.Because(step.Keys, "it changed")
		default:
			continue
		}
		steps = append(steps, step)
	}
	for _, g := range before {
		if _, stays := find(after, g.User); !stays {
			steps = append(steps, plan.Step{Op: plan.OpStop, Name: "client " + g.User, Reason: "not in the manifest any more"})
		}
	}
	return steps
}
