package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// instanceName is the name of instance n of a service, counted from 1.
func instanceName(service string, n int) string { return fmt.Sprintf("%s.%d", service, n) }

// usesBus reports whether a service needs the broker at all.
func usesBus(s manifest.Service) bool {
	if s.Autoscale != nil && s.Autoscale.On == manifest.OnRequests {
		return true // for its reports
	}
	return len(s.Publishes)+len(s.Consumes)+len(s.Watches)+len(s.Serves)+len(s.Calls)+len(s.Handles)+len(s.Enqueues) > 0
}

// grantsOf makes the grant of every instance of m. Passwords of grants that exist are kept unless replace says so, because
// running services hold them.
func grantsOf(m *manifest.Manifest, st state, replace func(wire.Grant) bool) ([]wire.Grant, error) {
	now := time.Now()
	streams := streamsOf(m)
	var grants []wire.Grant
	for _, s := range m.Services {
		config, err := builtinConfig(s)
		if err != nil {
			return nil, err
		}
		for n := 1; n <= s.Scale; n++ {
			name := instanceName(s.Name, n)
			password, expires, err := passwordOf(st.grant(name), now, replace)
			if err != nil {
				return nil, err
			}
			g := wiringOf(m, s, n, streams)
			g.Password, g.Expires, g.Config = password, expires, config
			grants = append(grants, g)
		}
	}
	return grants, nil
}

// wiringOf is the grant of instance n of a service but for its credential and its settings.
func wiringOf(m *manifest.Manifest, s manifest.Service, n int, streams map[string]manifest.Stream) wire.Grant {
	name := instanceName(s.Name, n)
	return wire.Grant{
		Version: wire.GrantVersion, Project: m.Project, Service: s.Name, Instance: n,
		User: name, Inbox: "_INBOX." + name, Declared: m.Place("services", s.Name),
		Consumes: durable(sources(s, streams), streams), Publish: routes(s, streams), Live: liveSubjects(s), Watches: s.Watches,
		Handles: s.Handles, Enqueues: s.Enqueues, Queues: grantQueues(m, slices.Concat(s.Handles, s.Enqueues)), Serves: s.Serves, Calls: s.Calls,
	}
}

// streamsOf maps names to the streams of m.
func streamsOf(m *manifest.Manifest) map[string]manifest.Stream {
	streams := map[string]manifest.Stream{}
	for _, s := range m.Streams {
		streams[s.Name] = s
	}
	return streams
}

// wiring digests what the grant of an instance allows and configures, by the manifest's keys.
func wiring(grants []wire.Grant, instance string) map[string]string {
	g := grants[slices.IndexFunc(grants, func(g wire.Grant) bool { return g.User == instance })]
	parts := map[string]any{
		"consumes": g.Consumes, "publishes": g.Publish, "live": g.Live, "watches": g.Watches, "handles": g.Handles, "enqueues": g.Enqueues, "queues": g.Queues, "serves": g.Serves, "calls": g.Calls,
		"settings": g.Config,
	}
	all := map[string]string{}
	for name, part := range parts {
		data, err := json.Marshal(part)
		if err != nil {
			panic(fmt.Sprintf("node: internal error: a grant that was made here cannot be encoded: %v", err))
		}
		if string(data) == "null" {
			continue
		}
		sum := sha256.Sum256(data)
		all[name] = hex.EncodeToString(sum[:8]) // 64 bits tell one instance's wirings apart
	}
	return all
}

// passwordOf returns the password of the grant at path, or a new one, and when it expires.
func passwordOf(path string, now time.Time, replace func(wire.Grant) bool) (string, time.Time, error) {
	g, err := wire.ReadGrant(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", time.Time{}, fmt.Errorf("read grant: %w", err)
	}
	if err != nil || g.Password == "" || replace(g) {
		return newPassword(), now.Add(credentialLife), nil
	}
	return g.Password, g.Expires, nil
}

// sources are the streams that a service consumes, each with one reader for all its instances, and the way back for
// events that it has parked.
func sources(s manifest.Service, streams map[string]manifest.Stream) []wire.Source {
	ordered := s.Builtin == "sink"
	var all []wire.Source
	for _, c := range s.Consumes {
		i := slices.IndexFunc(all, func(have wire.Source) bool { return have.Stream == c.Stream })
		if i < 0 {
			i = len(all)
			stream := streams[c.Stream]
			all = append(all, wire.Source{
				Stream: c.Stream, Durable: s.Name, Ordered: ordered, Partitions: stream.Partitions, Key: stream.Key,
			})
		}
		all[i].PerKey = all[i].PerKey || c.Ordered
		all[i].Subjects = append(all[i].Subjects, c.Subject)
	}
	for i, src := range all {
		// The whole stream needs no filter.
		if slices.Contains(src.Subjects, src.Stream) {
			all[i].Subjects = nil
		}
	}
	if len(all) > 0 {
		all = append(all, wire.Source{
			Stream: wire.RetryStream, Subjects: []string{wire.RetryStream + "." + s.Name + ".>"}, Durable: s.Name, Ordered: ordered,
		})
	}
	return all
}

// durable completes sources with what their streams promise.
func durable(sources []wire.Source, streams map[string]manifest.Stream) []wire.Source {
	for i, src := range sources {
		sources[i].Power = streams[src.Stream].GroupCommit()
	}
	return sources
}

// full is the policy of a stream that is full, left out when it is the usual one: grants that exist stay as they are.
func full(s manifest.Stream) string {
	if s.Full == wire.FullBlock {
		return ""
	}
	return s.Full
}

func routes(s manifest.Service, streams map[string]manifest.Stream) []wire.Route {
	var all []wire.Route
	for _, p := range s.Publishes {
		if p.Live {
			continue
		}
		stream := streams[p.Stream]
		route := wire.Route{
			Subject: p.Subject, Stream: p.Stream, Compression: stream.Compression, Frames: stream.Frames,
			Partitions: stream.Partitions, Key: stream.Key, Power: stream.GroupCommit(), Full: full(stream),
		}
		all = append(all, route)
		if s.Builtin == "ingest" { // a numbered producer has a subject of its own
			route.Subject = p.Subject + ".in.*"
			all = append(all, route)
		}
	}
	return all
}

func liveSubjects(s manifest.Service) []string {
	var all []string
	for _, p := range s.Publishes {
		if p.Live {
			all = append(all, p.Subject)
		}
	}
	return all
}

func builtinConfig(s manifest.Service) (json.RawMessage, error) {
	var settings any
	switch s.Builtin {
	case "ingest":
		settings = s.Ingest
	case "route":
		settings = s.RouteBy
	case "sink", "push":
		settings = s.To
	case "zmq":
		settings = s.ZMQ
	default:
		return nil, nil
	}
	data, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("encode settings of %s: %w", s.Name, err)
	}
	return data, nil
}

// accessOf lists who may connect to the broker: the node and every instance that uses the bus.
func accessOf(password string, grants []wire.Grant) broker.Access {
	a := broker.Access{Users: []broker.User{{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword(password)}}}
	for _, g := range grants {
		a.Users = append(a.Users, broker.UserOf(g))
	}
	return a
}
