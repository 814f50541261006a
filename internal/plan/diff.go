package plan

import (
	"fmt"
	"strings"
)

// Op is what a Step does to an instance.
type Op string

// The operations, in the order in which a plan lists them for a person: what goes, what changes, what comes.
const (
	OpStop    Op = "stop"    // and forget it: nobody wants it any more
	OpRestart Op = "restart" // stop it and start it as it is wanted now
	OpUpdate  Op = "update"  // change what can change while it runs
	OpStart   Op = "start"
)

// Have is an instance that exists.
type Have struct {
	Name    string
	Hash    string // Spec.Hash of what runs, or ran last
	Hot     string // Spec.HotHash in effect; empty when nobody knows
	Running bool
	Stopped bool  // a person stopped it: it stays so
	Cold    Parts // Spec.Cold of what runs, or ran last; nil when nobody knows
	HotWas  Parts // Spec.Hot in effect; nil when nobody knows
}

// Step is one thing to do.
type Step struct {
	Op     Op       `json:"op"`
	Name   string   `json:"name"`
	Keys   []string `json:"keys,omitempty"` // of the manifest that changed: "env.LOG_LEVEL"; never their values
	Reason string   `json:"reason"`
}

// String is the step in one line: "restart classify.1 (its program or surroundings changed)".
func (s Step) String() string { return fmt.Sprintf("%-7s %s (%s)", s.Op, s.Name, s.Reason) }

// Diff says what leads from have to want: first the stops in the order of have, then the other steps in the order of
// want. An instance that is wanted as it is gets no step, running or not: whether a stopped one runs again is for its
// restart policy, or a person, to say. One that a person stopped is not started by a change either.
func Diff(want []Spec, have []Have) []Step {
	wanted := make(map[string]bool, len(want))
	for _, w := range want {
		wanted[w.Name] = true
	}
	var steps []Step
	known := make(map[string]Have, len(have))
	for _, h := range have {
		known[h.Name] = h
		if !wanted[h.Name] {
			steps = append(steps, Step{Op: OpStop, Name: h.Name, Reason: "not in the manifest any more"})
		}
	}
	for _, w := range want {
		h, ok := known[w.Name]
		cold, hot := ok && h.Hash != w.Hash(), ok && h.Hot != "" && h.Hot != w.HotHash()
		var keys []string
		if cold && h.Cold != nil {
			keys = changed(h.Cold, w.Cold())
		}
		if hot && h.HotWas != nil {
			keys = append(keys, changed(h.HotWas, w.Hot())...)
		}
		step := Step{Name: w.Name, Keys: keys}
		switch {
		case !ok:
			step.Op, step.Reason = OpStart, "new"
		case cold && h.Stopped:
			step.Op, step.Reason = OpUpdate, Because(keys, "its program or surroundings changed")+"; it stays stopped"
		case cold && h.Running:
			step.Op, step.Reason = OpRestart, Because(keys, "its program or surroundings changed")
		case cold:
			step.Op, step.Reason = OpStart, Because(keys, "changed since it ran")
		case hot:
			step.Op, step.Reason = OpUpdate, Because(keys, "its supervision changed")+"; it runs on"
			if !h.Running {
				step.Reason = Because(keys, "its supervision changed")
			}
		default:
			continue
		}
		steps = append(steps, step)
	}
	return steps
}

// Because says which keys changed, or else what is known without them.
func Because(keys []string, otherwise string) string {
	if len(keys) == 0 {
		return otherwise
	}
	return strings.Join(keys, ", ") + " changed"
}

// Format writes steps for a person, one a line; an empty plan says so.
func Format(steps []Step) string {
	if len(steps) == 0 {
		return "nothing to do\n"
	}
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}
