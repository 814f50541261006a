package manifest

import (
	"fmt"
	"strconv"
)

// scaling checks how many instances a service has and how they are replaced.
func (c *checker) scaling(s *Service) {
	if a := s.Autoscale; a != nil {
		c.autoscale(s, a)
	}
	surge := c.node("services", s.Name, "rolling", "surge")
	if surge != nil && s.Rolling.Surge > 0 && s.Builtin == "sink" {
		c.add(surge.at, "surging-sink", fmt.Sprintf("sink service %q cannot have two processes: one reader keeps the order of the events", s.Name), "remove surge")
	}
	if surge != nil && s.Rolling.Surge > 0 && s.Hooks != (Hooks{}) {
		c.add(surge.at, "bad-rolling", fmt.Sprintf("service %q has hooks, which come between the end of one process and the start of the next; with surge there is no between", s.Name), "remove surge, or the hooks")
	}
	if away := c.node("services", s.Name, "rolling", "max_unavailable"); away != nil && surge != nil && s.Rolling.Surge > 0 {
		c.add(away.at, "bad-rolling", fmt.Sprintf("service %q has both surge and max_unavailable: with surge no instance is away", s.Name), "keep one of the two, or set surge: 0")
	}
}

func (c *checker) autoscale(s *Service, a *Autoscale) {
	at := c.value("services", s.Name, "scale")
	written := c.node("services", s.Name, "scale")
	switch {
	case written.get("max") == nil:
		c.add(at, "bad-scale", fmt.Sprintf("scale of service %q has no max", s.Name), "add max: N")
	case a.Max > 0 && a.Min > a.Max:
		c.add(at, "bad-scale", fmt.Sprintf("service %q is to have at least %d instances and at most %d", s.Name, a.Min, a.Max), "raise max, or lower min")
	}
	if s.Builtin == "sink" {
		c.add(at, "scaled-sink", fmt.Sprintf("sink service %q cannot be scaled: one reader keeps the order of the events", s.Name), "remove scale; write to more targets with more sinks")
	}
	needs := map[string]struct {
		missing bool
		key     string
	}{
		OnLag:      {len(s.Consumes) == 0 && !c.undecoded(s, "consumes", 0), "consumes"},
		OnTaskAge:  {len(s.Handles) == 0 && !c.undecoded(s, "handles", 0), "handles"},
		OnRequests: {len(s.Listen) == 0 && !c.undecoded(s, "listen", 0), "listen"},
	}[a.On]
	switch {
	case written.get("on") == nil:
		c.add(at, "bad-scale", fmt.Sprintf("scale of service %q does not say what it follows", s.Name), "add on: lag, task_age, cpu or requests")
	case needs.missing:
		c.add(c.value("services", s.Name, "scale", "on"), "bad-scale", fmt.Sprintf("service %q is scaled on %s but has no %s", s.Name, a.On, needs.key), "add "+needs.key+", or scale on cpu")
	}
	if n := written.get("target"); n != nil && n.scalar() {
		_, err := strconv.ParseFloat(n.text, 64)
		if number := err == nil; number == (a.On == OnTaskAge) {
			want := map[bool]string{true: "a duration like 10s", false: "a number"}[a.On == OnTaskAge]
			c.add(n.at, "bad-target", fmt.Sprintf("the target of %s of service %q must be %s", a.On, s.Name, want), "write "+want)
		}
	}
}
