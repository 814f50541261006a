package builtin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"unsafe"

	"github.com/expr-lang/expr/vm"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
	"github.com/tidwall/gjson"
)

// router sends each event to the subject of the first rule whose condition holds. A condition that cannot be evaluated
// for an event, because a field is missing or of another type, does not hold. Safe for concurrent use.
type router struct {
	rules    []rule
	fallback string    // subject for the rest; empty parks them
	wanted   fields    // what the rules read
	whole    bool      // they read more than can be told from their text: events are decoded whole
	pool     sync.Pool // *evaluation
}

type rule struct {
	program *vm.Program
	subject string
}

// evaluation is what one evaluation needs. It is reused.
type evaluation struct {
	env     map[string]any
	extract *extractor
	machine vm.VM
}

// newRouter compiles the rules and reports every mistake at once.
func newRouter(cfg manifest.RouteBy) (*router, error) {
	r := &router{fallback: cfg.Default, wanted: make(fields)}
	r.pool.New = func() any { return &evaluation{env: make(map[string]any), extract: newExtractor(r.wanted)} }
	var errs []error
	for i, one := range cfg.Rules {
		program, err := manifest.CompileCondition(one.When)
		if err != nil {
			errs = append(errs, &fault.Error{
				Code: "route/condition", Kind: fault.Misuse, Where: fmt.Sprintf("route.rules[%d].when", i),
				What: fmt.Sprintf("the condition %q cannot be read", one.When), Err: err,
				Fix: `write a condition over the event's fields, such as type == "PushEvent"`,
			})
			continue
		}
		f, ok, err := fieldsOf(one.When)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.wanted.merge(f)
		r.whole = r.whole || !ok
		r.rules = append(r.rules, rule{program, one.Subject})
	}
	return r, errors.Join(errs...)
}

// topics returns what a router reads: the topic of each stream, or of the one subject of it, that the grant names.
func topics(g wire.Grant) []bus.Topic[[]byte] {
	var all []bus.Topic[[]byte]
	for _, src := range g.Consumes {
		switch {
		case src.Stream == wire.RetryStream: // stages read it beside their own
		case len(src.Subjects) == 1:
			all = append(all, bus.NewTopic[[]byte](strings.TrimSuffix(src.Subjects[0], ".>")))
		default:
			all = append(all, bus.NewTopic[[]byte](src.Stream))
		}
	}
	return all
}

// handle is the stage's handler.
func (r *router) handle(_ context.Context, e bus.Event[[]byte], out *bus.Out) error {
	subject, err := r.subject(e.Data)
	if err != nil {
		return err
	}
	return out.Publish(subject, e.Data)
}

// subject says where an event goes. The error is a rejection: trying again gives the same.
func (r *router) subject(event []byte) (string, error) {
	if !jsonscan.Valid(event) {
		return "", bus.Reject("route/invalid-json", errors.New("the event is not one JSON document"))
	}
	ev := r.pool.Get().(*evaluation)
	defer r.pool.Put(ev)
	r.fill(ev, event)
	defer ev.clear()
	for _, rule := range r.rules {
		// An error says that the condition does not fit this event, which is then for the next rule.
		if holds, err := ev.machine.Run(rule.program, ev.env); err == nil && holds == true {
			return rule.subject, nil
		}
	}
	if r.fallback == "" {
		return "", bus.Reject("route/no-match", errors.New("no rule matches the event and there is no default"))
	}
	return r.fallback, nil
}

// fill puts the event's fields, those that the rules read or all, into the environment. An event that is no object has
// none.
func (r *router) fill(ev *evaluation, event []byte) {
	// The string lives no longer than the event: env is cleared when the rules are done.
	text := unsafe.String(unsafe.SliceData(event), len(event))
	if !isObject(text) {
		return
	}
	if !r.whole {
		ev.extract.into(ev.env, text)
		return
	}
	if all, ok := gjson.Parse(text).Value().(map[string]any); ok {
		maps.Copy(ev.env, all)
	}
}

// clear lets go of the event, into which the values point.
func (ev *evaluation) clear() {
	clear(ev.env)
	ev.extract.release()
}
