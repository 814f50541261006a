package manifest

import (
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// base is what stands in the file before an environment is laid over it.
type base struct {
	Manifest
	envs []overlay
}

// overlay is one environment; its contents are only checked here, merge uses the nodes.
type overlay struct{ name string }

// contentKeys are the keys that the file and its environments share.
func contentKeys[T any](of func(*T) *Manifest) []key[T] {
	return []key[T]{
		field("project", "Name of the project: it names the processes, the state folder and the bus.", nameText(plainName()), func(t *T) *string { return &of(t).Project }),
		field("broker", "The message engine.", object(brokerKeys(), nil), func(t *T) *Broker { return &of(t).Broker }),
		field("cores", "CPU cores that automatic scaling may fill. Default: those of the host.", whole(1, 4096), func(t *T) *int { return &of(t).Cores }),
		field("streams", "Durable sequences of events under dotted names. A stream stores its own name as a subject and everything below it.",
			named[Stream]{dottedName(), object(streamKeys(), nil), newStream, true}.shape(), func(t *T) *[]Stream { return &of(t).Streams }),
		field("live", "Subject patterns of live events, which are not stored: they reach who watches at that moment.", listOf(nameText(subjectName()), true), func(t *T) *[]string { return &of(t).Live }),
		field("queues", "Queues of tasks. A kind that none of them names has a queue of its own name.",
			named[Queue]{dottedName(), object(queueKeys(), nil), newQueue, true}.shape(), func(t *T) *[]Queue { return &of(t).Queues }),
		field("cron", "Tasks that are enqueued by the clock, under names of their own.",
			named[Cron]{plainName(), object(cronKeys(), nil), newCron, true}.shape(), func(t *T) *[]Cron { return &of(t).Crons }),
		field("services", "The programs, built-in ones as well.",
			named[Service]{plainName(), object(serviceKeys(), serviceRules()), newService, false}.shape(), func(t *T) *[]Service { return &of(t).Services }),
		field("clients", "Programs that are not started here and join the bus by NATS, MQTT or WebSocket, each with a credential of its own and what it may do.",
			named[Client]{plainName(), object(clientKeys(), nil), newClient, false}.shape(), func(t *T) *[]Client { return &of(t).Clients }),
		field("vars", "Variables for templates in values under host, and in files that end in .tmpl.", table(variableName(), plain()), func(t *T) *map[string]string { return &of(t).Vars }),
		field("ssh", "How hosts are reached.", object(sshKeys(), nil), func(t *T) *SSH { return &of(t).SSH }),
		field("hosts", "Hosts that are deployed to, mostly those of an environment.", named[Host]{plainName(), object(hostKeys(), nil), newHost, true}.shape(), func(t *T) *[]Host { return &of(t).Hosts }),
		field("host", "What hosts must have, by role: files, packages, users and so on. The role all is every host's.", roles(), func(t *T) *Roles { return &of(t).Roles }),
	}
}

func overlayShape() shape[Manifest] {
	return object(contentKeys(func(m *Manifest) *Manifest { return m }), nil)
}

// manifestShape is the whole file.
func manifestShape() shape[base] {
	keys := contentKeys(func(b *base) *Manifest { return &b.Manifest })
	envs := named[overlay]{plainName(), envShape(), func(name string) overlay { return overlay{name} }, true}.shape()
	keys = append(keys, field("envs", "Variants of what stands above, one chosen with --env: maps are merged key by key, other values replace, a key without a value removes.",
		envs, func(b *base) *[]overlay { return &b.envs }))
	return object(keys, schema{"required": []any{"project"}})
}

// envShape checks one environment by itself: its keys and values, not what they add up to.
func envShape() shape[overlay] {
	of := overlayShape()
	return shape[overlay]{loosen(of.schema), func(d *decoder, n *node, _ string, _ *overlay) {
		part := *d
		part.overlay = true
		ignored := Manifest{}
		of.read(&part, n, "", &ignored)
	}}
}

// loosen makes a schema fit an environment, where nothing is required and a key may be left without a value.
func loosen(s schema) schema {
	out := schema{}
	for k, v := range s {
		switch k {
		case "required", "oneOf":
			continue
		case "properties":
			properties := schema{}
			for name, p := range v.(schema) {
				of := p.(schema)
				described := orNull(loosen(of))
				described["description"] = of["description"]
				properties[name] = described
			}
			v = properties
		case "additionalProperties":
			if of, ok := v.(schema); ok {
				v = orNull(loosen(of))
			}
		case "anyOf":
			var all []any
			for _, one := range v.([]any) {
				all = append(all, loosen(one.(schema)))
			}
			v = all
		}
		out[k] = v
	}
	return out
}

// minMemory is 64 MiB: below it the broker's garbage collector would run without end, its idle heap being near 30 MiB.
const minMemory = 64 << 20

func brokerKeys() []key[Broker] {
	return []key[Broker]{
		field("memory", "Soft memory limit of the broker's process. Default 512MiB.", size(minMemory), func(b *Broker) *Bytes { return &b.Memory }),
		field("listen", "Where clients join by NATS: a port on the loopback, or host:port. Services need it not.", doorAddress(), func(b *Broker) *string { return &b.Listen }),
		field("mqtt", "Where clients join by MQTT 3.1.1: a port on the loopback, or host:port.", doorAddress(), func(b *Broker) *string { return &b.MQTT }),
		field("websocket", "Where clients join by NATS over WebSocket: a port on the loopback, host:port, or a map.", webSocket(), func(b *Broker) *WebSock { return &b.WebSocket }),
		field("tls", "Certificate of listen, mqtt and websocket, which need one beyond the loopback.", object(tlsKeys(), schema{"required": []any{"cert", "key"}}), func(b *Broker) *TLS { return &b.TLS }),
		field("store", "Most bytes that all streams may take on disk. Default: three quarters of the free space.", size(1<<20), func(b *Broker) *Bytes { return &b.Store }),
	}
}

func streamKeys() []key[Stream] {
	return []key[Stream]{
		field("keep", "Age at which events are dropped. Default 24h.", span(minKeep, maxSpan), func(s *Stream) *time.Duration { return &s.Keep }),
		field("max_bytes", "Most bytes on disk; publishing fails beyond. Default 1GiB.", size(64<<10), func(s *Stream) *Bytes { return &s.MaxBytes }),
		field("durability", "What an acknowledgement survives: memory (nothing), process (kill -9 of every process; default) or power (loss of power).",
			oneOf(DurabilityMemory, DurabilityProcess, DurabilityPower), func(s *Stream) *Durability { return &s.Durability }),
		field("compression", "zstd (default, smallest), s2 (fastest) or none.", oneOf("zstd", "s2", "none"), func(s *Stream) *string { return &s.Compression }),
		field("frames", "Many events in one message. Default true; false for clients that speak NATS without Hozo's packages.", boolean(), func(s *Stream) *bool { return &s.Frames }),
		field("key", "Dotted path of a field in the events' JSON: those that agree in it keep their order, for services that read the stream with ordered: true. Default: none.",
			jsonPath(), func(s *Stream) *string { return &s.Key }),
		field("partitions", "Into how many parts the keys are shared out: how many instances can read at once. Default 16 with a key; each costs speed.", whole(1, wire.MaxPartitions), func(s *Stream) *int { return &s.Partitions }),
		field("full", "What becomes of an event when the stream is at max_bytes: block (default: publishers wait for room, HTTP clients get 503), fail (it is refused at once, HTTP clients get 507), drop_oldest (the oldest is dropped, read or not) or drop_newest (the event is dropped and counted).",
			oneOf(wire.FullBlock, wire.FullFail, wire.FullDropOldest, wire.FullDropNewest), func(s *Stream) *string { return &s.Full }),
		field("dedupe", "Window in which a repeated event is recognised. Default 10m, at most keep.", span(minDedupe, maxSpan), func(s *Stream) *time.Duration { return &s.Dedupe }),
	}
}
