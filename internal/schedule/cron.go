package schedule

import "time"

// fields is a parsed expression: bit n of a set says that the value n is due.
type fields struct {
	second, minute, hour, day, month, weekday uint64

	// anyDay and anyWeekday say that the field begins with *. When neither does, a day is due if either field says so;
	// otherwise if both do. That is what cron has always done.
	anyDay, anyWeekday bool
}

const everyHour = 1<<24 - 1

// interval says whether the expression is due in every hour, so that it means an interval and not times of day.
func (f fields) interval() bool { return f.hour&everyHour == everyHour }

// horizon is how far ahead a tick is looked for, in years: 29 February on a Monday may be 40 years off.
const horizon = 100

// next returns the first tick after t, in t's zone. It goes from one change of clocks to the next: between two of them
// the clock on the wall runs as evenly as UTC.
func (f fields) next(t time.Time) time.Time {
	at, end := t.Truncate(time.Second).Add(time.Second), t.AddDate(horizon, 0, 0)
	for at.Before(end) {
		begin, change := at.ZoneBounds()
		if !change.IsZero() && !change.After(at) {
			// Of the last day of a leap year after 2037 ZoneBounds says that its period has ended. No zone changes then.
			change = at.Add(time.Hour)
		}
		if change.IsZero() || change.After(end) {
			change = end
		}
		_, offset := at.Zone()
		from := wall(at, offset)
		if repeated := f.repeated(begin, offset); from.Before(repeated) {
			from = repeated
		}
		if found := f.nextWall(from, wall(change, offset)); !found.IsZero() {
			return wall(found, -offset).In(t.Location())
		}
		if f.leftOut(change, offset) {
			return change
		}
		at = change
	}
	return time.Time{}
}

// wall is the clock on the wall at t as if it were UTC, so that arithmetic on it knows nothing of zones.
func wall(t time.Time, offset int) time.Time { return t.UTC().Add(time.Duration(offset) * time.Second) }

// repeated returns the clock on the wall up to which a period that starts at begin shows again what has been shown; the
// zero time when it shows nothing again, or when that counts.
func (f fields) repeated(begin time.Time, offset int) time.Time {
	if begin.IsZero() || f.interval() {
		return time.Time{}
	}
	if _, before := begin.Add(-1).Zone(); before > offset {
		return wall(begin, before)
	}
	return time.Time{}
}

// leftOut says whether a time of day is due that the change of clocks leaves out.
func (f fields) leftOut(change time.Time, offset int) bool {
	if f.interval() {
		return false
	}
	_, after := change.Zone()
	return after > offset && !f.nextWall(wall(change, offset), wall(change, after)).IsZero()
}

// nextWall returns the first moment due in [from, stop) on a clock that never changes, or the zero time.
func (f fields) nextWall(from, stop time.Time) time.Time {
	for t := from; t.Before(stop); {
		year, month, day := t.Date()
		hour, minute, second := t.Clock()
		switch {
		case !has(f.month, int(month)):
			t = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
		case !f.onDay(t):
			t = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
		case !has(f.hour, hour):
			t = time.Date(year, month, day, hour+1, 0, 0, 0, time.UTC)
		case !has(f.minute, minute):
			t = time.Date(year, month, day, hour, minute+1, 0, 0, time.UTC)
		case !has(f.second, second):
			t = t.Add(time.Second)
		default:
			return t
		}
	}
	return time.Time{}
}

func (f fields) onDay(t time.Time) bool {
	day, weekday := has(f.day, t.Day()), has(f.weekday, int(t.Weekday()))
	if f.anyDay || f.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

func has(set uint64, n int) bool { return set&(1<<n) != 0 }
