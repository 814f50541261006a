package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/schedule"
)

// Cron enqueues a task at each tick. Exactly one of At and Every is set.
type Cron struct {
	Name     string
	Task     string        // kind of its tasks
	At       string        // five fields, six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly
	Every    time.Duration // between two ticks, which are whole multiples of it since 1970 UTC
	Zone     string        // IANA name of At's time zone; default: the host's
	Overlap  string        // what a tick does while the task before it has not ended: skip (default), queue (at most one), allow
	CatchUp  string        // what becomes of ticks while the host was down: none (default), one, all
	Args     string        // the tasks' arguments, in JSON; default {}
	Priority string        // of its tasks: high, normal (default), low
}

func newCron(name string) Cron {
	return Cron{Name: name, Overlap: "skip", CatchUp: "none", Args: "{}", Priority: "normal"}
}

func cronKeys() []key[Cron] {
	return []key[Cron]{
		field("task", "Kind of the tasks.", nameText(dottedName()), func(c *Cron) *string { return &c.Task }),
		field("at", "minute hour day month weekday, six fields with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.", cronText(), func(c *Cron) *string { return &c.At }),
		field("every", "Interval in place of at, counted from 1970 UTC.", span(schedule.MinEvery, maxSpan), func(c *Cron) *time.Duration { return &c.Every }),
		field("zone", "Time zone of at, like Europe/Berlin. Default: the host's.", zoneText(), func(c *Cron) *string { return &c.Zone }),
		field("overlap", "What a tick does while the task before it is in the queue or in hand: skip (default), queue (at most one) or allow.", oneOf("skip", "queue", "allow"), func(c *Cron) *string { return &c.Overlap }),
		field("catch_up", "What becomes of ticks while the host was down for more than a minute: none (default), one (the newest) or all (at most 1000).", oneOf("none", "one", "all"), func(c *Cron) *string { return &c.CatchUp }),
		field("args", "Arguments of the tasks: any value, which they get as JSON. Default {}.", jsonText(), func(c *Cron) *string { return &c.Args }),
		field("priority", "Priority of the tasks: high, normal (default) or low.", oneOf("high", "normal", "low"), func(c *Cron) *string { return &c.Priority }),
	}
}

// jsonText is any value, written as JSON.
func jsonText() shape[string] {
	return shape[string]{schema{}, func(d *decoder, n *node, path string, into *string) {
		v, ok := d.plainValue(n)
		if !ok {
			return // reported
		}
		data, err := json.Marshal(v)
		if err != nil {
			d.add(n.at, "bad-value", fmt.Sprintf("%s cannot be written as JSON: %s", path, err), "write numbers, texts, lists and maps")
			return
		}
		*into = string(data)
	}}
}

// plainValue is what a node is in the types of encoding/json.
func (d *decoder) plainValue(n *node) (v any, ok bool) {
	switch n.kind {
	case kindBroken:
		return nil, false
	case kindText:
		return n.text, true
	case kindBool:
		return strings.EqualFold(n.text, "true"), true
	case kindNumber:
		return plainNumber(n.text), true
	case kindList:
		all := make([]any, 0, len(n.items))
		for _, item := range n.items {
			v, ok := d.plainValue(item)
			if !ok {
				return nil, false
			}
			all = append(all, v)
		}
		return all, true
	case kindMap:
		all := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			if all[e.name], ok = d.plainValue(e.value); !ok {
				return nil, false
			}
		}
		return all, true
	}
	return nil, true // kindNull
}

// plainNumber is a number as JSON has it; what JSON cannot hold stays a text.
func plainNumber(text string) any {
	if json.Valid([]byte(text)) {
		return json.Number(text)
	}
	if v, err := strconv.ParseInt(text, 0, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
		return v
	}
	return text
}

// crons finds crons that do not say when or what, and those whose tasks nobody handles.
func (c *checker) crons() {
	var handled []string
	for _, s := range c.m.Services {
		handled = append(handled, s.Handles...)
		if c.undecoded(&s, "handles", len(s.Handles)) {
			return
		}
	}
	for _, one := range c.m.Crons {
		n := c.node("cron", one.Name)
		if n != nil && n.kind != kindMap && n.kind != kindNull {
			continue // reported
		}
		at := c.key("cron", one.Name)
		switch written, every := n.get("at") != nil, n.get("every") != nil; {
		case written && every:
			c.add(at, "bad-cron", fmt.Sprintf("cron %q has both at and every", one.Name), "keep one of the two")
		case !written && !every:
			c.add(at, "bad-cron", fmt.Sprintf("cron %q does not say when", one.Name), `add at: "0 3 * * *" or every: 10m`)
		case every && one.Zone != "":
			c.add(c.key("cron", one.Name, "zone"), "bad-cron", fmt.Sprintf("cron %q has an interval, which knows no time zone", one.Name), "remove zone, or write at in place of every")
		}
		switch {
		case n.get("task") == nil:
			c.add(at, "no-task", fmt.Sprintf("cron %q does not say which task", one.Name), "add task: KIND")
		case one.Task != "" && !slices.Contains(handled, one.Task):
			c.add(c.value("cron", one.Name, "task"), "unhandled-task", fmt.Sprintf("cron %q enqueues tasks of kind %s, which no service handles", one.Name, one.Task), orServe(one.Task, handled, "handles"))
		}
	}
}
