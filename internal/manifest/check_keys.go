package manifest

import (
	"fmt"
	"slices"
)

// keys checks what the key of a stream needs.
func (c *checker) keys(s *Stream) {
	if s.Partitions > 0 && s.Key == "" && c.node("streams", s.Name, "key") == nil {
		c.add(c.key("streams", s.Name, "partitions"), "partitions-without-key", fmt.Sprintf("stream %s has partitions, but no key that says what goes into which", s.Name),
			"add key: FIELD OF THE EVENTS, or remove partitions")
	}
}

// ordered checks whether a service can read its i-th source in the order of keys.
func (c *checker) ordered(s *Service, i int) {
	from := s.Consumes[i]
	at := c.item(from.Subject, "services", s.Name, "consumes")
	for _, other := range s.Consumes[:i] {
		if from.Stream != "" && other.Stream == from.Stream && other.Ordered != from.Ordered {
			c.add(at, "half-ordered", fmt.Sprintf("service %q consumes a part of stream %s in order and another without", s.Name, from.Stream), "set ordered: true on both, or on neither")
			return
		}
	}
	if !from.Ordered {
		return
	}
	if s.Builtin == "sink" {
		c.add(at, "ordered-sink", fmt.Sprintf("the sink %q reads everything in order as it is", s.Name), "remove ordered")
		return
	}
	stream := slices.IndexFunc(c.m.Streams, func(st Stream) bool { return st.Name == from.Stream })
	if stream >= 0 && c.m.Streams[stream].Key == "" && c.node("streams", from.Stream, "key") == nil {
		c.add(at, "ordered-without-key", fmt.Sprintf("service %q consumes %s in order, but stream %s has no key to order by", s.Name, from.Subject, from.Stream),
			fmt.Sprintf("add key: FIELD OF THE EVENTS to stream %s, or remove ordered", from.Stream))
	}
}
