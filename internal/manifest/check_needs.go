package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// needs checks that what a service waits for is there and can come to pass.
func (c *checker) needs() {
	byName := make(map[string]*Service, len(c.m.Services))
	names := make([]string, 0, len(c.m.Services))
	for i := range c.m.Services {
		s := &c.m.Services[i]
		byName[s.Name] = s
		names = append(names, s.Name)
	}
	for _, s := range c.m.Services {
		for _, need := range s.Needs {
			at := c.item(need.Service, "services", s.Name, "needs")
			other, ok := byName[need.Service]
			switch {
			case !ok:
				c.add(at, "unknown-service", fmt.Sprintf("service %q needs %q, which is not declared", s.Name, need.Service), orKnown(need.Service, names, "it under services"))
			case need.Condition == "completed" && other.Restart.Policy == "always":
				c.add(at, "never-completes", fmt.Sprintf("service %q waits for %q to complete, but that is restarted always", s.Name, need.Service),
					fmt.Sprintf("set restart: on-failure or never for %s", need.Service))
			}
		}
	}
	c.cycles(byName)
}

// cycles reports each ring of needs once, at the need that closes it.
func (c *checker) cycles(byName map[string]*Service) {
	done := map[string]bool{}
	var path []string
	var walk func(s *Service)
	walk = func(s *Service) {
		path = append(path, s.Name)
		for _, need := range s.Needs {
			next, ok := byName[need.Service]
			if start := slices.Index(path, need.Service); start >= 0 {
				ring := append(slices.Clone(path[start:]), need.Service)
				c.add(c.item(need.Service, "services", s.Name, "needs"), "cycle", "services need each other: "+showRing(ring), "remove one of the needs")
			} else if ok && !done[need.Service] {
				walk(next)
			}
		}
		path = path[:len(path)-1]
		done[s.Name] = true
	}
	for i := range c.m.Services {
		if s := &c.m.Services[i]; !done[s.Name] {
			walk(s)
		}
	}
}

// showRing writes a ring of services, its middle cut when it is very long.
func showRing(ring []string) string {
	const most = 12
	if len(ring) > most {
		ring = append(append(slices.Clone(ring[:most-2]), "…"), ring[len(ring)-1])
	}
	return strings.Join(ring, " -> ")
}
