package plan

import "slices"

// Dependents maps each service to the services that need it, each list without repeats and in the order of specs. It
// has no cycle, even when the needs do: an edge that would close one is left out, so that a walk always ends.
func Dependents(specs []Spec) map[string][]string {
	needs := make(map[string][]string)
	var services []string
	for _, s := range specs {
		if !slices.Contains(services, s.Service) {
			services = append(services, s.Service)
		}
		for _, n := range s.Needs {
			if n.Service != s.Service && !slices.Contains(needs[s.Service], n.Service) {
				needs[s.Service] = append(needs[s.Service], n.Service)
			}
		}
	}
	const visiting, visited = 1, 2
	mark := make(map[string]int)
	dependents := make(map[string][]string)
	var visit func(string)
	visit = func(service string) {
		mark[service] = visiting
		for _, n := range needs[service] {
			if mark[n] == visiting {
				continue
			}
			if mark[n] != visited {
				visit(n)
			}
			dependents[n] = append(dependents[n], service)
		}
		mark[service] = visited
	}
	for _, s := range services {
		if mark[s] == 0 {
			visit(s)
		}
	}
	for _, list := range dependents {
		slices.SortFunc(list, func(a, b string) int { return slices.Index(services, a) - slices.Index(services, b) })
	}
	return dependents
}
