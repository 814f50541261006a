package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

func serviceRules() schema {
	return schema{"oneOf": []any{schema{"required": []any{"run"}}, schema{"required": []any{"builtin"}}}}
}

func serviceKeys() []key[Service] {
	subjects := func() shape[[]string] { return listOf(nameText(dottedName()), true) }
	keys := []key[Service]{
		field("builtin", "A ready-made service in place of a program: ingest (HTTP in), route (by content), sink (out to a database or files), push (to any program's HTTP endpoint) or zmq (for ZeroMQ programs).",
			oneOf("ingest", "route", "sink", "push", "zmq"), func(s *Service) *string { return &s.Builtin }),
		field("build", "Command that is run once before the first start.", command(), func(s *Service) *[]string { return &s.Build }),
		field("run", "Command that is the service: a string split into words as a shell would, but run without one, or a list.", command(), func(s *Service) *[]string { return &s.Run }),
		field("env", "Environment variables, passed as they are written: ${VAR} is not expanded.", table(identifier("variable name"), plain()), func(s *Service) *map[string]string { return &s.Env }),
		field("dir", "Working folder. Default: the manifest's.", filePath(), func(s *Service) *string { return &s.Dir }),
		field("user", "User that it runs as. Default: the one who runs Hozo.", text(), func(s *Service) *string { return &s.User }),
		field("listen", "Listening sockets by name, held open over restarts.", listens(), func(s *Service) *[]Listen { return &s.Listen }),
		field("health", "When an instance counts as ready.",
			optional(shortForm("health", "http", object(healthKeys(), nil)), newHealth), func(s *Service) **Health { return &s.Health }),
		field("liveness", "When an instance counts as hung and is started again: of the form of health, but neither notify nor log.",
			optional(shortForm("liveness", "http", object(healthKeys(), nil)), newHealth), func(s *Service) **Health { return &s.Liveness }),
		field("watchdog", "How often it promises to send WATCHDOG=1 to NOTIFY_SOCKET once it is ready; one that misses it is aborted and started again. Package hozo does it by itself.",
			span(100*time.Millisecond, time.Hour), func(s *Service) *time.Duration { return &s.Watchdog }),
		scaleKey(),
		field("rolling", "How instances are replaced when they change or are restarted.", object(rollingKeys(), nil), func(s *Service) *Rolling { return &s.Rolling }),
		field("restart", "What happens when it ends by itself.", shortForm("restart", "policy", object(restartKeys(), nil)), func(s *Service) *Restart { return &s.Restart }),
		field("stop", "How it is asked to end.", shortForm("stop", "grace", object(stopKeys(), nil)), func(s *Service) *Stop { return &s.Stop }),
		field("needs", "Services that must be there first: a list, or a map to ready (default), started or completed, or to {condition, restart: true}, which starts it again once that service has been.", needs(), func(s *Service) *[]Need { return &s.Needs }),
		field("publishes", "Subjects that it may publish, each within one stream or live.", patterns(), func(s *Service) *[]Route { return &s.Publishes }),
		field("consumes", "Streams, or parts of them, that it reads: each a name, or {subject, ordered: true}.", sources(), func(s *Service) *[]Source { return &s.Consumes }),
		field("watches", "Live subjects that it listens to; every instance gets every event.", listOf(nameText(subjectName()), true), func(s *Service) *[]string { return &s.Watches }),
		field("serves", "Requests that it answers.", subjects(), func(s *Service) *[]string { return &s.Serves }),
		field("calls", "Requests that it asks others.", subjects(), func(s *Service) *[]string { return &s.Calls }),
		field("handles", "Kinds of tasks that it runs.", subjects(), func(s *Service) *[]string { return &s.Handles }),
		field("enqueues", "Kinds of tasks that it enqueues.", subjects(), func(s *Service) *[]string { return &s.Enqueues }),
		field("log", "Bounds of each instance's captured output.", object(logKeys(), nil), func(s *Service) *Log { return &s.Log }),
		field("limits", "Bounds of each instance: of its tree by cgroups, of its processes by resource limits.", object(limitKeys(), nil), func(s *Service) *Limits { return &s.Limits }),
		field("schedule", "When it runs; then it does not run at the start.", optional(shortForm("schedule", "cron", object(scheduleKeys(), nil)), newSchedule), func(s *Service) **Schedule { return &s.Schedule }),
		field("hooks", "Programs that are run at moments of its life, with its environment, folder, user and log.", object(hooksKeys(), nil), func(s *Service) *Hooks { return &s.Hooks }),
		field("env_file", "Files of KEY=value lines, a path or a list; env wins over them. A leading - says that the file may be missing.", envFiles(), func(s *Service) *[]EnvFile { return &s.EnvFile }),
		field("essential", "When it ends for good everything stops, and hozo up exits as it did. Default false.", boolean(), func(s *Service) *bool { return &s.Essential }),
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

// mostCopied bounds the bytes of a command line that a fix repeats.
const mostCopied = 1000

func (d *decoder) line(n *node, path string, into *[]string) {
	argv, err := splitWords(n.text)
	if err != nil {
		at, fix := n.at, "close the quote, or write a list of words"
		if w, ok := err.(*wordError); ok {
			at = n.character(w.offset)
			if w.shell {
				fix = "run a shell: sh -c " + quoteWord(n.text) // whole: it is there to be copied
				if len(n.text) > mostCopied {
					fix = "run a shell: write sh -c before the line, and the line in single quotes"
				}
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

// sources is a list of subjects, each of them a word or a map.
func sources() shape[[]Source] {
	word := nameText(subjectName())
	long := object([]key[Source]{
		field("subject", "Stream, or a part of one.", word, func(s *Source) *string { return &s.Subject }),
		field("ordered", "The events of each key one by one and in order, shared out among all instances: for streams with a key. Default false.", boolean(), func(s *Source) *bool { return &s.Ordered }),
	}, schema{"required": []any{"subject"}})
	return listOf(shape[Source]{
		schema{"anyOf": []any{word.schema, long.schema}},
		func(d *decoder, n *node, path string, into *Source) {
			if n.kind == kindMap {
				long.read(d, n, path, into)
				return
			}
			word.read(d, n, path, &into.Subject)
		},
	}, true)
}

// needs is a list of services, or a map from services to conditions, each a word or a map.
func needs() shape[[]Need] {
	list := listOf(nameText(plainName()), true)
	condition := oneOf("ready", "started", "completed")
	long := object([]key[Need]{
		field("condition", "ready (default), started or completed.", condition, func(n *Need) *string { return &n.Condition }),
		field("restart", "Start again once that service has been. Default false.", boolean(), func(n *Need) *bool { return &n.Restart }),
	}, nil)
	one := schema{"anyOf": []any{condition.schema, long.schema}}
	return shape[[]Need]{
		schema{"anyOf": []any{list.schema, schema{"type": "object", "propertyNames": schema{"pattern": plainName().pattern}, "additionalProperties": one}}},
		func(d *decoder, n *node, path string, into *[]Need) {
			if n.kind != kindMap {
				var all []string
				list.read(d, n, path, &all)
				for _, name := range all {
					*into = append(*into, Need{Service: name, Condition: "ready"})
				}
				return
			}
			for i := range n.entries {
				e := &n.entries[i]
				need := Need{Service: e.name, Condition: "ready"}
				at := join(path, e.name)
				if !d.checkName(plainName(), e.name, e.at) || !d.present(e, at) {
					continue
				}
				if e.value.kind == kindMap {
					long.read(d, e.value, at, &need)
				} else {
					condition.read(d, e.value, at, &need.Condition)
				}
				*into = append(*into, need)
			}
		},
	}
}

func healthKeys() []key[Health] {
	return []key[Health]{
		field("http", "Path on the first TCP listener, or a full URL: ready on 2xx. As health: notify, ready on READY=1.", probeURL(), func(h *Health) *string { return &h.HTTP }),
		field("tcp", "Name of a listener, or host:port: ready when it accepts.", text(), func(h *Health) *string { return &h.TCP }),
		field("exec", "Command: ready when it exits with status 0. It runs as the service's user, in its folder and environment.", command(), func(h *Health) *[]string { return &h.Exec }),
		field("grpc", "Name of a listener, or host:port, of a grpc.health.v1 server without TLS; NAME/SERVICE asks about one of its services. Ready on SERVING.", text(), func(h *Health) *string { return &h.GRPC }),
		field("log", "Regular expression (RE2): ready once a line of output matches.", pattern(), func(h *Health) *string { return &h.Log }),
		field("notify", "Ready on READY=1 to NOTIFY_SOCKET.", onlyTrue(), func(h *Health) *bool { return &h.Notify }),
		field("interval", "Between two probes. Default 1s.", span(10*time.Millisecond, time.Hour), func(h *Health) *time.Duration { return &h.Interval }),
		field("timeout", "Of one probe. Default 1s.", span(10*time.Millisecond, time.Hour), func(h *Health) *time.Duration { return &h.Timeout }),
		field("grace", "From start to ready; then it is restarted. Default 30s.", span(10*time.Millisecond, day), func(h *Health) *time.Duration { return &h.Grace }),
		field("failures", "Failures in a row that make it unready, or as liveness restart it. Default 3.", whole(1, 1000), func(h *Health) *int { return &h.Failures }),
		field("successes", "Successes in a row that make it ready. Default 1.", whole(1, 1000), func(h *Health) *int { return &h.Successes }),
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

// pattern is a regular expression.
func pattern() shape[string] {
	return scalar(schema{"type": "string", "minLength": 1}, "bad-pattern", "a regular expression like 'listening on .*'", func(s string) (string, error) {
		if s == "" {
			return "", errors.New("the pattern is empty")
		}
		if _, err := regexp.Compile(s); err != nil {
			return "", fmt.Errorf("not a regular expression of RE2: %w", err)
		}
		return s, nil
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
		field("delay", "Before a restart; doubles each time. The first one comes at once after a run of ten times as long. Default 100ms.", span(0, day), func(r *Restart) *time.Duration { return &r.Delay }),
		field("max", "Most that the delay grows to. Default 30s.", span(0, day), func(r *Restart) *time.Duration { return &r.Max }),
		field("reset", "Time up after which the delay starts over. Default 10s.", span(0, day), func(r *Restart) *time.Duration { return &r.Reset }),
		field("budget", "Starts within the window that the delays are good for, those after which it got ready too. Default 10.", whole(1, 1000), func(r *Restart) *int { return &r.Budget }),
		field("window", "Default 5m.", span(time.Second, day), func(r *Restart) *time.Duration { return &r.Window }),
		field("then", "Once the budget is spent: slow (default) tries again every retry_after, fail stays down until hozo start.", oneOf("slow", "fail"), func(r *Restart) *string { return &r.Then }),
		field("retry_after", "Between two starts once the budget is spent. Default 1m.", span(time.Second, day), func(r *Restart) *time.Duration { return &r.RetryAfter }),
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
