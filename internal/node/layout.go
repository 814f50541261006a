package node

import (
	"strings"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// Wiring is what the broker must hold for m, and the grant of each instance but for its credential and its settings.
func Wiring(m *manifest.Manifest) (broker.Layout, []wire.Grant) {
	var grants []wire.Grant
	streams := streamsOf(m)
	for _, s := range m.Services {
		for n := 1; n <= s.Scale; n++ {
			grants = append(grants, wiringOf(m, s, n, streams))
		}
	}
	return layoutOf(m), grants
}

// layoutOf is what the broker must hold for m.
func layoutOf(m *manifest.Manifest) broker.Layout {
	var l broker.Layout
	for _, s := range m.Streams {
		l.Streams = append(l.Streams, broker.StreamSpec{
			Name: s.Name, Keep: s.Keep, MaxBytes: int64(s.MaxBytes), Memory: s.Durability == manifest.DurabilityMemory, Dedupe: s.Dedupe,
			DropOld: s.Full == wire.FullDropOldest, Partitions: s.Partitions, Key: s.Key,
		})
	}
	streams := streamsOf(m)
	var kinds []string
	for _, s := range m.Services {
		for _, src := range sources(s, streams) {
			l.Consumers = append(l.Consumers, broker.Consumers(src)...)
		}
		kinds = append(kinds, s.Handles...)
	}
	for _, c := range m.Clients {
		for _, src := range clientSources(c) {
			l.Consumers = append(l.Consumers, broker.ConsumerSpec{Stream: src.Stream, Durable: src.Durable, Subjects: src.Subjects, Foreign: true})
		}
	}
	l.Queues = queueSpecs(m, kinds)
	return l
}

// readers maps each stream to the services that read it, in the manifest's order.
func readers(m *manifest.Manifest) map[string][]wire.Source {
	all, streams := map[string][]wire.Source{}, streamsOf(m)
	for _, s := range m.Services {
		for _, src := range sources(s, streams) {
			if !strings.HasPrefix(src.Stream, "hozo.") {
				all[src.Stream] = append(all[src.Stream], src)
			}
		}
	}
	for _, c := range m.Clients {
		for _, src := range clientSources(c) {
			all[src.Stream] = append(all[src.Stream], src)
		}
	}
	return all
}
