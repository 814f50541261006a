package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/schedule"
)

// Schedule says when a service runs. Exactly one of Cron and Every is set. Such a service does not run at the start.
type Schedule struct {
	Cron    string        // five fields, six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly
	Every   time.Duration // between two ticks, which are whole multiples of it since 1970 UTC
	Zone    string        // IANA name of Cron's time zone; default: the host's
	Overlap string        // what a tick does while the run before it goes on: skip (default), queue (at most one), allow
	Missed  string        // what becomes of ticks while the node was down: skip (default), run_once
	Jitter  time.Duration // most that a tick is late, so that instances and hosts do not all begin at once; default 0
}

// Hooks are programs that are run beside a service's own, each at a moment of its life. Unset ones are nil.
type Hooks struct {
	BeforeStart *Hook // its failure keeps the instance from starting and counts as a crash
	AfterReady  *Hook
	BeforeStop  *Hook
	AfterStop   *Hook
}

// Hook is one program of Hooks. It has the environment, folder, user and log of the service.
type Hook struct {
	Run     []string      // argv
	Timeout time.Duration // then its whole tree is killed, and it has failed; default 30s
}

// EnvFile is a file of KEY=value lines.
type EnvFile struct {
	Path     string // absolute
	Optional bool   // it may be missing; written as a leading -
}

func newSchedule() Schedule { return Schedule{Overlap: "skip", Missed: "skip"} }

func newHook() Hook { return Hook{Timeout: 30 * time.Second} }

func scheduleKeys() []key[Schedule] {
	return []key[Schedule]{
		field("cron", "minute hour day month weekday, six fields with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.", cronText(), func(s *Schedule) *string { return &s.Cron }),
		field("every", "Interval in place of cron, counted from 1970 UTC.", span(schedule.MinEvery, maxSpan), func(s *Schedule) *time.Duration { return &s.Every }),
		field("zone", "Time zone of cron, like Europe/Berlin. Default: the host's.", zoneText(), func(s *Schedule) *string { return &s.Zone }),
		field("overlap", "What is done at a tick while the run before goes on: skip (default), queue (at most one) or allow.", oneOf("skip", "queue", "allow"), func(s *Schedule) *string { return &s.Overlap }),
		field("missed", "What becomes of ticks while the node was down: skip (default) or run_once.", oneOf("skip", "run_once"), func(s *Schedule) *string { return &s.Missed }),
		field("jitter", "Most that a run begins after its tick; by how much differs between ticks and instances. Default 0.", span(0, day), func(s *Schedule) *time.Duration { return &s.Jitter }),
	}
}

// cronText is an expression that names at least one moment.
func cronText() shape[string] {
	return shape[string]{schema{"type": "string", "minLength": 1}, func(d *decoder, n *node, path string, into *string) {
		if !n.scalar() {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be a cron expression, not %s", path, n), `write "*/5 * * * *"`)
			return
		}
		if _, err := schedule.Cron(n.text, nil); err != nil {
			at, fix := n.at, "write minute hour day month weekday, as in 30 2 * * mon-fri"
			if syntax, ok := err.(*schedule.SyntaxError); ok {
				at = n.character(syntax.Offset)
			}
			switch {
			case strings.HasPrefix(n.text, "@every"):
				fix = "write every: " + strings.TrimSpace(strings.TrimPrefix(n.text, "@every")) + " in place of cron"
			case strings.HasPrefix(n.text, "@reboot"):
				fix = "remove schedule and set restart: never; then it runs once at the start"
			}
			d.add(at, "bad-cron", fmt.Sprintf("%s: %s", path, err), fix)
			return
		}
		*into = n.text
	}}
}

func zoneText() shape[string] {
	return scalar(schema{"type": "string", "minLength": 1}, "unknown-zone", "a time zone like Europe/Berlin", func(s string) (string, error) {
		if _, err := time.LoadLocation(s); err != nil || s == "" {
			return "", fmt.Errorf("there is no time zone %q on this host", short(s))
		}
		return s, nil
	})
}

