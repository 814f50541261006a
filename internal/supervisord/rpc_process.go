//go:build linux

package supervisord

import (
	"errors"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

func processMethods() map[string]method {
	const wait = "boolean wait"
	const name = "string name"
	return map[string]method{
		"supervisor.startProcess": {
			call: rpc.startProcess, min: 1, returns: "boolean", params: []string{name, wait},
			help: "Start a process, named alone or as group:name; group:* starts the whole group.",
		},
		"supervisor.startProcessGroup": {
			call: rpc.startProcessGroup, min: 1, returns: "array", params: []string{name, wait},
			help: "Start every process of a group that does not run.",
		},
		"supervisor.startAllProcesses": {
			call: rpc.startAllProcesses, returns: "array", params: []string{wait},
			help: "Start every process that does not run.",
		},
		"supervisor.stopProcess": {
			call: rpc.stopProcess, min: 1, returns: "boolean", params: []string{name, wait},
			help: "Stop a process, named alone or as group:name; group:* stops the whole group.",
		},
		"supervisor.stopProcessGroup": {
			call: rpc.stopProcessGroup, min: 1, returns: "array", params: []string{name, wait},
			help: "Stop every process of a group that runs.",
		},
		"supervisor.stopAllProcesses": {
			call: rpc.stopAllProcesses, returns: "array", params: []string{wait},
			help: "Stop every process that runs.",
		},
		"supervisor.signalProcess": {
			call: rpc.signalProcess, min: 2, returns: "boolean", params: []string{name, "string signal"},
			help: "Send a signal, by name or number, to a process.",
		},
		"supervisor.signalProcessGroup": {
			call: rpc.signalProcessGroup, min: 2, returns: "array", params: []string{name, "string signal"},
			help: "Send a signal to every process of a group.",
		},
		"supervisor.signalAllProcesses": {
			call: rpc.signalAllProcesses, min: 1, returns: "array", params: []string{"string signal"},
			help: "Send a signal to every process.",
		},
		"supervisor.sendProcessStdin": {
			call: rpc.sendProcessStdin, min: 2, returns: "boolean", params: []string{name, "string chars"},
			help: "Write text, in UTF-8, to the standard input of a process.",
		},
		"supervisor.sendRemoteCommEvent": {
			call: rpc.sendRemoteCommEvent, min: 2, returns: "boolean", params: []string{"string type", "string data"},
			help: "Send an event to the listeners that subscribe to REMOTE_COMMUNICATION.",
		},
	}
}

// named does what is to be done with the process that the first argument names, or with those of the group.
func (r rpc) named(a args, one func(*process, string) result, many func([]*process) result) result {
	name, ok := a.text(0)
	if !ok {
		return fail(incorrectParameters, "")
	}
	g, p, fault := r.find(name)
	if fault != nil {
		return result{fault: fault}
	}
	if p == nil {
		return many(g.byPriority())
	}
	return one(p, name)
}

func (r rpc) startProcess(a args) result {
	return r.named(a, func(p *process, name string) result {
		return r.start(p, name, a.flag(1, true))
	}, func(list []*process) result {
		return r.startAll(list, a.flag(1, true))
	})
}

func (r rpc) start(p *process, name string, wait bool) result {
	if r.d.mood < MoodRunning {
		return fail(shutdownState, "")
	}
	if _, bad := findCommand(p.conf); bad != nil {
		if bad.missing {
			return fail(noFile, bad.text)
		}
		return fail(notExecutable, bad.text)
	}
	if p.state.running() {
		return fail(alreadyStarted, name)
	}
	if p.state == Unknown {
		return fail(failed, name+" is in an unknown process state")
	}
	p.spawn()
	if p.spawnErr != "" {
		return fail(spawnError, name)
	}
	p.transition() // with startsecs 0 it is RUNNING now
	if !wait || p.state == Running {
		return value(true)
	}
	return waitFor(func() (any, bool, *xmlrpc.Fault) {
		switch {
		case p.spawnErr != "":
			return nil, true, newFault(spawnError, name)
		case p.state != Starting && p.state != Running:
			return nil, true, newFault(abnormalTermination, name)
		}
		return true, p.state == Running, nil
	})
}

func (r rpc) startProcessGroup(a args) result {
	list, fault := r.members(a)
	if fault != nil {
		return result{fault: fault}
	}
	return r.startAll(list, a.flag(1, true))
}

func (r rpc) startAllProcesses(a args) result { return r.startAll(r.everyone(), a.flag(0, true)) }

func (r rpc) startAll(list []*process, wait bool) result {
	return r.forAll(list, func(p *process) bool { return !p.state.running() }, func(p *process, name string) result {
		return r.start(p, name, wait)
	})
}

func (r rpc) stopProcess(a args) result {
	return r.named(a, func(p *process, name string) result {
		return r.stop(p, name, a.flag(1, true))
	}, func(list []*process) result {
		return r.stopAll(list, a.flag(1, true))
	})
}

func (r rpc) stop(p *process, name string, wait bool) result {
	if r.d.mood < MoodRunning {
		return fail(shutdownState, "")
	}
	if p.comesBack() {
		p.change(Stopped, true) // it has ended, but it must not start again
		return value(true)
	}
	if !p.state.running() {
		return fail(notRunning, name)
	}
	if err := p.stop(); err != nil {
		return fail(failed, err.Error())
	}
	if !wait || p.state.stopped() {
		return value(true)
	}
	return waitFor(func() (any, bool, *xmlrpc.Fault) {
		p.stopReport()
		return true, p.state.stopped(), nil
	})
}

func (r rpc) stopProcessGroup(a args) result {
	list, fault := r.members(a)
	if fault != nil {
		return result{fault: fault}
	}
	return r.stopAll(list, a.flag(1, true))
}

func (r rpc) stopAllProcesses(a args) result { return r.stopAll(r.everyone(), a.flag(0, true)) }

func (r rpc) stopAll(list []*process, wait bool) result {
	return r.forAll(list, func(p *process) bool { return p.state.running() || p.comesBack() }, func(p *process, name string) result {
		return r.stop(p, name, wait)
	})
}

func (r rpc) signalProcess(a args) result {
	return r.named(a, func(p *process, name string) result {
		return r.signal(p, name, a[1])
	}, func(list []*process) result {
		return r.signalAll(list, a[1])
	})
}

func (r rpc) signal(p *process, name string, which any) result {
	sig, ok := signalNumber(which)
	if !ok {
		return fail(badSignal, shown(which))
	}
	if !p.state.signallable() {
		return fail(notRunning, name)
	}
	if err := p.signal(sig); err != nil {
		return fail(failed, err.Error())
	}
	return value(true)
}

func (r rpc) signalProcessGroup(a args) result {
	list, fault := r.members(a)
	if fault != nil {
		return result{fault: fault}
	}
	return r.signalAll(list, a[1])
}

func (r rpc) signalAllProcesses(a args) result { return r.signalAll(r.everyone(), a[0]) }

// signalAll never waits, so its answer is there at once.
func (r rpc) signalAll(list []*process, which any) result {
	all := r.forAll(list, func(p *process) bool { return p.state.signallable() }, func(p *process, name string) result {
		return r.signal(p, name, which)
	})
	v, _, fault := all.wait()
	return result{value: v, fault: fault}
}

// signalNumber reads a signal as clients and configurations name it: TERM, SIGTERM or 15.
func signalNumber(which any) (syscall.Signal, bool) {
	sig, err := conf.ParseSignal(shown(which))
	return sig, err == nil
}

func shown(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	default:
		return ""
	}
}

