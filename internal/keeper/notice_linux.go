package keeper

import (
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// maxStatusBytes bounds the STATUS= that is kept and listed.
	maxStatusBytes = 1024
	// maxNoticeTime bounds the durations of a notification: longer is a slip, or would overflow.
	maxNoticeTime = 24 * time.Hour
)

// The values of NOTIFYACCESS=. Until a process says otherwise every process of its tree is heard: a wrapper script
// may notify for the program that it runs.
const (
	accessNone = "none"
	accessMain = "main"
	accessExec = "exec" // the same as main: the keeper runs nothing else for a service
	accessAll  = "all"
)

// notice is what the keeper understands of a notification; see sd_notify(3).
type notice struct {
	ready, stopping, reloading bool
	status                     *string
	ping, trigger              bool
	watchdog                   *time.Duration
	extend                     time.Duration
	mainPID                    int
	access                     string
	keep, forget               bool   // FDSTORE, FDSTOREREMOVE
	fdName                     string // FDNAME
	unpolled                   bool   // FDPOLL=0
}

// parseNotice reads the lines of a notification. Unknown ones are left to whoever gets the event; a value that makes no
// sense is as if its line were not there.
func parseNotice(text string) notice {
	var n notice
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		yes := value == "1"
		switch key {
		case "READY":
			n.ready = n.ready || yes
		case "STOPPING":
			n.stopping = n.stopping || yes
		case "RELOADING":
			n.reloading = n.reloading || yes
		case "STATUS":
			if len(value) > maxStatusBytes {
				value = strings.ToValidUTF8(value[:maxStatusBytes], "")
			}
			value = strings.Map(printable, value)
			n.status = &value
		case "WATCHDOG":
			n.ping = n.ping || yes
			n.trigger = n.trigger || value == "trigger"
		case "WATCHDOG_USEC":
			if d, ok := microseconds(value); ok {
				n.watchdog = &d
			}
		case "EXTEND_TIMEOUT_USEC":
			if d, ok := microseconds(value); ok {
				n.extend = max(n.extend, d)
			}
		case "MAINPID":
			if pid, err := strconv.ParseInt(value, 10, 32); err == nil && pid > 1 {
				n.mainPID = int(pid)
			}
		case "NOTIFYACCESS":
			switch value {
			case accessNone, accessMain, accessExec, accessAll:
				n.access = value
			}
		case "FDSTORE":
			n.keep = n.keep || yes
		case "FDSTOREREMOVE":
			n.forget = n.forget || yes
		case "FDNAME":
			if goodName(value) {
				n.fdName = value
			}
		case "FDPOLL":
			n.unpolled = value == "0"
		}
	}
	return n
}

// printable makes a space of what would move the cursor of whoever reads it.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

func microseconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(min(n, uint64(maxNoticeTime/time.Microsecond))) * time.Microsecond, true
}

// hears says whether notifications of a process of its tree count.
func (r *record) hears(pid int) bool {
	switch r.access {
	case accessNone:
		return false
	case accessMain, accessExec:
		return pid == r.pid || pid == r.said.MainPID
	default:
		return true
	}
}

// take remembers what a notification says.
func (r *record) take(n notice, now time.Duration) {
	r.ready = r.ready || n.ready
	if n.status != nil {
		r.status = *n.status
	}
	if n.access != "" {
		r.access = n.access
	}
	s := &r.said
	if n.ready {
		s.Reloading = false
	}
	s.Stopping = s.Stopping || n.stopping
	s.Reloading = s.Reloading || n.reloading
	s.Trigger = s.Trigger || n.trigger
	if n.ping {
		s.Pinged = now
	}
	if n.watchdog != nil {
		s.Watchdog = n.watchdog
		s.Pinged = now // the new period starts here
	}
	if n.extend > 0 {
		s.Extended = max(s.Extended, now+n.extend)
	}
	if n.mainPID > 0 {
		s.MainPID = n.mainPID
	}
}
