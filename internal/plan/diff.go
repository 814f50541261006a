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
}

// Step is one thing to do.
type Step struct {
	Op     Op
	Name   string
	Reason string
}

// String is the step in one line: "restart classify.1 (its program or surroundings changed)".
func (s Step) String() string { return fmt.Sprintf("%-7s %s (%s)", s.Op, s.Name, s.Reason) }

// Diff says what leads from have to want: first the stops in the order of have, then the other steps in the order of
// want. An instance that is wanted as it is gets no step, running or not: whether a stopped one runs again is for its
// restart policy, or a person, to say.
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
			steps = append(steps, Step{OpStop, h.Name, "not in the manifest any more"})
		}
	}
	for _, w := range want {
		h, ok := known[w.Name]
		changed := ok && h.Hash != w.Hash()
		switch {
		case !ok:
			steps = append(steps, Step{OpStart, w.Name, "new"})
		case changed && h.Running:
			steps = append(steps, Step{OpRestart, w.Name, "its program or surroundings changed"})
		case changed:
			steps = append(steps, Step{OpStart, w.Name, "changed since it ran"})
		case h.Hot != "" && h.Hot != w.HotHash():
			steps = append(steps, Step{OpUpdate, w.Name, "its supervision changed; it runs on"})
		}
	}
	return steps
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
