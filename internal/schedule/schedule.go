// Package schedule says when something is due: it reads cron expressions and computes the moments, called ticks, that
// they name in a time zone. It is pure: it knows no clock and starts nothing.
//
// A tick depends on nothing but the schedule, so two processes that never met name the same ticks. What happens where a
// zone changes its clocks:
//
//   - A time of day that is left out is due at the moment of the change, once, however many of them are left out.
//   - A time of day that exists twice is due the first time only.
//   - An expression that is due in every hour means an interval, not times of day: it is due whenever the clock on the
//     wall shows a minute of it, in both passes of a repeated hour, and not for an hour that is left out.
package schedule

import (
	"fmt"
	"hash/fnv"
	"time"
	_ "time/tzdata" // a container has no zones of its own
)

// Schedule is a row of ticks. The zero Schedule has none. It is safe for concurrent use.
type Schedule struct {
	cron   *fields
	every  time.Duration
	zone   *time.Location
	jitter time.Duration
	seed   string
}

// MinEvery is the shortest interval of a schedule: what must run more often is a service with a loop.
const MinEvery = time.Second

// Cron returns the schedule of an expression in a zone; a nil zone is UTC. Its errors are *SyntaxError.
func Cron(expression string, zone *time.Location) (Schedule, error) {
	f, err := parse(expression)
	if err != nil {
		return Schedule{}, err
	}
	if zone == nil {
		zone = time.UTC
	}
	s := Schedule{cron: &f, zone: zone}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, &SyntaxError{0, "names a day that no year has"}
	}
	return s, nil
}

// Every returns the schedule of a fixed interval, of at least MinEvery. Its ticks are the whole multiples of the interval
// since 1 January 1970 UTC, so they are the same whenever and wherever it is asked.
func Every(interval time.Duration) (Schedule, error) {
	if interval < MinEvery {
		return Schedule{}, fmt.Errorf("an interval is at least %s", MinEvery)
	}
	return Schedule{every: interval, zone: time.UTC}, nil
}

// WithJitter returns a copy that is late by less than jitter, by a different share at each tick. The share is made of
// seed and the tick, so it is the same whenever it is asked, and differs between seeds.
func (s Schedule) WithJitter(jitter time.Duration, seed string) Schedule {
	s.jitter, s.seed = jitter, seed
	return s
}

// Next returns the first tick after a moment, or the zero time when there is none within a hundred years. Ticks are in the
// schedule's zone and hold no monotonic reading.
func (s Schedule) Next(after time.Time) time.Time {
	switch {
	case s.cron != nil:
		return s.cron.next(after.In(s.zone).Round(0))
	case s.every > 0:
		// Not Truncate, which counts from the year 1.
		step, nanos := int64(s.every), after.UnixNano()
		past := nanos % step
		if past < 0 {
			past += step
		}
		return time.Unix(0, nanos-past+step).In(s.zone)
	default:
		return time.Time{}
	}
}

// Last returns the last tick in (after, until], or the zero time when there is none. However long the span,
// it looks at little more than the last ticks of it.
func (s Schedule) Last(after, until time.Time) time.Time {
	var last time.Time
	// The span grows from its end: of a long absence only the newest tick counts.
	for span := time.Minute; ; span *= 4 {
		from := until.Add(-span)
		if from.Before(after) {
			from = after
		}
		for t := s.Next(from); !t.IsZero() && !t.After(until); t = s.Next(t) {
			last = t
		}
		if !last.IsZero() || !from.After(after) {
			return last
		}
	}
}

// Due returns when the work of a tick is to begin: the tick and its share of the jitter.
func (s Schedule) Due(tick time.Time) time.Time {
	if s.jitter <= 0 || tick.IsZero() {
		return tick
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s@%d", s.seed, tick.UnixNano()) // never fails; see hash.Hash
	// FNV's low bits of texts that differ at their end are close; the multiplication spreads them.
	share := float64(h.Sum64()*0x9E3779B97F4A7C15>>11) / (1 << 53)
	return tick.Add(time.Duration(share * float64(s.jitter)))
}
