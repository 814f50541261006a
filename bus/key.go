package bus

import (
	"strings"

	"github.com/hozo-dev/hozo/wire"
	"github.com/tidwall/gjson"
)

// Key says what orders the events of a topic: those with one key stay in order among themselves. It matters on a stream
// that has a key in the manifest and takes the place of the path that stands there, so it must give the same for the
// same event; for types that are not JSON it is the only way. Events with an empty key are in order among themselves, too.
// T must be the topic's type; NewTopic panics when it is not.
func Key[T any](of func(T) string) Option { return func(o *options) { o.key = of } }

// keyOf is the topic's own way to a key, or nil.
func keyOf[T any](t Topic[T]) func(T) string {
	if t.opts == nil || t.opts.key == nil {
		return nil
	}
	return t.opts.key.(func(T) string)
}

// keyFunc says how a Stage finds the key of what it reads.
func keyFunc[T any](topic Topic[T], src wire.Source) func(event []byte) string {
	own := keyOf(topic)
	if own == nil {
		return newKeyReader(src.Key).of
	}
	return func(event []byte) string {
		var v T
		if err := decode(topic.opts, "", event, &v); err != nil {
			return "" // such events are parked
		}
		return own(v)
	}
}

// keyReader finds the key of an event by the path that a stream has in the manifest.
type keyReader struct{ path string } // in gjson's syntax; empty finds nothing

func newKeyReader(dotted string) keyReader {
	if dotted == "" {
		return keyReader{}
	}
	names := strings.Split(dotted, ".")
	for i, name := range names {
		names[i] = gjson.Escape(name)
	}
	return keyReader{strings.Join(names, ".")}
}

// of returns the key of event: a string as it is, anything else as it is written, and nothing where there is nothing.
func (k keyReader) of(event []byte) string {
	if k.path == "" {
		return ""
	}
	switch value := gjson.GetBytes(event, k.path); value.Type {
	case gjson.Null:
		return ""
	case gjson.String:
		return value.Str
	default:
		return value.Raw
	}
}

// Partitioner returns a function that says which partition of route's stream an event belongs to, by the path of its key
// in the manifest. The route must have partitions. The function is safe for concurrent use.
func Partitioner(route wire.Route) func(event []byte) int {
	keys := newKeyReader(route.Key)
	return func(event []byte) int { return partitionOf(keys.of(event), route.Partitions) }
}

// partitionOf is wire.PartitionOf of a string.
func partitionOf(key string, n int) int {
	if n <= 1 {
		return 0
	}
	return wire.PartitionOf([]byte(key), n)
}
