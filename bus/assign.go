package bus

import (
	"cmp"
	"slices"
)

// assign shares n partitions out among live members and returns the member of each. owners are the members that have
// them now, "" or one that is not live meaning nobody. It is a function of its arguments alone, so that all members come
// to the same plan; nobody has more than one partition above anybody else, and as few as possible change hands.
func assign(owners, live []string) []string {
	plan := make([]string, len(owners))
	if len(live) == 0 {
		return plan
	}
	has := make(map[string]int, len(live))
	for _, m := range live {
		has[m] = 0
	}
	for _, owner := range owners {
		if _, ok := has[owner]; ok {
			has[owner]++
		}
	}
	// Those with the most now get the odd ones, so that they need to give up the least.
	members := slices.Compact(slices.Sorted(slices.Values(live)))
	slices.SortStableFunc(members, func(a, b string) int { return cmp.Compare(has[b], has[a]) })
	quota := make(map[string]int, len(members))
	for i, m := range members {
		quota[m] = len(owners) / len(members)
		if i < len(owners)%len(members) {
			quota[m]++
		}
	}
	for p, owner := range owners {
		if quota[owner] > 0 {
			plan[p] = owner
			quota[owner]--
		}
	}
	next := 0
	for p := range plan {
		if plan[p] != "" {
			continue
		}
		for quota[members[next]] == 0 {
			next++ // the quotas add up to the number of partitions
		}
		plan[p] = members[next]
		quota[members[next]]--
	}
	return plan
}
