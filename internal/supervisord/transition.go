//go:build linux

package supervisord

import (
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// transition makes the moves that time alone allows.
func (p *process) transition() {
	now := time.Now()
	state := p.state
	if p.d.mood > MoodRestarting && p.wantsStart(now) {
		p.spawn()
	}
	switch state {
	case Starting:
		if p.state == Starting && now.Sub(p.started) > p.startTime() && !p.reaped {
			p.delay, p.backoff = time.Time{}, 0
			p.change(Running, true)
			p.d.log.info("success: %s entered RUNNING state, process has stayed up for > than %d seconds (startsecs)",
				p.conf.Name, p.conf.StartSecs)
		}
	case Backoff:
		if p.state == Backoff && p.backoff > p.conf.StartRetries {
			p.giveUp()
			p.d.log.info("gave up: %s entered FATAL state, too many start retries too quickly", p.conf.Name)
		}
	case Stopping:
		if !p.delay.After(now) && !p.reaped {
			p.d.log.warn("killing '%s' (%d) with SIGKILL", p.conf.Name, p.pid)
			_ = p.kill(unix.SIGKILL) // it has logged what went wrong
		}
	}
}

// wantsStart says whether the process is to be started without being asked.
func (p *process) wantsStart(now time.Time) bool {
	switch p.state {
	case Exited:
		return p.restarts() && !now.Before(p.restartAt())
	case Stopped:
		return p.started.IsZero() && p.conf.AutoStart
	case Backoff:
		return p.backoff <= p.conf.StartRetries && now.After(p.delay)
	default:
		return false
	}
}

// restarts says whether an EXITED process is started again.
func (p *process) restarts() bool {
	switch p.conf.AutoRestart {
	case conf.RestartAlways:
		return true
	case conf.RestartUnexpected:
		return !slices.Contains(p.conf.ExitCodes, p.exitStatus)
	default:
		return false
	}
}

// comesBack says whether the process has ended and will be started again without being asked.
func (p *process) comesBack() bool { return p.state == Exited && p.restarts() }

// restartAt is when an EXITED process may be started again: at once, unless it keeps ending at once.
func (p *process) restartAt() time.Time {
	if p.hasty > hastyRestarts {
		return p.started.Add(calmRun)
	}
	return p.stopped
}

// wake is when the next move that time alone allows is due; zero for never.
func (p *process) wake() time.Time {
	switch p.state {
	case Starting:
		if p.reaped {
			return time.Time{} // its end is on its way
		}
		return p.started.Add(p.startTime() + 1) // longer than startsecs, by the smallest step there is
	case Backoff:
		return p.delay.Add(1)
	case Stopping:
		if p.reaped {
			return time.Time{}
		}
		return p.delay
	case Exited:
		if p.d.mood > MoodRestarting && p.restarts() {
			return p.restartAt()
		}
	}
	return time.Time{}
}

func badExit(code int) string { return "Bad exit code " + strconv.Itoa(code) }
