package manifest

import (
	"fmt"
	"strconv"
	"time"
)

// mostInstances bounds the instances of one service.
const mostInstances = 256

// scaleKey is a number of instances, or the bounds within which the platform chooses it.
func scaleKey() key[Service] {
	fixed, auto := whole(1, mostInstances), object(autoscaleKeys(), schema{"required": []any{"max", "on"}})
	return key[Service]{
		"scale", "Instances: a number (default 1), or a map with min, max and what automatic scaling looks at.",
		schema{"anyOf": []any{fixed.schema, auto.schema}},
		func(d *decoder, n *node, path string, into *Service) {
			if n.kind != kindMap {
				fixed.read(d, n, path, &into.Scale)
				return
			}
			a := newAutoscale()
			auto.read(d, n, path, &a)
			into.Autoscale, into.Scale = &a, a.Min
		},
	}
}

func autoscaleKeys() []key[Autoscale] {
	return []key[Autoscale]{
		field("min", "Fewest instances. Default 1.", whole(1, mostInstances), func(a *Autoscale) *int { return &a.Min }),
		field("max", "Most instances.", whole(1, mostInstances), func(a *Autoscale) *int { return &a.Max }),
		field("on", "What the number follows: lag (messages of its streams that are not done), task_age (of the oldest task that is not done), cpu (cores used) or requests (in flight).",
			oneOf(OnLag, OnTaskAge, OnCPU, OnRequests), func(a *Autoscale) *string { return &a.On }),
		field("target", "What one instance may have of it: messages (default 64), cores (0.7) or requests (64); for task_age, how old a task may get (10s).", target(), func(a *Autoscale) *float64 { return &a.Target }),
		field("grow_after", "How long it must be above the target before instances are added. Default 3s.", span(0, time.Hour), func(a *Autoscale) *time.Duration { return &a.GrowAfter }),
		field("shrink_after", "How long it must be below the target before instances are taken away. Default 1m.", span(time.Second, day), func(a *Autoscale) *time.Duration { return &a.ShrinkAfter }),
	}
}

// target is a number, or a duration as seconds.
func target() shape[float64] {
	return scalar(
		schema{"anyOf": []any{
			schema{"type": "number", "exclusiveMinimum": 0},
			schema{"type": "string", "pattern": `^\s*([0-9]+d)?([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h)?)*\s*$`},
		}},
		"bad-target", "a number above 0, or a duration like 10s",
		func(s string) (float64, error) {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				var d time.Duration
				d, err = parseDuration(s)
				v = d.Seconds()
			}
			if err != nil || !(v > 0 && v < 1e12) {
				return 0, fmt.Errorf("%q is neither a number above 0 nor a duration", short(s))
			}
			return v, nil
		})
}

func rollingKeys() []key[Rolling] {
	return []key[Rolling]{
		field("surge", "How many new processes may run beside the old ones, which end when the new ones can work; a new one that does not get there is given up. Default 1 for services that listen and have no hooks, else 0.",
			whole(0, mostInstances), func(r *Rolling) *int { return &r.Surge }),
		field("max_unavailable", "Without surge, how many instances may be away at once. Default 1.", whole(1, mostInstances), func(r *Rolling) *int { return &r.MaxUnavailable }),
		field("timeout", "In which a new process must get ready beside the old one. Default: health.grace, or 30s.", span(10*time.Millisecond, day), func(r *Rolling) *time.Duration { return &r.Timeout }),
	}
}
