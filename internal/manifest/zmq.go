package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// ZMQSocket is one socket of the built-in zmq service. Exactly one of Pull, Push, Pub, Sub and Rep is set: the socket
// type on this side, and what it is connected to.
type ZMQSocket struct {
	Listen string // name of the listener, one of the service's

	Pull string // subject that messages of PUSH peers are stored on
	Push string // what PULL peers are given in turn, one of consumes
	Pub  string // what SUB peers are given, each all that it subscribes to, one of consumes or watches
	Sub  string // subject that messages of PUB peers are stored on; with a final > the topic is the rest of the subject
	Rep  string // call that requests of REQ peers are put to

	HWM        int    // messages that wait for one peer of Push or Pub; default 1000, as in libzmq
	MaxMessage Bytes  // of one message, all its parts; default 1MiB
	Multipart  bool   // events are whole multipart messages; default false: they have one part
	Plain      string // file of user:password lines; empty: anybody is let in
}

func newZMQSocket(listen string) ZMQSocket {
	return ZMQSocket{Listen: listen, HWM: 1000, MaxMessage: 1 << 20}
}

// Stores is the subject that the socket stores messages on, or "".
func (z ZMQSocket) Stores() string { return z.Pull + z.Sub } // one of them is set

// Reads is what the socket gives to its peers, or "".
func (z ZMQSocket) Reads() string { return z.Push + z.Pub }

// publishesToAll reports whether every peer of one process must be given everything, so that there may be but one.
func (s *Service) publishesToAll() bool {
	return slices.ContainsFunc(s.ZMQ, func(z ZMQSocket) bool { return z.Pub != "" })
}

func zmqSockets() shape[[]ZMQSocket] {
	subject := nameText(subjectName())
	return named[ZMQSocket]{plainName(), object([]key[ZMQSocket]{
		field("pull", "Subject that the messages of PUSH peers are stored on.", nameText(dottedName()), func(z *ZMQSocket) *string { return &z.Pull }),
		field("push", "What PULL peers are given in turn: one of consumes.", subject, func(z *ZMQSocket) *string { return &z.Push }),
		field("pub", "What SUB peers are given, each all that it subscribes to: one of consumes or watches. The topic is the event's subject.", subject, func(z *ZMQSocket) *string { return &z.Pub }),
		field("sub", "Subject that the messages of PUB peers are stored on. With a final > the topic is the rest of the subject.", subject, func(z *ZMQSocket) *string { return &z.Sub }),
		field("rep", "Call that the requests of REQ peers are put to: one of calls.", nameText(dottedName()), func(z *ZMQSocket) *string { return &z.Rep }),
		field("hwm", "Messages that wait for one peer of push or pub. Default 1000.", whole(1, 1_000_000), func(z *ZMQSocket) *int { return &z.HWM }),
		field("max_message", "Most bytes of one message, all its parts. Default 1MiB.", size(1), func(z *ZMQSocket) *Bytes { return &z.MaxMessage }),
		field("multipart", "Events are whole multipart messages, each part after its length in 4 bytes, big endian. Default false: events are messages of one part.", boolean(), func(z *ZMQSocket) *bool { return &z.Multipart }),
		field("plain", "File of user:password lines: peers must show one of them by the mechanism PLAIN. Default: anybody is let in.", filePath(), func(z *ZMQSocket) *string { return &z.Plain }),
	}, nil), newZMQSocket, false}.shape()
}

func (c *checker) zmq(s *Service) {
	if s.Scale > 1 && s.publishesToAll() {
		c.add(c.value("services", s.Name, "scale"), "scaled-pub", fmt.Sprintf("zmq service %q has a pub socket and cannot be scaled: each process would give its peers only a part", s.Name),
			"remove scale, or move the pub socket into a service of its own")
	}
	for i := range s.ZMQ {
		c.zmqSocket(s, &s.ZMQ[i])
	}
	for _, l := range s.Listen {
		if c.node("services", s.Name, "zmq", l.Name) == nil && c.set(s.Name, "zmq") {
			c.add(c.key("services", s.Name, "listen", l.Name), "idle-listener", fmt.Sprintf("listener %q of zmq service %q has no socket", l.Name, s.Name),
				fmt.Sprintf("add zmq: { %s: { pull: STREAM } }, or remove the listener", l.Name))
		}
	}
	reads := map[string]string{}
	for _, z := range s.ZMQ {
		at := slices.IndexFunc(s.Consumes, func(from Source) bool { return from.Subject == z.Reads() })
		if z.Reads() == "" || at < 0 {
			continue
		}
		stream := s.Consumes[at].Stream
		if first, twice := reads[stream]; twice && stream != "" {
			c.add(c.key("services", s.Name, "zmq", z.Listen), "consumed-twice", fmt.Sprintf("the sockets %s and %s of zmq service %q would share the events of %s", first, z.Listen, s.Name, stream),
				"give one of them a service of its own")
		}
		reads[stream] = z.Listen
	}
}

