package manifest

import (
	"fmt"
	"strings"
	"time"
)

func serviceRules() schema {
	return schema{"oneOf": []any{schema{"required": []any{"run"}}, schema{"required": []any{"builtin"}}}}
}

func serviceKeys() []key[Service] {
	subjects := func() shape[[]string] { return listOf(nameText(dottedName()), true) }
	keys := []key[Service]{
		field("builtin", "A ready-made service in place of a program: ingest (HTTP in), route (by content) or sink (out to a database or files).",
			oneOf("ingest", "route", "sink"), func(s *Service) *string { return &s.Builtin }),
		field("build", "Command that is run once before the first start.", command(), func(s *Service) *[]string { return &s.Build }),
		field("run", "Command that is the service: a string split into words as a shell would, but run without one, or a list.", command(), func(s *Service) *[]string { return &s.Run }),
		field("env", "Environment variables, passed as they are written: ${VAR} is not expanded.", table(identifier("variable name"), plain()), func(s *Service) *map[string]string { return &s.Env }),
		field("dir", "Working folder. Default: the manifest's.", filePath(), func(s *Service) *string { return &s.Dir }),
		field("user", "User that it runs as. Default: the one who runs Hozo.", text(), func(s *Service) *string { return &s.User }),
		field("listen", "Listening sockets by name, held open over restarts.", listens(), func(s *Service) *[]Listen { return &s.Listen }),
		field("health", "When an instance counts as ready.",
			optional(shortForm("health", "http", object(healthKeys(), nil)), newHealth), func(s *Service) **Health { return &s.Health }),
		field("scale", "Instances. Default 1.", whole(1, 256), func(s *Service) *int { return &s.Scale }),
		field("restart", "What happens when it ends by itself.", shortForm("restart", "policy", object(restartKeys(), nil)), func(s *Service) *Restart { return &s.Restart }),
		field("stop", "How it is asked to end.", shortForm("stop", "grace", object(stopKeys(), nil)), func(s *Service) *Stop { return &s.Stop }),
		field("needs", "Services that must be there first: a list, or a map to ready (default), started or completed.", needs(), func(s *Service) *[]Need { return &s.Needs }),
		field("publishes", "Subjects that it may publish, each within one stream.", patterns(), func(s *Service) *[]Route { return &s.Publishes }),
		field("consumes", "Streams, or parts of them, that it reads.", sources(), func(s *Service) *[]Source { return &s.Consumes }),
		field("serves", "Requests that it answers.", subjects(), func(s *Service) *[]string { return &s.Serves }),
		field("calls", "Requests that it asks others.", subjects(), func(s *Service) *[]string { return &s.Calls }),
		field("handles", "Kinds of tasks that it runs.", subjects(), func(s *Service) *[]string { return &s.Handles }),
		field("enqueues", "Kinds of tasks that it enqueues.", subjects(), func(s *Service) *[]string { return &s.Enqueues }),
		field("log", "Bounds of each instance's captured output.", object(logKeys(), nil), func(s *Service) *Log { return &s.Log }),
	}
	return append(keys, builtinKeys()...)
}

// command is a program and its arguments.
func command() shape[[]string] {
	return shape[[]string]{
		schema{"anyOf": []any{
			schema{"type": "string", "minLength": 1},
			schema{"type": "array", "minItems": 1, "items": schema{"type": []any{"string", "number", "boolean"}}},
		}},
		func(d *decoder, n *node, path string, into *[]string) {
			switch n.kind {
			case kindList:
				d.words(n, path, into)
			case kindText, kindBool: // true is a program
				d.line(n, path, into)
			default:
				d.add(n.at, "bad-type", fmt.Sprintf("%s must be a command or a list of words, not %s", path, n), "write ./program --flag, or [./program, --flag]")
			}
		},
	}
}

func (d *decoder) words(n *node, path string, into *[]string) {
	var argv []string
	for _, item := range n.items {
		if !item.scalar() {
			d.add(item.at, "bad-type", fmt.Sprintf("a word of %s must be text, not %s", path, item), "write one word an item")
			continue
		}
		argv = append(argv, item.text)
	}
	d.argv(n, path, argv, into)
}

func (d *decoder) line(n *node, path string, into *[]string) {
	argv, err := splitWords(n.text)
	if err != nil {
		at, fix := n.at, "close the quote, or write a list of words"
		if w, ok := err.(*wordError); ok {
			at = n.character(w.offset)
			if w.shell {
				fix = "run a shell: sh -c " + quoteWord(short(n.text))
			}
		}
		d.add(at, "bad-command", fmt.Sprintf("%s: %s", path, err), fix)
		return
	}
	d.argv(n, path, argv, into)
}

func (d *decoder) argv(n *node, path string, argv []string, into *[]string) {
	switch {
	case len(argv) == 0 || argv[0] == "":
		d.add(n.at, "bad-command", path+" names no program", "write ./program, or a name that is in PATH")
	case n.kind != kindList && isAssignment(argv[0]):
		name, _, _ := strings.Cut(argv[0], "=")
		d.add(n.at, "bad-command", fmt.Sprintf("%s begins with an assignment, which only a shell knows", path), fmt.Sprintf("set %s under env", name))
	default:
		*into = argv
	}
}

func isAssignment(word string) bool {
	name, _, found := strings.Cut(word, "=")
	return found && isIdentifier(name)
}

func patterns() shape[[]Route] {
	of := listOf(nameText(subjectName()), true)
	return shape[[]Route]{of.schema, func(d *decoder, n *node, path string, into *[]Route) {
		var all []string
		of.read(d, n, path, &all)
		for _, subject := range all {
			*into = append(*into, Route{Subject: subject})
		}
	}}
}

