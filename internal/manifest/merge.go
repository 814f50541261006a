package manifest

import (
	"slices"
	"strings"
)

// lift turns the short form of a key into the map that it stands for: `restart: never` into `restart: {policy: never}`.
func lift(key string, n *node) *node {
	value := n
	switch key {
	case "health", "liveness":
		key = "http"
		if n.text == "notify" {
			key, value = "notify", &node{kind: kindBool, text: "true", at: n.at, inline: -1, size: 1}
		}
	case "restart":
		key = "policy"
	case "stop":
		key = "grace"
	case "schedule":
		key = "cron"
	}
	return &node{kind: kindMap, at: n.at, inline: -1, size: 2, entries: []entry{{key, n.at, value}}}
}

// hasShortForm lists the keys that lift knows.
func hasShortForm(key string) bool {
	return key == "health" || key == "liveness" || key == "restart" || key == "stop" || key == "schedule"
}

// merge lays an environment's map over the base's, key by key; base and over stay as they are. A value that is not a map
// replaces the base's, a list as well; a key without a value removes it. path holds the keys down to here.
func merge(base, over *node, path []string) *node {
	out := *base
	out.entries = slices.DeleteFunc(slices.Clone(base.entries), func(e entry) bool { return replaced(path, e.name, over) })
	for _, e := range over.entries {
		at := slices.IndexFunc(out.entries, func(b entry) bool { return b.name == e.name })
		switch {
		case e.value.kind == kindNull:
			if at >= 0 {
				out.entries = slices.Delete(out.entries, at, at+1)
			}
		case at < 0 && len(path) == 1 && (path[0] == "services" || path[0] == "streams"):
			// An environment adds nothing; overlaysFit has said so.
		case at < 0:
			out.entries = append(out.entries, entry{e.name, e.at, withoutNulls(e.value)})
		default:
			value := mergeValue(out.entries[at].value, e, append(slices.Clone(path), e.name))
			out.entries[at] = entry{e.name, e.at, value}
		}
	}
	return &out
}

func mergeValue(base *node, over entry, path []string) *node {
	value := over.value
	if len(path) == 3 && path[0] == "services" && hasShortForm(over.name) {
		// Both in the long form, or `restart: {delay: 1s}` over `restart: never` would forget the policy.
		if base.scalar() {
			base = lift(over.name, base)
		}
		if value.scalar() {
			value = lift(over.name, value)
		}
	}
	if base.kind == kindMap && value.kind == kindMap {
		return merge(base, value, path)
	}
	return withoutNulls(value)
}

// withoutNulls drops the removals of a map that has nothing under it to remove from.
func withoutNulls(n *node) *node {
	if n.kind != kindMap {
		return n
	}
	out := *n
	out.entries = nil
	for _, e := range n.entries {
		if e.value.kind != kindNull {
			out.entries = append(out.entries, entry{e.name, e.at, withoutNulls(e.value)})
		}
	}
	return &out
}

// replaced reports whether the base's key name gives way because over sets another of which only one may be set.
func replaced(path []string, name string, over *node) bool {
	if len(path) < 2 || path[0] != "services" && path[0] != "cron" {
		return false
	}
	all := sides(strings.Join(path[2:], "."))
	if path[0] == "cron" {
		all = [][]string{{"at", "zone"}, {"every"}}
	}
	has := func(side []string) bool { return slices.Contains(side, name) }
	return slices.ContainsFunc(all, has) && slices.ContainsFunc(all, func(side []string) bool {
		return !has(side) && slices.ContainsFunc(side, func(other string) bool {
			v := over.get(other)
			return v != nil && v.kind != kindNull
		})
	})
}

// sides returns, for a map of a service, the sets of keys of which only one set may be used.
func sides(under string) [][]string {
	switch under {
	case "":
		return [][]string{{"run", "build"}, {"builtin"}}
	case "health", "liveness":
		return [][]string{{"http"}, {"tcp"}, {"exec"}, {"grpc"}, {"log"}, {"notify"}}
	case "schedule":
		return [][]string{{"cron", "zone"}, {"every"}}
	case "to":
		return [][]string{{"sqlite", "table", "columns"}, {"file", "rotate"}}
	}
	return nil
}