func (c *checker) zmqSocket(s *Service, z *ZMQSocket) {
	written := c.node("services", s.Name, "zmq", z.Listen)
	at := c.key("services", s.Name, "zmq", z.Listen)
	if written == nil || written.kind != kindMap {
		return // reported
	}
	var kinds []string
	for _, kind := range []string{"pull", "push", "pub", "sub", "rep"} {
		if written.get(kind) != nil {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		what := "is of no type"
		if len(kinds) > 1 {
			what = "is " + strings.Join(kinds, " and ")
		}
		c.add(at, "bad-socket", fmt.Sprintf("socket %s of zmq service %q %s", z.Listen, s.Name, what), "write one of pull, push, pub, sub and rep")
		return
	}
	kind := kinds[0]
	if written.get("hwm") != nil && kind != "push" && kind != "pub" {
		c.add(c.key("services", s.Name, "zmq", z.Listen, "hwm"), "wrong-key", fmt.Sprintf("a %s socket has no use for hwm: a peer is held up when the stream is full", kind), "remove it")
	}
	i := slices.IndexFunc(s.Listen, func(l Listen) bool { return l.Name == z.Listen })
	switch {
	case i < 0 && !c.undecoded(s, "listen", len(s.Listen)) && c.set(s.Name, "listen"):
		c.add(at, "no-listener", fmt.Sprintf("socket %s of zmq service %q has no listener of its name", z.Listen, s.Name), fmt.Sprintf("add listen: { %s: PORT }", z.Listen))
	case i >= 0 && z.Plain == "" && !loopback(s.Listen[i]):
		c.add(c.value("services", s.Name, "listen", z.Listen), "open-socket", fmt.Sprintf("socket %s of zmq service %q is open to the network and lets anybody in", z.Listen, s.Name),
			"listen on 127.0.0.1, or add plain: FILE with user:password lines; PLAIN does not encrypt, so put a tunnel around it")
	}
	c.zmqSubject(s, z, kind, written.get(kind).at)
}

// zmqSubject checks that the service's wiring has what the socket is connected to.
func (c *checker) zmqSubject(s *Service, z *ZMQSocket, kind string, at position) {
	list, known, ok := "publishes", []string{}, false
	subject := z.Stores() + z.Reads() + z.Rep
	switch {
	case subject == "":
		return // reported
	case z.Reads() != "":
		list = "consumes"
		for _, from := range s.Consumes {
			known = append(known, from.Subject)
		}
		if z.Pub != "" {
			known = append(known, s.Watches...)
		}
		ok = slices.Contains(known, subject) || c.undecoded(s, list, len(s.Consumes)) || z.Pub != "" && c.undecoded(s, "watches", len(s.Watches))
	case z.Rep != "":
		list, known = "calls", s.Calls
		ok = slices.Contains(known, subject) || c.undecoded(s, list, len(s.Calls))
	default:
		for _, r := range s.Publishes {
			known = append(known, r.Subject)
			ok = ok || wire.Covers(r.Subject, subject)
		}
		ok = ok || c.undecoded(s, list, len(s.Publishes))
	}
	if kind == "sub" && !isDotted(strings.TrimSuffix(subject, ".>")) {
		c.add(at, "bad-subject", fmt.Sprintf("the sub socket %s stores messages on %s, which is no subject", z.Listen, subject), "write a subject, with a final .> when the topic is to be the rest of it")
		return
	}
	if !ok {
		fix := fmt.Sprintf("add %s: [%s] to the service", list, subject)
		if near := closest(subject, known); near != "" {
			fix = fmt.Sprintf("did you mean %q?", near)
		}
		c.add(at, "unwired-socket", fmt.Sprintf("socket %s of zmq service %q needs %s in %s", z.Listen, s.Name, subject, list), fix)
	}
}

// loopback reports whether only programs of this host reach a listener.
func loopback(l Listen) bool {
	if l.Network == "unix" {
		return true
	}
	addr, err := netip.ParseAddrPort(l.Address)
	return err == nil && addr.Addr().IsLoopback()
}
