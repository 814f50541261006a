package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// builtinUse says which keys a built-in service needs, of which it needs one at least, and which others of the keys that
// shape a service it knows.
type builtinUse struct{ needs, oneOf, knows []string }

func builtinUses(name string) builtinUse {
	switch name {
	case "ingest":
		return builtinUse{[]string{"listen"}, []string{"publishes", "enqueues"}, []string{"ingest"}}
	case "route":
		return builtinUse{needs: []string{"consumes", "publishes", "route"}}
	case "sink":
		return builtinUse{needs: []string{"consumes", "to"}}
	case "push":
		return builtinUse{needs: []string{"to"}, oneOf: []string{"consumes", "handles"}}
	case "zmq":
		return builtinUse{[]string{"listen", "zmq"}, nil, []string{"publishes", "consumes", "watches", "calls"}}
	}
	// The user's programs do what they like, but have no settings of ours.
	return builtinUse{nil, nil, []string{"build", "listen", "publishes", "consumes", "watches", "serves", "calls", "handles", "enqueues"}}
}

func (c *checker) builtin(s *Service) {
	if s.Builtin == "" && (c.set(s.Name, "builtin") || !c.set(s.Name, "run")) {
		return // reported; nothing can be said of its keys
	}
	use, kind, article := builtinUses(s.Builtin), "service with a command", "a"
	if s.Builtin != "" {
		kind = s.Builtin + " service"
	}
	if s.Builtin == "ingest" {
		article = "an"
	}
	for _, name := range use.needs {
		if !c.set(s.Name, name) {
			c.add(c.key("services", s.Name), "no-key", fmt.Sprintf("%s %q has no %s", kind, s.Name, name), builtinExample(name))
		}
	}
	if len(use.oneOf) > 0 && !slices.ContainsFunc(use.oneOf, func(name string) bool { return c.set(s.Name, name) }) {
		c.add(c.key("services", s.Name), "no-key", fmt.Sprintf("%s %q has neither %s", kind, s.Name, strings.Join(use.oneOf, " nor ")), builtinExample(use.oneOf[0])+", or "+use.oneOf[1]+": [KIND]")
	}
	for _, name := range []string{"build", "listen", "publishes", "consumes", "watches", "serves", "calls", "handles", "enqueues", "ingest", "route", "to", "zmq"} {
		if c.set(s.Name, name) && !slices.Contains(slices.Concat(use.needs, use.oneOf, use.knows), name) {
			c.add(c.key("services", s.Name, name), "wrong-key", fmt.Sprintf("%s %s has no use for %s", article, kind, name), "remove it"+hintFor(name))
		}
	}
	switch s.Builtin {
	case "ingest":
		c.ingest(s)
	case "route":
		c.routing(s)
	case "sink":
		c.sink(s)
	case "push":
		c.push(s)
	case "zmq":
		c.zmq(s)
	}
}

func builtinExample(name string) string {
	switch name {
	case "listen":
		return "add listen: { http: 8080 }"
	case "route":
		return `add route: { rules: [{ when: CONDITION, to: SUBJECT }] }`
	case "to":
		return "add to: { sqlite: data/events.db } or to: { file: data/lake }"
	case "zmq":
		return "add zmq: { LISTENER: { pull: STREAM } }"
	}
	return fmt.Sprintf("add %s: [STREAM]", name)
}

// hintFor says which service a setting belongs to.
func hintFor(name string) string {
	switch name {
	case "ingest", "route", "zmq":
		return ", or make it builtin: " + name
	case "to":
		return ", or make it builtin: sink"
	}
	return ""
}

func (c *checker) ingest(s *Service) {
	if len(s.Publishes) > 1 {
		c.add(c.value("services", s.Name, "publishes"), "many-outputs", fmt.Sprintf("ingest service %q publishes %d subjects", s.Name, len(s.Publishes)), "keep one; route events on with builtin: route")
	}
	if len(s.Publishes) == 1 && !isDotted(s.Publishes[0].Subject) {
		c.add(c.item(s.Publishes[0].Subject, "services", s.Name, "publishes"), "many-outputs", fmt.Sprintf("ingest service %q needs one subject to publish, not a pattern", s.Name), "write it without * and >")
	}
	if len(s.Publishes) == 1 && s.Publishes[0].Live {
		c.add(c.item(s.Publishes[0].Subject, "services", s.Name, "publishes"), "live-ingest", fmt.Sprintf("ingest service %q answers that events are stored, but nothing stores %s", s.Name, s.Publishes[0].Subject), "publish to a stream")
	}
	if s.Ingest == nil {
		return
	}
	if in := s.Ingest; in.MaxLine > in.MaxBody {
		c.add(c.value("services", s.Name, "ingest"), "bad-limits", fmt.Sprintf("ingest service %q takes events of %s in requests of %s", s.Name, in.MaxLine, in.MaxBody), "raise max_body, or lower max_line")
	} else if in.MaxBody > in.InFlight {
		c.add(c.value("services", s.Name, "ingest"), "bad-limits", fmt.Sprintf("ingest service %q takes requests of %s but %s of all together", s.Name, in.MaxBody, in.InFlight), "raise in_flight, or lower max_body")
	}
}

