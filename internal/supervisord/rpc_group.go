//go:build linux

package supervisord

import (
	"maps"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

func groupMethods() map[string]method {
	return map[string]method{
		"supervisor.reloadConfig": {
			call: rpc.reloadConfig, returns: "array",
			help: "Read the configuration again and tell which groups were added, changed and removed; nothing is applied.",
		},
		"supervisor.addProcessGroup": {
			call: rpc.addProcessGroup, min: 1, returns: "boolean", params: []string{"string name"},
			help: "Bring in a group of the configuration as it was read last.",
		},
		"supervisor.removeProcessGroup": {
			call: rpc.removeProcessGroup, min: 1, returns: "boolean", params: []string{"string name"},
			help: "Take out a group of which nothing runs.",
		},
	}
}

func (r rpc) reloadConfig(args) result {
	c, err := r.d.cfg.Load()
	if err != nil {
		return fail(cantReread, err.Error())
	}
	r.d.known = c.Groups
	maps.DeleteFunc(r.d.autoLogs, func(c *conf.Group, _ autoLogs) bool {
		g := r.d.group(c.Name)
		return g == nil || g.conf != c // nobody can bring it in again
	})
	added, changed, removed := []any{}, []any{}, []any{}
	for i := range c.Groups {
		g := r.d.group(c.Groups[i].Name)
		switch {
		case g == nil:
			added = append(added, c.Groups[i].Name)
		case !sameGroup(g.conf, &c.Groups[i]):
			changed = append(changed, c.Groups[i].Name)
		}
	}
	for _, g := range r.d.groups {
		if c.Group(g.conf.Name) == nil {
			removed = append(removed, g.conf.Name)
		}
	}
	return value([]any{[]any{added, changed, removed}})
}

func (r rpc) addProcessGroup(a args) result {
	name, ok := a.text(0)
	if !ok {
		return fail(incorrectParameters, "")
	}
	for i := range r.d.known {
		c := &r.d.known[i]
		if c.Name != name {
			continue
		}
		if r.d.group(name) != nil {
			return fail(alreadyAdded, name)
		}
		if err := r.d.addGroup(c); err != nil {
			r.d.log.error("group %s not added: %v", name, err)
			return fail(failed, err.Error())
		}
		return value(true)
	}
	return fail(badName, name)
}

func (r rpc) removeProcessGroup(a args) result {
	name, ok := a.text(0)
	if !ok {
		return fail(incorrectParameters, "")
	}
	g := r.d.group(name)
	if g == nil {
		return fail(badName, name)
	}
	if !r.d.removeGroup(g) {
		return fail(stillRunning, name)
	}
	return value(true)
}
