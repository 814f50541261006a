//go:build linux

package supervisord

import (
	"fmt"
	"os"
	"slices"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// group is what is started, stopped and reloaded as one. The loop owns it.
type group struct {
	d      *Daemon
	conf   *conf.Group
	procs  []*process
	pool   *pool       // of event listeners only
	socket *fcgiSocket // of fcgi programs only
	auto   autoLogs
}

// autoLogs are the files of a group's AUTO logs, by the name of the process and the channel.
type autoLogs map[string]string

// newGroup makes the processes of a group, none of them started, and the files of its AUTO logs.
func newGroup(d *Daemon, c *conf.Group) (*group, error) {
	g := &group{d: d, conf: c, auto: d.autoLogs[c]}
	fresh := g.auto == nil // a group that was taken out and is brought in again keeps its files
	if fresh {
		g.auto = autoLogs{}
		d.autoLogs[c] = g.auto
	}
	for i := range c.Programs {
		p := &c.Programs[i]
		g.procs = append(g.procs, &process{d: d, group: g, conf: p})
		if !fresh {
			continue
		}
		if err := g.makeAutoLogs(p); err != nil {
			return nil, err
		}
	}
	switch c.Kind {
	case conf.KindListener:
		g.pool = &pool{group: g, serial: -1}
	case conf.KindFCGI:
		g.socket = &fcgiSocket{conf: c.Socket, log: d.log}
		lease, err := g.socket.lease() // a mistake shows now, not at the first start
		if err != nil {
			return nil, fmt.Errorf("Could not create FastCGI socket %s: %w", c.Socket.URL(), err) //nolint:staticcheck // Supervisor's own words
		}
		lease.release()
	}
	return g, nil
}

// makeAutoLogs makes up the names of AUTO logs.
func (g *group) makeAutoLogs(p *conf.Program) error {
	for _, ch := range []struct {
		name string
		log  conf.Log
	}{{"stdout", p.Stdout}, {"stderr", p.Stderr}} {
		if ch.log.Kind != conf.LogAuto || ch.name == "stderr" && p.RedirectStderr {
			continue
		}
		s := g.d.conf.Supervisord
		f, err := os.CreateTemp(s.ChildLogDir, fmt.Sprintf("%s-%s---%s-*.log", p.Name, ch.name, s.Identifier))
		if err != nil {
			return err
		}
		g.auto[p.Name+" "+ch.name] = f.Name()
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// logPath is the file of a channel, "" for none.
func (g *group) logPath(p *conf.Program, channel string) string {
	log := p.Stdout
	if channel == "stderr" {
		log = p.Stderr
	}
	switch log.Kind {
	case conf.LogFile:
		return log.Path
	case conf.LogAuto:
		return g.auto[p.Name+" "+channel]
	default:
		return ""
	}
}

// process returns the process called name, or nil.
func (g *group) process(name string) *process {
	for _, p := range g.procs {
		if p.conf.Name == name {
			return p
		}
	}
	return nil
}

// byPriority is the processes in the order of starting.
func (g *group) byPriority() []*process {
	list := slices.Clone(g.procs)
	slices.SortStableFunc(list, func(a, b *process) int { return a.conf.Priority - b.conf.Priority })
	return list
}

// stopAll asks every process to end, in descending priority, and ends all retries.
func (g *group) stopAll() {
	list := g.byPriority()
	slices.Reverse(list)
	for _, p := range list {
		switch p.state {
		case Running, Starting:
			_ = p.stop() // it has logged what went wrong
		case Backoff:
			p.giveUp()
		}
	}
}

// unstopped is the processes that are not at rest.
func (g *group) unstopped() []*process {
	var list []*process
	for _, p := range g.procs {
		if !p.state.stopped() {
			list = append(list, p)
		}
	}
	return list
}

func (g *group) transition() {
	for _, p := range g.procs {
		p.transition()
	}
	if g.pool != nil {
		g.pool.dispatch()
	}
}
