package schedule_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func zone(t interface{ Fatal(...any) }, name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func cron(t interface{ Fatalf(string, ...any) }, expression string, z *time.Location) schedule.Schedule {
	s, err := schedule.Cron(expression, z)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return s
}

// ticks returns those in (from, to), as they stand on the wall.
func ticks(s schedule.Schedule, from, to time.Time) []string {
	var all []string
	for t := s.Next(from); !t.IsZero() && t.Before(to) && len(all) < 100; t = s.Next(t) {
		all = append(all, t.Format("02 15:04:05 -0700"))
	}
	return all
}

func TestTicksWhereClocksChange(t *testing.T) {
	t.Parallel()
	const berlin, newYork, lordHowe, apia, havana = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"
	for _, c := range []struct {
		name, zone, cron, from, to string
		want                       []string
	}{
		{
			"spring: a time that is left out is due at the change", berlin, "30 2 * * *", "2026-03-28T12:00", "2026-03-30T12:00",
			[]string{"29 03:00:00 +0200", "30 02:30:00 +0200"},
		},
		{
			"spring: several that are left out are due once", berlin, "0,15,30 2 * * *", "2026-03-28T12:00", "2026-03-29T12:00",
			[]string{"29 03:00:00 +0200"},
		},
		{
			"spring: one left out and one at the change are due once", berlin, "0 2,3 * * *", "2026-03-28T12:00", "2026-03-29T12:00",
			[]string{"29 03:00:00 +0200"},
		},
		{
			"spring: times beside the gap stay", berlin, "59 1,3 * * *", "2026-03-28T12:00", "2026-03-29T12:00",
			[]string{"29 01:59:00 +0100", "29 03:59:00 +0200"},
		},
		{
			"spring: midnight that is left out", havana, "0 0 * * *", "2026-03-07T12:00", "2026-03-09T12:00",
			[]string{"08 01:00:00 -0400", "09 00:00:00 -0400"},
		},
		{
			"spring: a quarter of an hour stays one", berlin, "*/15 * * * *", "2026-03-29T01:40", "2026-03-29T03:20",
			[]string{"29 01:45:00 +0100", "29 03:00:00 +0200", "29 03:15:00 +0200"},
		},
		{
			"spring: an hour stays one", berlin, "20 * * * *", "2026-03-29T00:30", "2026-03-29T05:00",
			[]string{"29 01:20:00 +0100", "29 03:20:00 +0200", "29 04:20:00 +0200"},
		},
		{
			"autumn: a time that is there twice is due the first time", berlin, "30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00",
			[]string{"25 02:30:00 +0200", "26 02:30:00 +0100"},
		},
		{
			"autumn: so is the first of them", berlin, "0 2 * * *", "2026-10-24T12:00", "2026-10-25T12:00",
			[]string{"25 02:00:00 +0200"},
		},
		{
			"autumn: the time after is due", berlin, "0 2,3 * * *", "2026-10-24T12:00", "2026-10-25T12:00",
			[]string{"25 02:00:00 +0200", "25 03:00:00 +0100"},
		},
		{
			"autumn: New York", newYork, "30 1 * * *", "2026-10-31T12:00", "2026-11-02T12:00",
			[]string{"01 01:30:00 -0400", "02 01:30:00 -0500"},
		},
		{
			"autumn: a quarter of an hour stays one", berlin, "*/30 * * * *", "2026-10-25T01:40", "2026-10-25T03:10",
			[]string{"25 02:00:00 +0200", "25 02:30:00 +0200", "25 02:00:00 +0100", "25 02:30:00 +0100", "25 03:00:00 +0100"},
		},
		{
			"autumn: an hour stays one", berlin, "@hourly", "2026-10-25T01:10", "2026-10-25T03:10",
			[]string{"25 02:00:00 +0200", "25 02:00:00 +0100", "25 03:00:00 +0100"},
		},
		{
			"half an hour forward", lordHowe, "15 2 * * *", "2026-10-03T12:00", "2026-10-05T12:00",
			[]string{"04 02:30:00 +1100", "05 02:15:00 +1100"},
		},
		{
			"half an hour back", lordHowe, "45 1 * * *", "2026-04-04T12:00", "2026-04-06T12:00",
			[]string{"05 01:45:00 +1100", "06 01:45:00 +1030"},
		},
		{
			"half an hour back, what follows it", lordHowe, "15,45 1,2 * * *", "2026-04-05T00:00", "2026-04-05T12:00",
			[]string{"05 01:15:00 +1100", "05 01:45:00 +1100", "05 02:15:00 +1030", "05 02:45:00 +1030"},
		},
		{
			"half an hour back, ten minutes stay", lordHowe, "*/20 * * * *", "2026-04-05T01:25", "2026-04-05T02:01",
			[]string{"05 01:40:00 +1100", "05 01:40:00 +1030", "05 02:00:00 +1030"},
		},
		{
			"a whole day is left out", apia, "0 12 * * *", "2011-12-29T00:00", "2012-01-01T00:00",
			[]string{"29 12:00:00 -1000", "31 00:00:00 +1400", "31 12:00:00 +1400"},
		},
		{
			"UTC never changes", "UTC", "30 2 * * *", "2026-03-29T00:00", "2026-03-30T12:00",
			[]string{"29 02:30:00 +0000", "30 02:30:00 +0000"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			z := zone(t, c.zone)
			from, err1 := time.ParseInLocation("2006-01-02T15:04", c.from, z)
			to, err2 := time.ParseInLocation("2006-01-02T15:04", c.to, z)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if got := ticks(cron(t, c.cron, z), from, to); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%s:\ngot  %v\nwant %v", c.cron, got, c.want)
			}
		})
	}
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 2, 27, 23, 59, 30, 5, time.UTC) // a Friday
	for expression, want := range map[string]string{
		"*/5 * * * *": "2026-02-28 00:00:00", "30 * * * * *": "2026-02-28 00:00:30", "*/10 * * * * *": "2026-02-27 23:59:40",
		"0 9 * * mon-fri": "2026-03-02 09:00:00", "0 9 * * 7": "2026-03-01 09:00:00", "0 0 29 2 *": "2028-02-29 00:00:00",
		"0 0 1 JAN *": "2027-01-01 00:00:00", "0 12 1 * mon": "2026-03-01 12:00:00", "0 12 2-31 * sun": "2026-02-28 12:00:00",
		"0 12 */2 * mon": "2026-03-09 12:00:00", "5/20 * * * *": "2026-02-28 00:05:00", "0 0 ? * sat-sun": "2026-02-28 00:00:00",
		"@yearly": "2027-01-01 00:00:00", "@weekly": "2026-03-01 00:00:00", "@monthly": "2026-03-01 00:00:00", "@Daily": "2026-02-28 00:00:00",
		"0 0 31 12 *": "2026-12-31 00:00:00", "1,2,50-59/3 0 * * *": "2026-02-28 00:01:00",
	} {
		if got := cron(t, expression, nil).Next(from).Format(time.DateTime); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
}

func TestBrokenExpressionsSayWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]struct {
		offset int
		reason string
	}{
		"":                 {0, "has 0 fields"},
		"* * * *":          {0, "has 4 fields"},
		"* * * * * * *":    {0, "has 7 fields"},
		"60 * * * *":       {0, `"60" is not from 0 to 59`},
		"0  24 * * *":      {3, `hour "24"`},
		"0 0 0 * *":        {4, "day of the month"},
		"0 0 * foo *":      {6, `month "foo"`},
		"0 0 * * mon-8":    {8, `"8" is not from 0 to 7`},
		"*/0 * * * *":      {0, "is no step"},
		"*/60 * * * *":     {0, "is no step"},
		"30-10 * * * *":    {0, "goes backwards"},
		"1,,2 * * * *":     {0, `"" is not from`},
		"+1 * * * *":       {0, `"+1"`},
		"-1 * * * *":       {0, `""`},
		"? * * * *":        {0, `"?"`},
		"0 0 L * *":        {4, `"L"`},
		"0 0 31 2,4,6 *":   {0, "no year has"},
		"@reboot":          {0, "none of @hourly"},
		"@every 5m":        {0, "has 2 fields"},
		"0 0 * * ünlich":   {8, "ünlich"},
		"99999999 * * * *": {0, "is not from"},
	} {
		_, err := schedule.Cron(expression, nil)
		var syntax *schedule.SyntaxError
		if !errors.As(err, &syntax) || syntax.Offset != want.offset || !strings.Contains(syntax.Reason, want.reason) {
			t.Errorf("%q: %+v, want %+v", expression, syntax, want)
		}
	}
}

