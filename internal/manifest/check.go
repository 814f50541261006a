package manifest

import (
	"fmt"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// checker looks for mistakes in what the parts of a manifest are together. Values that could not be decoded are
// reported already and stand here as their defaults; so it asks the nodes, not the values, whether a key was written.
type checker struct {
	*report
	root *node
	m    *Manifest
}

func (c *checker) all() {
	if c.root.entry("project") == nil {
		c.add(position{1, 1}, "no-project", "the manifest has no project", "add project: NAME")
	}
	if c.root.entry("services") == nil && c.root.entry("host") == nil {
		c.add(position{1, 1}, "no-services", "the manifest has no services", "add services:")
	}
	c.streams()
	c.live()
	for i := range c.m.Services {
		s := &c.m.Services[i]
		c.service(s)
		c.wiring(s)
		c.builtin(s)
		c.scaling(s)
	}
	c.clients()
	c.broker()
	c.listeners()
	c.needs()
	c.tasks()
	c.queues()
	c.crons()
	c.requests()
	c.hosts()
}

// node returns the value at a path of keys, or nil.
func (c *checker) node(path ...string) *node {
	n := c.root
	for _, name := range path {
		n = n.get(name)
	}
	return n
}

// key returns the place of the last key of a path, or of the nearest one above it that is written.
func (c *checker) key(path ...string) position {
	at, n := position{1, 1}, c.root
	for _, name := range path {
		e := n.entry(name)
		if e == nil {
			break
		}
		at, n = e.at, e.value
	}
	return at
}

// value returns the place of the value at a path, or that of the nearest key above it.
func (c *checker) value(path ...string) position {
	if n := c.node(path...); n != nil {
		return n.at
	}
	return c.key(path...)
}

// item returns the place of a word in the list, or of a key in the map, at a path.
func (c *checker) item(word string, path ...string) position {
	n := c.node(path...)
	if e := n.entry(word); e != nil {
		return e.at
	}
	if n != nil {
		for _, i := range n.items {
			if i.text == word || i.get("subject") != nil && i.get("subject").text == word {
				return i.at
			}
		}
	}
	return c.value(path...)
}

// set reports whether a key of a service is written.
func (c *checker) set(service, name string) bool { return c.node("services", service, name) != nil }

func (c *checker) streams() {
	var total Bytes
	for i := range c.m.Streams {
		s := &c.m.Streams[i]
		at := c.key("streams", s.Name)
		if reserved(s.Name) {
			c.add(at, "reserved-name", fmt.Sprintf("the stream %q is under hozo, which is the platform's own", short(s.Name)), "choose another first part")
		}
		c.keys(s)
		if s.Dedupe > s.Keep && c.node("streams", s.Name, "dedupe") != nil {
			c.add(c.value("streams", s.Name, "dedupe"), "dedupe-beyond-keep",
				fmt.Sprintf("stream %s recognises repeats for %s but keeps events for %s only", s.Name, formatDuration(s.Dedupe), formatDuration(s.Keep)),
				"set dedupe to at most keep")
		}
		for j := range i {
			other := c.m.Streams[j].Name
			if under(other, s.Name) || under(s.Name, other) {
				outer, inner := other, s.Name
				if under(inner, outer) {
					outer, inner = inner, outer
				}
				c.add(at, "overlapping-streams", fmt.Sprintf("streams %s and %s overlap: %s stores everything below its name", short(outer), short(inner), short(outer)),
					fmt.Sprintf("rename one, or keep %s alone", short(outer)))
			}
		}
		if s.Durability != DurabilityMemory {
			total = addBytes(total, s.MaxBytes)
		}
	}
	if store := c.m.Broker.Store; store > 0 && total > store {
		c.add(c.value("broker", "store"), "store-too-small", fmt.Sprintf("the streams may take %s together, the store only %s", total, store), "raise broker.store, or lower max_bytes of streams")
	}
}

// addBytes adds sizes and stays at the largest rather than wrap around.
func addBytes(a, b Bytes) Bytes {
	if sum := a + b; sum >= a {
		return sum
	}
	return 1<<63 - 1
}

func reserved(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	return first == "hozo"
}

// under reports whether inner is a dotted part of outer's space, or outer itself.
func under(outer, inner string) bool { return inner == outer || strings.HasPrefix(inner, outer+".") }

// storing returns the streams that store something that matches the subject, and whether one alone stores all of it.
func (c *checker) storing(subject string) (touched []string, within bool) {
	for _, s := range c.m.Streams {
		for _, stored := range wire.StreamSubjects(s.Name) {
			if wire.Covers(stored, subject) {
				return []string{s.Name}, true
			}
		}
		if touches(subject, s.Name) {
			touched = append(touched, s.Name)
		}
	}
	return touched, false
}

// touches reports whether a pattern may match a subject that the stream stores.
func touches(pattern, stream string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(stream, ".")
	for i, token := range s {
		switch {
		case i < len(p) && p[i] == ">":
			return true
		case i >= len(p), p[i] != "*" && p[i] != token:
			return false
		}
	}
	return true
}
