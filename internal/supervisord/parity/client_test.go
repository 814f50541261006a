package parity

import (
	"slices"
	"strings"
)

// ctl runs supervisorctl and notes what it says and its exit status.
func (s *side) ctl(args ...string) {
	s.t.Helper()
	a := s.driver.ask(s.t, map[string]any{"ask": "ctl", "args": append([]string{"-c", s.path("supervisord.conf")}, args...)})
	output, _ := a["output"].(string)
	s.note("$ supervisorctl %s\n%s=> %v", strings.Join(args, " "), sameOrder(output), a["code"])
}

// call makes a call of XML-RPC and notes its answer.
func (s *side) call(method string, params ...any) {
	s.t.Helper()
	answer := s.quiet(method, params...)
	if list, ok := answer["result"].([]any); ok && strings.HasSuffix(method, "Processes") {
		// What became of each, in the order in which they got there.
		slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(compact(a), compact(b)) })
	}
	s.note("%s%s -> %s", method, compact(params), compact(answer))
}

// quiet makes a call without noting it.
func (s *side) quiet(method string, params ...any) map[string]any {
	s.t.Helper()
	if params == nil {
		params = []any{}
	}
	return s.driver.ask(s.t, map[string]any{"ask": "rpc", "url": s.url(), "method": method, "params": params})
}

// until waits until a process is in a state, or one of several.
func (s *side) until(name string, states ...string) {
	s.t.Helper()
	last := ""
	s.eventually(func() bool {
		info, ok := s.quiet("supervisor.getProcessInfo", name)["result"].(map[string]any)
		if !ok {
			return false
		}
		last, _ = info["statename"].(string)
		return slices.Contains(states, last)
	}, name+" is "+strings.Join(states, " or ")+" ("+s.dir+")")
}

// untilFile waits until a file holds a text.
func (s *side) untilFile(name, text string) {
	s.t.Helper()
	s.eventually(func() bool { return strings.Contains(s.read(name), text) }, name+" holds "+text+" in "+s.dir)
}

// raw sends bytes to the server and returns what came back, up to a text that ends it or to the end.
func (s *side) raw(text, wait string) string {
	s.t.Helper()
	a := s.driver.ask(s.t, map[string]any{"ask": "raw", "path": s.path("s.sock"), "text": text, "wait": wait})
	out, _ := a["output"].(string)
	return out
}

func (s *side) untilExists(name string) {
	s.t.Helper()
	s.eventually(func() bool { return s.exists(name) }, name+" exists in "+s.dir)
}
