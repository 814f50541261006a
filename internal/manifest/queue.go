package manifest

import (
	"fmt"
	"slices"
)

// Queue is where tasks of some kinds wait. A kind that no queue names has one of its own name.
type Queue struct {
	Name  string   // dotted
	Kinds []string // default: the one kind of its name
	Max   int      // most tasks that may be in it, scheduled and running ones included; default 0: a million
	Pause bool     // its tasks stay where they are
}

func newQueue(name string) Queue { return Queue{Name: name} }

func queueKeys() []key[Queue] {
	return []key[Queue]{
		field("kinds", "Kinds of tasks that wait in it. Default: the kind of its name.", listOf(nameText(dottedName()), true), func(q *Queue) *[]string { return &q.Kinds }),
		field("max", "Most tasks in it, scheduled and running ones included; enqueuing is refused beyond. Default 1000000.", whole(1, 100_000_000), func(q *Queue) *int { return &q.Max }),
		field("pause", "No task of it is started. Default false.", boolean(), func(q *Queue) *bool { return &q.Pause }),
	}
}

// queues fills in the kinds of queues, and finds kinds that nobody handles and kinds in two queues.
func (c *checker) queues() {
	var handled []string
	for _, s := range c.m.Services {
		handled = append(handled, s.Handles...)
		if c.undecoded(&s, "handles", len(s.Handles)) {
			return
		}
	}
	in := map[string]string{}
	for i := range c.m.Queues {
		q := &c.m.Queues[i]
		at := c.key("queues", q.Name)
		if len(q.Kinds) == 0 {
			q.Kinds = []string{q.Name}
		} else {
			at = c.key("queues", q.Name, "kinds")
		}
		for _, kind := range q.Kinds {
			if other, twice := in[kind]; twice {
				c.add(at, "queued-twice", fmt.Sprintf("tasks of kind %s would wait in two queues: %s and %s", kind, other, q.Name), "keep it in one of them")
				continue
			}
			in[kind] = q.Name
			if !slices.Contains(handled, kind) {
				c.add(at, "unhandled-task", fmt.Sprintf("queue %q is for tasks of kind %s, which no service handles", q.Name, kind), orServe(kind, handled, "handles"))
			}
		}
	}
	for i := range c.m.Queues {
		q := c.m.Queues[i]
		if slices.Contains(q.Kinds, q.Name) || !slices.Contains(handled, q.Name) {
			continue
		}
		if _, elsewhere := in[q.Name]; !elsewhere {
			c.add(c.key("queues", q.Name, "kinds"), "queue-name", fmt.Sprintf("queue %q has the name of a kind that is not in it and would have a queue of that name", q.Name),
				fmt.Sprintf("add %s to its kinds, or choose another name", q.Name))
		}
	}
}
