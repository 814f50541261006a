package plan_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/plan"
)

func TestDependents(t *testing.T) {
	t.Parallel()
	needs := func(service string, on ...string) plan.Spec {
		s := plan.Spec{Name: service + ".1", Service: service}
		for _, n := range on {
			s.Needs = append(s.Needs, plan.Need{Service: n})
		}
		return s
	}
	for name, test := range map[string]struct {
		specs []plan.Spec
		want  map[string][]string
	}{
		"none":    {[]plan.Spec{needs("a")}, map[string][]string{}},
		"diamond": {[]plan.Spec{needs("sink", "l", "r"), needs("l", "src"), needs("r", "src"), needs("src")}, map[string][]string{"src": {"l", "r"}, "l": {"sink"}, "r": {"sink"}}},
		"repeats": {[]plan.Spec{needs("a", "b", "b"), needs("a", "b"), needs("b")}, map[string][]string{"b": {"a"}}},
		"itself":  {[]plan.Spec{needs("a", "a")}, map[string][]string{}},
		"cycle":   {[]plan.Spec{needs("a", "b"), needs("b", "c"), needs("c", "a")}, map[string][]string{"c": {"b"}, "b": {"a"}}},
		"unknown": {[]plan.Spec{needs("a", "broker")}, map[string][]string{"broker": {"a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, plan.Dependents(test.specs)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
