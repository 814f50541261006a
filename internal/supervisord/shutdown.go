//go:build linux

package supervisord

import (
	"strings"
	"time"
)

// dieReportEvery is how often the log says which processes a shutdown waits for.
const dieReportEvery = 3 * time.Second

// stopStep stops the group with the highest priority that still runs. The next one has its turn when nothing of it does,
// one group a step, so that listeners hear of one before the next is stopped.
func (d *Daemon) stopStep() {
	if !d.stopping {
		d.stopping = true
		d.stopGroups = d.byPriority()
		d.notify(newEvent(eventSupervisorDown, ""))
	} else if n := len(d.stopGroups); n > 0 && len(d.stopGroups[n-1].unstopped()) == 0 {
		d.stopGroups = d.stopGroups[:n-1]
		d.changed()
	}
	if n := len(d.stopGroups); n > 0 {
		d.stopGroups[n-1].stopAll()
	}
	d.finished = !d.waitsForDeath()
}

// waitsForDeath says whether something still runs, and logs what.
func (d *Daemon) waitsForDeath() bool {
	var names []string
	for _, g := range d.groups {
		for _, p := range g.unstopped() {
			names = append(names, p.conf.Name)
		}
	}
	if len(names) > 0 && time.Since(d.reportedStop) > dieReportEvery {
		d.log.info("waiting for %s to die", strings.Join(names, ", "))
		d.reportedStop = time.Now()
	}
	return len(names) > 0
}
