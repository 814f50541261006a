//go:build linux

package supervisord

import (
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

// rpc is what clients may call. Its methods run in the loop.
type rpc struct{ d *Daemon }

// args are the parameters of a call.
type args []any

// method is one call.
type method struct {
	call    func(r rpc, a args) result
	min     int      // parameters that must be given
	help    string   // what it does
	returns string   // type
	params  []string // "type name"; those beyond min may be left out
}

// signature is the type of the result and those of the parameters.
func (m method) signature() []any {
	list := []any{m.returns}
	for _, p := range m.params {
		kind, _, _ := strings.Cut(p, " ")
		list = append(list, kind)
	}
	return list
}

// text is the help of a method, with its parameters.
func (m method) text() string {
	var b strings.Builder
	b.WriteString(" " + m.help + "\n\n")
	for _, p := range m.params {
		b.WriteString("        @param " + p + "\n")
	}
	b.WriteString("        @return " + m.returns + " result\n")
	return b.String()
}

// call makes a call by name.
func (r rpc) call(name string, a args) result {
	m, ok := r.d.methods[name]
	if !ok {
		return fail(unknownMethod, "")
	}
	if len(a) < m.min || len(a) > len(m.params) {
		return fail(incorrectParameters, "")
	}
	if r.d.mood < MoodRunning && strings.HasPrefix(name, "supervisor.") && name != "supervisor.sendRemoteCommEvent" {
		return fail(shutdownState, "")
	}
	return m.call(r, a)
}

// methods is everything there is, aliases included.
func methods() map[string]method {
	m := map[string]method{}
	for _, part := range []map[string]method{infoMethods(), processMethods(), groupMethods(), logMethods(), systemMethods()} {
		maps.Copy(m, part)
	}
	for alias, name := range map[string]string{
		"getVersion":      "getAPIVersion",
		"readMainLog":     "readLog",
		"readProcessLog":  "readProcessStdoutLog",
		"tailProcessLog":  "tailProcessStdoutLog",
		"clearProcessLog": "clearProcessLogs",
	} {
		m["supervisor."+alias] = m["supervisor."+name]
	}
	return m
}

// text is parameter i as a string.
func (a args) text(i int) (string, bool) {
	s, ok := a[i].(string)
	return s, ok
}

// flag is parameter i as a boolean, def if it was left out. Anything counts as true that is not empty, as in Python.
func (a args) flag(i int, def bool) bool {
	if i >= len(a) {
		return def
	}
	switch v := a[i].(type) {
	case bool:
		return v
	case int:
		return v != 0
	case string:
		return v != ""
	default:
		return v != nil
	}
}

// number is parameter i as an integer; a string of digits is one too.
func (a args) number(i int) (int64, bool) {
	switch v := a[i].(type) {
	case int:
		return int64(v), true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case float64:
		return int64(v), v > math.MinInt64 && v < math.MaxInt64
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	default:
		return 0, false
	}
}

// namespec names a process as clients do: by itself when its group has the same name, else as group:process.
func namespec(group, process string) string {
	if group == process {
		return process
	}
	return group + ":" + process
}

// splitNamespec is the group and the process that a name means; all says that it means the whole group.
func splitNamespec(name string) (group, process string, all bool) {
	group, process, found := strings.Cut(name, ":")
	if !found {
		return name, name, false
	}
	return group, process, process == "" || process == "*"
}

// find is the group and process that a name means; process is nil when it means the whole group.
func (r rpc) find(name string) (*group, *process, *xmlrpc.Fault) {
	groupName, processName, all := splitNamespec(name)
	g := r.d.group(groupName)
	if g == nil {
		return nil, nil, newFault(badName, name)
	}
	if all {
		return g, nil, nil
	}
	p := g.process(processName)
	if p == nil {
		return nil, nil, newFault(badName, name)
	}
	return g, p, nil
}

// one is the process that parameter i names, which must not be a group.
func (r rpc) one(a args, i int) (string, *process, *xmlrpc.Fault) {
	name, ok := a.text(i)
	if !ok {
		return "", nil, newFault(incorrectParameters, "")
	}
	_, p, fault := r.find(name)
	if fault == nil && p == nil {
		fault = newFault(badName, name)
	}
	return name, p, fault
}

// capped is a number as an XML-RPC int, which has 32 bits.
func capped(n int64) int { return int(min(max(n, math.MinInt32), math.MaxInt32)) }
