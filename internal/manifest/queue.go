package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Queue is where tasks of some kinds wait. A kind that no queue names has one of its own name.
type Queue struct {
	Name  string   // dotted
	Kinds []string // default: the one kind of its name
	Max   int      // most tasks that may be in it, scheduled and running ones included; default 0: a million
	Pause bool     // its tasks stay where they are

	Concurrency int            `json:",omitempty"` // tasks that run at once over all instances; default 0: no limit
	Rate        Rate           `json:",omitzero"`  // tasks that begin in a time; default: no limit
	PerKey      KeyLimits      `json:",omitzero"`  // of each key
	Fair        bool           `json:",omitempty"` // keys share the workers; a queue with limits is always fair
	Weights     map[string]int `json:",omitempty"` // shares of keys; default 1
}

// KeyLimits are limits of each key of a queue. Tasks without a key have none.
type KeyLimits struct {
	Concurrency int
	Rate        Rate
}

// Rate is so many in a time. The zero Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// Paced reports whether tasks of the queue wait until they are let out.
func (q Queue) Paced() bool {
	return q.Concurrency > 0 || q.Rate.N > 0 || q.PerKey != KeyLimits{} || q.Fair || len(q.Weights) > 0
}

func newQueue(name string) Queue { return Queue{Name: name} }

func queueKeys() []key[Queue] {
	return []key[Queue]{
		field("kinds", "Kinds of tasks that wait in it. Default: the kind of its name.", listOf(nameText(dottedName()), true), func(q *Queue) *[]string { return &q.Kinds }),
		field("max", "Most tasks in it, scheduled and running ones included; enqueuing is refused beyond. Default 1000000.", whole(1, 100_000_000), func(q *Queue) *int { return &q.Max }),
		field("pause", "No task of it is started. Default false.", boolean(), func(q *Queue) *bool { return &q.Pause }),
		field("concurrency", "Most tasks of it that run at once, over all instances. Default: no limit.", whole(1, 100_000), func(q *Queue) *int { return &q.Concurrency }),
		field("rate", "Most tasks of it that begin in a time, over all instances, like 100/s, 10/m or 1000/24h. Default: no limit.", rateText(), func(q *Queue) *Rate { return &q.Rate }),
		field("per_key", "Limits of each key that tasks are enqueued with.", object(keyLimitKeys(), nil), func(q *Queue) *KeyLimits { return &q.PerKey }),
		field("fair", "Keys share the workers, however many tasks of one of them wait. A queue with limits or weights is always fair. Default false.", boolean(), func(q *Queue) *bool { return &q.Fair }),
		field("weights", "Shares of keys that get more than one share.", weights(), func(q *Queue) *map[string]int { return &q.Weights }),
	}
}

func keyLimitKeys() []key[KeyLimits] {
	return []key[KeyLimits]{
		field("concurrency", "Most tasks of a key that run at once, over all instances.", whole(1, 100_000), func(k *KeyLimits) *int { return &k.Concurrency }),
		field("rate", "Most tasks of a key that begin in a time, over all instances.", rateText(), func(k *KeyLimits) *Rate { return &k.Rate }),
	}
}

// rateText is a number and a time: 100/s, 5/10m.
func rateText() shape[Rate] {
	return scalar(schema{"type": "string", "pattern": `^[0-9]+/([0-9]+d)?([0-9.]*(ms|s|m|h))*$`}, "bad-rate", "a rate like 100/s, 10/m or 1000/24h", func(s string) (Rate, error) {
		count, per, ok := strings.Cut(s, "/")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 || n > 1_000_000 {
			return Rate{}, fmt.Errorf("%q is not a number from 1 to 1000000, a slash and a time", short(s))
		}
		if per == "s" || per == "m" || per == "h" || per == "d" {
			per = "1" + per
		}
		d, err := parseDuration(per)
		if err != nil || d < time.Second || d > 366*day {
			return Rate{}, fmt.Errorf("%q is no time from a second to a year", short(per))
		}
		return Rate{n, d}, nil
	})
}

// weights maps keys of tasks to their shares.
func weights() shape[map[string]int] {
	share := whole(1, 1000)
	return shape[map[string]int]{
		schema{"type": "object", "additionalProperties": share.schema},
		func(d *decoder, n *node, path string, into *map[string]int) {
			if !d.isMap(n, path) {
				return
			}
			all := map[string]int{}
			for i := range n.entries {
				e := &n.entries[i]
				if w := 0; d.present(e, join(path, e.name)) {
					if share.read(d, e.value, join(path, e.name), &w); w > 0 {
						all[e.name] = w
					}
				}
			}
			*into = all
		},
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
