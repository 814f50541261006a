package manifest

import (
	"fmt"
	"strings"
	"time"
)

// builtinKeys are the settings of the built-in services.
func builtinKeys() []key[Service] {
	return []key[Service]{
		field("ingest", "Settings of builtin: ingest.", optional(object(ingestKeys(), nil), newIngest), func(s *Service) **Ingest { return &s.Ingest }),
		field("route", "Settings of builtin: route. An event goes to the first rule whose condition holds.", optional(object(routeKeys(), nil), newRouteBy), func(s *Service) **RouteBy { return &s.RouteBy }),
		field("to", "Where builtin: sink writes, or builtin: push sends.", optional(object(targetKeys(), nil), newTarget), func(s *Service) **Target { return &s.To }),
		field("zmq", "Sockets of builtin: zmq, by the name of their listener.", zmqSockets(), func(s *Service) *[]ZMQSocket { return &s.ZMQ }),
	}
}

func ingestKeys() []key[Ingest] {
	return []key[Ingest]{
		field("max_body", "Most bytes of one request, decompressed. Default 16MiB.", size(1<<10), func(i *Ingest) *Bytes { return &i.MaxBody }),
		field("max_line", "Most bytes of one event. Default 1MiB.", size(1), func(i *Ingest) *Bytes { return &i.MaxLine }),
		field("in_flight", "Most bytes of all requests being handled. Default 128MiB.", size(1<<10), func(i *Ingest) *Bytes { return &i.InFlight }),
		field("linger", "How long a small request waits for company. Default 2ms.", span(0, time.Second), func(i *Ingest) *time.Duration { return &i.Linger }),
	}
}

func routeKeys() []key[RouteBy] {
	return []key[RouteBy]{
		field("rules", "Conditions, tried in order.", rules(), func(r *RouteBy) *[]Rule { return &r.Rules }),
		field("default", "Subject for events that no rule takes. Default: they are parked.", nameText(dottedName()), func(r *RouteBy) *string { return &r.Default }),
	}
}

func rules() shape[[]Rule] {
	rule := object([]key[Rule]{
		field("when", "An expr-lang expression over the event's JSON that is true or false: type == \"PushEvent\".", condition(), func(r *Rule) *string { return &r.When }),
		field("to", "Subject, one of those that the service publishes.", nameText(dottedName()), func(r *Rule) *string { return &r.Subject }),
	}, schema{"required": []any{"when", "to"}})
	return shape[[]Rule]{schema{"type": "array", "minItems": 1, "items": rule.schema}, func(d *decoder, n *node, path string, into *[]Rule) {
		if n.kind != kindList || len(n.items) == 0 {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be a list of rules, not %s", path, n), "write - { when: CONDITION, to: SUBJECT }")
			return
		}
		for i, item := range n.items {
			r, at := Rule{}, fmt.Sprintf("%s[%d]", path, i)
			rule.read(d, item, at, &r)
			if item.kind == kindMap {
				for _, name := range []string{"when", "to"} {
					if item.get(name) == nil {
						d.add(item.at, "no-key", fmt.Sprintf("%s has no %s", at, name), "write { when: CONDITION, to: SUBJECT }")
					}
				}
			}
			if r.When != "" && r.Subject != "" {
				*into = append(*into, r)
			}
		}
	}}
}

func condition() shape[string] {
	return shape[string]{schema{"type": "string", "minLength": 1, "maxLength": maxCondition}, func(d *decoder, n *node, path string, into *string) {
		if n.kind != kindText && n.kind != kindBool {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be an expression, not %s", path, n), `write one, like type == "PushEvent"`)
			return
		}
		if _, err := CompileCondition(n.text); err != nil {
			at := n.at
			if e, ok := err.(*ConditionError); ok && e.Line == 1 {
				at = n.character(e.Column - 1)
			}
			d.add(at, "bad-condition", fmt.Sprintf("%s: %s", path, err), "correct the expression; its language is described at expr-lang.org")
			return
		}
		*into = n.text
	}}
}

func targetKeys() []key[Target] {
	columns := table(identifier("column name"), jsonPath())
	return []key[Target]{
		field("sqlite", "Database file.", filePath(), func(t *Target) *string { return &t.SQLite }),
		field("postgres", "URL of a PostgreSQL database, postgres://USER@HOST:PORT/DATABASE. The password is in PGPASSWORD, by the service's env_file, or in a passfile.", postgresURL(), func(t *Target) *string { return &t.Postgres }),
		field("table", "Table in the database. Default events.", nameText(identifier("table name")), func(t *Target) *string { return &t.Table }),
		field("columns", "Columns of the table: name to dotted path in the event's JSON.", columns, func(t *Target) *map[string]string { return &t.Columns }),
		field("file", "Folder of rotated .ndjson.zst files.", filePath(), func(t *Target) *string { return &t.File }),
		field("http", "For builtin: push: URL that each event, or task, is sent to by POST, http://…, https://… or unix:SOCKET:PATH.", pushURL(), func(t *Target) *string { return &t.HTTP }),
		field("timeout", "For builtin: push: of one request. Default 10s, for tasks 5m.", span(10*time.Millisecond, time.Hour), func(t *Target) *time.Duration { return &t.Timeout }),
		field("attempts", "For builtin: push: tries of one event or task before it is parked. Default 5, for tasks 10.", whole(1, 1000), func(t *Target) *int { return &t.Attempts }),
		field("workers", "For builtin: push: requests at once, for each kind of task too. Default 16.", whole(1, 1024), func(t *Target) *int { return &t.Workers }),
		field("batch", "For builtin: push: most events of one request, as lines of JSON. Without it an event is a request.", whole(1, 1000), func(t *Target) *int { return &t.Batch }),
		field("linger", "For builtin: push: how long a batch waits to be full. Default 10ms.", span(0, 10*time.Second), func(t *Target) *time.Duration { return &t.Linger }),
		field("rotate", "When a file is finished.", object([]key[Rotate]{
			field("bytes", "Stored bytes. Default 64MiB.", size(1<<10), func(r *Rotate) *Bytes { return &r.Bytes }),
			field("age", "Time since its first event. Default 10s.", span(10*time.Millisecond, 7*day), func(r *Rotate) *time.Duration { return &r.Age }),
		}, nil), func(t *Target) *Rotate { return &t.Rotate }),
	}
}

// jsonPath is a dotted path to a value in an event, "repo.name".
func jsonPath() shape[string] {
	return scalar(schema{"type": "string", "pattern": `^[^.\s]+(\.[^.\s]+)*$`}, "bad-path", "a dotted path like repo.name", func(s string) (string, error) {
		for part := range strings.SplitSeq(s, ".") {
			if part == "" || strings.ContainsAny(part, " \t\r\n") {
				return "", fmt.Errorf("%q is not a path", short(s))
			}
		}
		return s, nil
	})
}
