//go:build linux

package supervisord

import (
	"fmt"
	"time"
)

// tickPeriods are those of TICK_5, TICK_60 and TICK_3600, in seconds.
var tickPeriods = [...]int64{5, 60, 3600}

// ticks is the slice of time of each period that was last seen; the zero value has seen none.
type ticks struct {
	last [len(tickPeriods)]int64
	seen bool
}

// tick tells listeners when the clock has entered another slice of a period.
func (d *Daemon) tick(now time.Time) {
	for i, period := range tickPeriods {
		this := now.Unix() - now.Unix()%period
		if d.ticks.seen && this != d.ticks.last[i] {
			d.ticks.last[i] = this
			d.notify(newEvent(tickKind(period), fmt.Sprintf("when:%d", this)))
		}
		d.ticks.last[i] = this
	}
	d.ticks.seen = true
}

// nextTick is when the next slice begins that a listener is to be told of; zero when none is.
func (d *Daemon) nextTick(now time.Time) time.Time {
	var next time.Time
	for _, period := range tickPeriods {
		e := &event{kind: tickKind(period)}
		for _, g := range d.groups {
			if g.pool == nil || g.pool.wants(e) == 0 {
				continue
			}
			left := time.Duration(period)*time.Second - time.Duration(now.UnixNano()%(period*int64(time.Second)))
			if at := now.Add(left); next.IsZero() || at.Before(next) {
				next = at
			}
			break
		}
	}
	return next
}

func tickKind(period int64) eventKind { return eventKind(fmt.Sprintf("%s%d", eventTick, period)) }
