package supervisord

import (
	"time"

	"github.com/hozo-dev/hozo/internal/reap"
)

// reap takes every wait status there is. The end of a child is told once its output has been read, which is done beside
// the loop: a disk that hangs then holds up that child alone.
func (d *Daemon) reap() {
	for {
		child, ok := reap.Peek()
		if !ok {
			return
		}
		pid := child.PID
		ws, err := reap.Take(pid)
		if err != nil {
			d.log.critical("waitpid error %s; a process may not be cleaned up properly", quote(errnoName(err)))
			return
		}
		p := d.children[pid]
		if p == nil {
			_, text := exitText(ws)
			d.log.info("reaped unknown pid %d (%s)", pid, text)
			continue
		}
		delete(d.children, pid)
		p.reaped, p.stopped = true, time.Now()
		channels := p.channels
		d.background(func() {
			channels.drain()
			d.post(func() {
				p.finish(ws)
				d.changed()
			})
		})
	}
}