func TestNextAgreesWithAWalkOverEveryMinute(t *testing.T) {
	t.Parallel()
	names := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata", "UTC", "Pacific/Apia", "Africa/Casablanca"}
	rapid.Check(t, func(t *rapid.T) {
		z := zone(t, rapid.SampledFrom(names).Draw(t, "zone"))
		minute := rapid.IntRange(0, 59).Draw(t, "minute")
		hours := rapid.SliceOfNDistinct(rapid.IntRange(0, 23), 1, 4, rapid.ID).Draw(t, "hours")
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, z).Add(time.Duration(rapid.IntRange(0, 365*24*60).Draw(t, "start")) * time.Minute)
		if rapid.Bool().Draw(t, "near a change") {
			if _, change := start.ZoneBounds(); !change.IsZero() {
				start = change.Truncate(time.Minute).Add(-time.Duration(rapid.IntRange(0, 180).Draw(t, "before")) * time.Minute)
			}
		}
		var text []string
		for _, h := range hours {
			text = append(text, strconv.Itoa(h))
		}
		s := cron(t, strconv.Itoa(minute)+" "+strings.Join(text, ",")+" * * *", z)

		// Walk over the wall: each time of day is due when the wall first shows it or has passed it.
		type day struct{ y, m, d, h int }
		done := map[day]bool{}
		var want []int64
		previous := start.Add(-24 * time.Hour)
		for at := start.Add(-24 * time.Hour); at.Before(start.Add(72 * time.Hour)); at = at.Add(time.Minute) {
			from, to := naive(previous), naive(at)
			hit := false
			for w := from.Add(time.Minute); !w.After(to); w = w.Add(time.Minute) {
				for _, h := range hours {
					key := day{w.Year(), int(w.Month()), w.Day(), h}
					if w.Hour() == h && w.Minute() == minute && !done[key] {
						done[key], hit = true, true
					}
				}
			}
			if hit && at.After(start) {
				want = append(want, at.Unix())
			}
			previous = at
		}
		var got []int64
		for tick := s.Next(start); !tick.IsZero() && tick.Before(start.Add(72*time.Hour)); tick = s.Next(tick) {
			got = append(got, tick.Unix())
		}
		if len(got) != len(want) {
			t.Fatalf("from %s: got %v, want %v", start, stamps(got, z), stamps(want, z))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("from %s: got %v, want %v", start, stamps(got, z), stamps(want, z))
			}
		}
	})
}

func naive(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

func stamps(all []int64, z *time.Location) []string {
	var out []string
	for _, s := range all {
		out = append(out, time.Unix(s, 0).In(z).String())
	}
	return out
}

func TestNextDoesNotDependOnWhereItIsAskedFrom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		z := zone(t, rapid.SampledFrom([]string{"Europe/Berlin", "Australia/Lord_Howe", "UTC"}).Draw(t, "zone"))
		s := cron(t, rapid.SampledFrom([]string{"*/5 * * * *", "30 2 * * *", "0 */2 * * *", "15 1,2 * * 0", "*/7 * * * * *"}).Draw(t, "cron"), z)
		if rapid.Bool().Draw(t, "every") {
			s, _ = schedule.Every(time.Duration(rapid.IntRange(1, 1e6).Draw(t, "seconds")) * time.Second)
		}
		from := time.Unix(rapid.Int64Range(1774000000, 1794000000).Draw(t, "from"), rapid.Int64Range(0, 999999999).Draw(t, "nanos"))
		tick := s.Next(from)
		if !tick.After(from) {
			t.Fatalf("%s is not after %s", tick, from)
		}
		between := from.Add(time.Duration(rapid.Int64Range(0, int64(tick.Sub(from)-1)).Draw(t, "between")))
		if again := s.Next(between); !again.Equal(tick) {
			t.Fatalf("from %s it is %s, from %s it is %s", from, tick, between, again)
		}
		if last := s.Last(from, tick); !last.Equal(tick) {
			t.Fatalf("the last up to %s is %s", tick, last)
		}
		if last := s.Last(from, tick.Add(-1)); !last.IsZero() {
			t.Fatalf("between %s and %s is %s", from, tick, last)
		}
	})
}

