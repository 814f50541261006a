package manifest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// day is how long the unit "d" lasts; calendars and their clock changes play no part.
const day = 24 * time.Hour

// parseDuration reads Go's durations ("24h", "1m30s", "500ms") with leading days as well ("7d", "1d12h").
func parseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	rest, days := text, time.Duration(0)
	number, after, found := strings.Cut(text, "d")
	if n, err := strconv.ParseUint(number, 10, 32); found && err == nil {
		if n > uint64(math.MaxInt64/day) {
			return 0, fmt.Errorf("%s is longer than 292 years", text)
		}
		if days, rest = time.Duration(n)*day, after; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration like 500ms, 10s, 24h or 7d", s)
	}
	if d > 0 && days > math.MaxInt64-d {
		return 0, fmt.Errorf("%s is longer than 292 years", text)
	}
	if d < 0 {
		return 0, fmt.Errorf("%s is negative", text)
	}
	return days + d, nil
}

// formatDuration writes d as a person would: "10m", not "10m0s"; "7d", not "168h0m0s".
func formatDuration(d time.Duration) string {
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