func (r rpc) sendProcessStdin(a args) result {
	chars, ok := a.text(1)
	if !ok {
		return fail(incorrectParameters, shown(a[1]))
	}
	name, p, fault := r.one(a, 0)
	if fault != nil {
		return result{fault: fault}
	}
	if p.pid == 0 || p.killing {
		return fail(notRunning, name)
	}
	switch err := p.write([]byte(chars)); {
	case errors.Is(err, unix.EPIPE):
		return fail(noFile, name)
	case err != nil:
		return fail(failed, name+": "+err.Error())
	}
	return value(true)
}

func (r rpc) sendRemoteCommEvent(a args) result {
	kind, ok := a.text(0)
	data, also := a.text(1)
	if !ok || !also {
		return fail(incorrectParameters, "")
	}
	r.d.notify(remoteEvent(kind, data))
	return value(true)
}

// members is the processes of the group that parameter 0 names, in the order of starting.
func (r rpc) members(a args) ([]*process, *xmlrpc.Fault) {
	name, ok := a.text(0)
	if !ok {
		return nil, newFault(incorrectParameters, "")
	}
	g := r.d.group(name)
	if g == nil {
		return nil, newFault(badName, name)
	}
	return g.byPriority(), nil
}

// everyone is all processes in the order of starting.
func (r rpc) everyone() []*process {
	var list []*process
	for _, g := range r.d.byPriority() {
		list = append(list, g.byPriority()...)
	}
	return list
}

// together is how close two answers must be to count as simultaneous: Supervisor looks between 20 times a second, when it
// is busy, and once, when it is not, so clients know answers of one look in the order of the processes.
const together = 250 * time.Millisecond

// forAll makes a call for every process of a list that wants it, and gathers the answers.
func (r rpc) forAll(list []*process, want func(*process) bool, do func(p *process, name string) result) result {
	type waiting struct {
		index  int
		p      *process
		wait   step
		when   time.Time
		answer map[string]any
	}
	var results []any
	var open, closed []*waiting
	begun := false
	return waitFor(func() (any, bool, *xmlrpc.Fault) {
		if !begun {
			begun = true
			for i, p := range list {
				if !want(p) {
					continue
				}
				res := do(p, namespec(p.group.conf.Name, p.conf.Name))
				if res.wait != nil {
					open = append(open, &waiting{index: i, p: p, wait: res.wait})
					continue
				}
				results = append(results, outcome(p, res.fault))
			}
		}
		open = slices.DeleteFunc(open, func(w *waiting) bool {
			_, done, fault := w.wait()
			if fault == nil && !done {
				return false
			}
			w.when, w.answer = time.Now(), outcome(w.p, fault)
			closed = append(closed, w)
			return true
		})
		if len(open) > 0 {
			return nil, false, nil
		}
		for len(closed) > 0 {
			n := 1
			for n < len(closed) && closed[n].when.Sub(closed[0].when) < together {
				n++
			}
			slices.SortFunc(closed[:n], func(a, b *waiting) int { return a.index - b.index })
			for _, w := range closed[:n] {
				results = append(results, w.answer)
			}
			closed = closed[n:]
		}
		if results == nil {
			results = []any{}
		}
		return results, true, nil
	})
}

// outcome is one process's line in a list of answers.
func outcome(p *process, fault *xmlrpc.Fault) map[string]any {
	m := map[string]any{"name": p.conf.Name, "group": p.group.conf.Name, "status": int(success), "description": "OK"}
	if fault != nil {
		m["status"], m["description"] = fault.Code, fault.String
	}
	return m
}