func TestLastOfALongAbsenceIsTheNewest(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 6, 15, 12, 0, 30, 0, time.UTC)
	for expression, want := range map[string]string{
		"* * * * * *": "2026-06-15 12:00:30", "@daily": "2026-06-15 00:00:00", "@yearly": "2026-01-01 00:00:00", "0 0 29 2 *": "2024-02-29 00:00:00",
	} {
		if got := cron(t, expression, nil).Last(until.AddDate(-10, 0, 0), until).Format(time.DateTime); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
}

// ZoneBounds of the standard library stands still at the end of a leap year that only the rule of a zone covers.
func TestTicksGoOnAfterTheTableOfAZoneEnds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} {
		z := zone(t, name)
		s := cron(t, "30 2 1 1 *", z)
		if got, want := s.Next(time.Date(2040, 12, 31, 12, 0, 0, 0, z)), time.Date(2041, 1, 1, 2, 30, 0, 0, z); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestJitterIsTheSameForATickAndSpreadsOthers(t *testing.T) {
	t.Parallel()
	s := cron(t, "* * * * *", nil).WithJitter(10*time.Second, "report.1")
	other := s.WithJitter(10*time.Second, "report.2")
	tick, differ, low, high := time.Unix(0, 0), 0, 0, 0
	for range 1000 {
		tick = s.Next(tick)
		late := s.Due(tick).Sub(tick)
		switch {
		case late != s.Due(tick).Sub(tick) || late < 0 || late >= 10*time.Second:
			t.Fatalf("%s is late by %s", tick, late)
		case late < 5*time.Second:
			low++
		default:
			high++
		}
		if other.Due(tick) != s.Due(tick) {
			differ++
		}
	}
	if low < 400 || high < 400 || differ < 990 {
		t.Errorf("%d early, %d late, %d differ between instances", low, high, differ)
	}
}

func TestIntervalsAreMultiplesSinceTheEpoch(t *testing.T) {
	t.Parallel()
	if _, err := schedule.Every(time.Second - 1); err == nil {
		t.Error("less than a second is accepted")
	}
	s, err := schedule.Every(10 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 3, 1, 10, 3, 0, 0, time.UTC)
	if got := s.Next(from); !got.Equal(time.Date(2026, 3, 1, 10, 10, 0, 0, time.UTC)) {
		t.Errorf("next is %s", got)
	}
	if got := s.Next(time.Unix(-1, 0)); !got.Equal(time.Unix(0, 0)) {
		t.Errorf("before the epoch: %s", got)
	}
	if got := (schedule.Schedule{}).Next(from); !got.IsZero() {
		t.Errorf("a schedule without ticks has %s", got)
	}
}

// FuzzCron asks that whatever the text, it is refused with its place, or names ticks that grow.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"*/5 * * * *", "30 2 * * mon-fri", "@hourly", "0 0 29 2 *", "1-5/2,7 * ? * sun", "0 0 31 2 *", "* * * * * *", "5/20 1 1 1 7"} {
		f.Add(s, int64(1774000000))
	}
	z, err := time.LoadLocation("Australia/Lord_Howe")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, expression string, from int64) {
		s, err := schedule.Cron(expression, z)
		if err != nil {
			var syntax *schedule.SyntaxError
			if !errors.As(err, &syntax) || syntax.Reason == "" || syntax.Offset < 0 || syntax.Offset > len(expression) {
				t.Fatalf("%q: %v", expression, err)
			}
			return
		}
		at := time.Unix(from%4e9, 0)
		for range 5 {
			next := s.Next(at)
			if next.IsZero() {
				return // none within a hundred years
			}
			if !next.After(at) {
				t.Fatalf("%q: %s is not after %s", expression, next, at)
			}
			at = next
		}
	})
}