func (c *checker) routing(s *Service) {
	if s.RouteBy == nil {
		return
	}
	if c.node("services", s.Name, "route", "rules") == nil {
		c.add(c.key("services", s.Name, "route"), "no-key", fmt.Sprintf("route service %q has no rules", s.Name), builtinExample("route"))
	}
	covered := func(subject string) bool {
		return slices.ContainsFunc(s.Publishes, func(r Route) bool { return wire.Covers(r.Subject, subject) })
	}
	target := func(at position, subject string) {
		if subject != "" && !covered(subject) && !c.undecoded(s, "publishes", len(s.Publishes)) && c.set(s.Name, "publishes") {
			names := make([]string, 0, len(s.Publishes))
			for _, r := range s.Publishes {
				names = append(names, r.Subject)
			}
			fix := fmt.Sprintf("add %s to publishes", subject)
			if near := closest(subject, names); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			c.add(at, "unpublished-target", fmt.Sprintf("route service %q sends events to %s, which it does not publish", s.Name, subject), fix)
		}
	}
	if list := c.node("services", s.Name, "route", "rules"); list != nil {
		for _, item := range list.items {
			if to := item.get("to"); to != nil && to.scalar() && isDotted(to.text) {
				target(to.at, to.text)
			}
		}
	}
	target(c.value("services", s.Name, "route", "default"), s.RouteBy.Default)
}

func (c *checker) sink(s *Service) {
	if s.Scale > 1 && s.Autoscale == nil {
		c.add(c.value("services", s.Name, "scale"), "scaled-sink", fmt.Sprintf("sink service %q cannot be scaled: one reader keeps the order of the events", s.Name), "remove scale; write to more targets with more sinks")
	}
	to := c.node("services", s.Name, "to")
	if s.To == nil || to == nil || to.kind != kindMap {
		return
	}
	for _, name := range pushKeys {
		c.unused(s, name, "sink's")
	}
	var targets []string
	for _, name := range []string{"sqlite", "postgres", "file"} {
		if to.get(name) != nil {
			targets = append(targets, name)
		}
	}
	switch {
	case len(targets) != 1:
		c.add(c.key("services", s.Name, "to"), "bad-target", fmt.Sprintf("sink service %q needs one target, sqlite, postgres or file", s.Name), "write to: { sqlite: data/events.db }, to: { postgres: \"postgres://app@localhost/shop\" } or to: { file: data/lake }")
	case targets[0] == "file":
		c.unused(s, "table", "file")
		c.unused(s, "columns", "file")
	default:
		c.unused(s, "rotate", targets[0])
		c.tableNames(s)
	}
}

// tableNames refuses the names that a target needs for itself, so that it need not refuse them at its start. SQLite knows no
// difference between upper and lower case.
func (c *checker) tableNames(s *Service) {
	if table := strings.ToLower(s.To.Table); strings.HasPrefix(table, "sqlite_") && s.To.SQLite != "" || table == "hozo_watermark" {
		c.add(c.value("services", s.Name, "to", "table"), "reserved-name", fmt.Sprintf("the table %q is the database's or the platform's own", s.To.Table), "choose another name")
	}
	seen := []string{"stream", "seq", "idx", "subject", "body"} // written for every event
	for _, name := range c.node("services", s.Name, "to", "columns").names() {
		lower := strings.ToLower(name)
		if slices.Contains(seen, lower) {
			c.add(c.key("services", s.Name, "to", "columns", name), "duplicate-column", fmt.Sprintf("the table has a column %q already", lower), "choose another name; stream, seq, idx, subject and body are there for every event")
		}
		seen = append(seen, lower)
	}
}

func (c *checker) unused(s *Service, name, target string) {
	if c.node("services", s.Name, "to", name) != nil {
		c.add(c.key("services", s.Name, "to", name), "wrong-key", fmt.Sprintf("a %s target has no use for %s", target, name), "remove it")
	}
}