func sources() shape[[]Source] {
	of := listOf(nameText(subjectName()), true)
	return shape[[]Source]{of.schema, func(d *decoder, n *node, path string, into *[]Source) {
		var all []string
		of.read(d, n, path, &all)
		for _, subject := range all {
			*into = append(*into, Source{Subject: subject})
		}
	}}
}

// needs is a list of services, or a map from services to conditions.
func needs() shape[[]Need] {
	list := listOf(nameText(plainName()), true)
	condition := oneOf("ready", "started", "completed")
	return shape[[]Need]{
		schema{"anyOf": []any{list.schema, schema{"type": "object", "propertyNames": schema{"pattern": plainName().pattern}, "additionalProperties": condition.schema}}},
		func(d *decoder, n *node, path string, into *[]Need) {
			if n.kind != kindMap {
				var all []string
				list.read(d, n, path, &all)
				for _, name := range all {
					*into = append(*into, Need{name, "ready"})
				}
				return
			}
			for i := range n.entries {
				e := &n.entries[i]
				need := Need{e.name, "ready"}
				if d.checkName(plainName(), e.name, e.at) && d.present(e, join(path, e.name)) {
					condition.read(d, e.value, join(path, e.name), &need.Condition)
					*into = append(*into, need)
				}
			}
		},
	}
}

func healthKeys() []key[Health] {
	return []key[Health]{
		field("http", "Path on the first TCP listener, or a full URL: ready on 2xx. As health: notify, ready on READY=1.", probeURL(), func(h *Health) *string { return &h.HTTP }),
		field("tcp", "Name of a listener, or host:port: ready when it accepts.", text(), func(h *Health) *string { return &h.TCP }),
		field("notify", "Ready on READY=1 to NOTIFY_SOCKET.", onlyTrue(), func(h *Health) *bool { return &h.Notify }),
		field("interval", "Between two probes. Default 1s.", span(10*time.Millisecond, time.Hour), func(h *Health) *time.Duration { return &h.Interval }),
		field("timeout", "Of one probe. Default 1s.", span(10*time.Millisecond, time.Hour), func(h *Health) *time.Duration { return &h.Timeout }),
		field("grace", "From start to ready; then it is restarted. Default 30s.", span(10*time.Millisecond, day), func(h *Health) *time.Duration { return &h.Grace }),
		field("failures", "Failures in a row that make it unready. Default 3.", whole(1, 1000), func(h *Health) *int { return &h.Failures }),
	}
}

func probeURL() shape[string] {
	return scalar(schema{"type": "string", "pattern": `^(notify$|/|https?://.)`}, "bad-health", "notify, a path like /healthz or a full URL", func(s string) (string, error) {
		for _, start := range []string{"http://", "https://", "/"} {
			if rest, ok := strings.CutPrefix(s, start); ok && (start == "/" || rest != "") && !strings.ContainsAny(s, " \t\r\n\x00") {
				return s, nil
			}
		}
		return "", fmt.Errorf("%q is neither notify nor a path nor a URL", short(s))
	})
}

// onlyTrue is a mark: to take it back, the key is left out.
func onlyTrue() shape[bool] {
	of := boolean()
	return shape[bool]{schema{"const": true}, func(d *decoder, n *node, path string, into *bool) {
		before := len(d.found)
		of.read(d, n, path, into)
		if len(d.found) == before && !*into {
			d.add(n.at, "bad-health", path+" can only be true", "remove the key")
		}
	}}
}

func restartKeys() []key[Restart] {
	return []key[Restart]{
		field("policy", "always (default), on-failure or never.", oneOf("always", "on-failure", "never"), func(r *Restart) *string { return &r.Policy }),
		field("delay", "Before the first restart; doubles each time. Default 100ms.", span(0, day), func(r *Restart) *time.Duration { return &r.Delay }),
		field("max", "Most that the delay grows to. Default 30s.", span(0, day), func(r *Restart) *time.Duration { return &r.Max }),
		field("reset", "Time up after which the delay starts over. Default 10s.", span(0, day), func(r *Restart) *time.Duration { return &r.Reset }),
	}
}

func stopKeys() []key[Stop] {
	return []key[Stop]{
		field("signal", "Default TERM.", signal(), func(s *Stop) *string { return &s.Signal }),
		field("grace", "Then the whole tree is killed. Default 10s.", span(0, time.Hour), func(s *Stop) *time.Duration { return &s.Grace }),
	}
}

// signal is the name of a signal that asks a program to end, with or without SIG.
func signal() shape[string] {
	of := oneOf("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL")
	var all []any
	for _, s := range of.schema["enum"].([]any) {
		all = append(all, s, "SIG"+s.(string))
	}
	return shape[string]{schema{"enum": all}, func(d *decoder, n *node, path string, into *string) {
		bare := *n
		bare.text = strings.TrimPrefix(n.text, "SIG")
		of.read(d, &bare, path, into)
	}}
}

func logKeys() []key[Log] {
	return []key[Log]{
		field("max_bytes", "A log file is rotated beyond. Default 16MiB.", size(4<<10), func(l *Log) *Bytes { return &l.MaxBytes }),
		field("keep", "Rotated files that are kept. Default 4.", whole(0, 1000), func(l *Log) *int { return &l.Keep }),
		field("age", "A log file is rotated when its first byte is as old. Default 0: by size alone.", span(0, maxSpan), func(l *Log) *time.Duration { return &l.Age }),
		field("compress", "Whether rotated files are compressed with zstd. Default false.", boolean(), func(l *Log) *bool { return &l.Compress }),
		field("full", "When the log cannot be written, as on a full disk: drop output and count it (default), or block the program until it can.", oneOf("drop", "block"), func(l *Log) *string { return &l.Full }),
	}
}