func hooksKeys() []key[Hooks] {
	hook := func() shape[*Hook] {
		return optional(object(hookKeys(), schema{"required": []any{"run"}}), newHook)
	}
	return []key[Hooks]{
		field("before_start", "Before each start. When it fails the instance is not started, which counts as a crash.", hook(), func(h *Hooks) **Hook { return &h.BeforeStart }),
		field("after_ready", "Once an instance is ready.", hook(), func(h *Hooks) **Hook { return &h.AfterReady }),
		field("before_stop", "Before an instance is asked to stop.", hook(), func(h *Hooks) **Hook { return &h.BeforeStop }),
		field("after_stop", "Once an instance has ended, by itself or not, and before it is started again.", hook(), func(h *Hooks) **Hook { return &h.AfterStop }),
	}
}

func hookKeys() []key[Hook] {
	return []key[Hook]{
		field("run", "Command of the hook.", command(), func(h *Hook) *[]string { return &h.Run }),
		field("timeout", "Then its whole tree is killed, and it has failed. Default 30s.", span(10*time.Millisecond, day), func(h *Hook) *time.Duration { return &h.Timeout }),
	}
}

// envFiles is a path or a list of paths; a leading - says that the file may be missing.
func envFiles() shape[[]EnvFile] {
	list := listOf(text(), true)
	return shape[[]EnvFile]{
		schema{"anyOf": []any{text().schema, list.schema}},
		func(d *decoder, n *node, path string, into *[]EnvFile) {
			var all []string
			if n.scalar() {
				var one string
				if text().read(d, n, path, &one); one != "" {
					all = []string{one}
				}
			} else {
				list.read(d, n, path, &all)
			}
			for _, name := range all {
				bare, optional := strings.CutPrefix(name, "-")
				if strings.ContainsRune(bare, 0) || strings.TrimSpace(bare) == "" || strings.HasSuffix(bare, string(os.PathSeparator)) {
					d.add(n.at, "bad-path", fmt.Sprintf("%s: %q names no file", path, short(name)), "write a path, with a leading - if the file may be missing")
					continue
				}
				if !filepath.IsAbs(bare) {
					bare = filepath.Join(d.dir, bare)
				}
				*into = append(*into, EnvFile{filepath.Clean(bare), optional})
			}
		},
	}
}

// schedule checks what a schedule and the rest of its service are together.
func (c *checker) schedule(s *Service) {
	for _, at := range []string{"before_start", "after_ready", "before_stop", "after_stop"} {
		if n := c.node("services", s.Name, "hooks", at); n != nil && n.kind == kindMap && n.get("run") == nil {
			c.add(c.key("services", s.Name, "hooks", at), "no-command", fmt.Sprintf("hook %s of service %q has no command", at, s.Name), "add run: ./program")
		}
	}
	if s.Schedule == nil {
		return
	}
	at := c.key("services", s.Name, "schedule")
	written := c.node("services", s.Name, "schedule")
	if written == nil || written.kind != kindMap && !written.scalar() {
		return // reported
	}
	cron, every := written.scalar() || written.get("cron") != nil, written.get("every") != nil
	switch {
	case cron && every:
		c.add(at, "bad-schedule", fmt.Sprintf("service %q has both cron and every", s.Name), "keep one of the two")
	case !cron && !every:
		c.add(at, "bad-schedule", fmt.Sprintf("the schedule of service %q does not say when", s.Name), `add cron: "*/5 * * * *" or every: 10m`)
	case every && s.Schedule.Zone != "":
		c.add(c.key("services", s.Name, "schedule", "zone"), "bad-schedule", fmt.Sprintf("service %q runs at an interval, which knows no time zone", s.Name), "remove zone, or write cron in place of every")
	}
	if s.Restart.Policy == "always" {
		c.add(c.value("services", s.Name, "restart"), "bad-schedule", fmt.Sprintf("service %q has a schedule and is restarted always", s.Name), "set restart: never or on-failure, or remove the schedule")
	}
	if s.Builtin != "" {
		c.add(at, "bad-schedule", fmt.Sprintf("service %q is built in and serves all the time", s.Name), "remove schedule")
	}
}
