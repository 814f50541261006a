package supervisord

import (
	"log/syslog"
	"os"
	"strings"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// channels are the standard input and outputs of a child.
type channels struct {
	outs  []*channel
	stdin *stdin
}

// channel is one output of a child and where it goes.
type channel struct {
	p      *process
	name   string // stdout or stderr
	conf   *conf.Log
	out    *output
	pid    int
	file   *logfile       // nil: not logged to a file
	syslog *syslog.Writer // nil: not logged there
	cap    *capture       // nil: nothing is captured
}

// openChannels makes the pipes and opens the logs of a child, and returns the child's ends: its fds 0, 1 and 2.
func (p *process) openChannels() (files [3]*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			p.channels.close()
			p.channels = channels{}
		}
	}()
	if p.socket != nil {
		files[0], err = p.socket.dup()
	} else {
		var ours *os.File
		if ours, files[0], err = swap(newPipe(1)); err == nil {
			p.channels.stdin = &stdin{pipe: ours, loop: p.d}
		}
	}
	if err != nil {
		return files, err
	}
	if files[1], err = p.openOutput("stdout", &p.conf.Stdout, p.stdoutPath()); err != nil {
		return files, err
	}
	if p.conf.RedirectStderr && p.group.pool == nil {
		files[2] = files[1]
		return files, nil
	}
	files[2], err = p.openOutput("stderr", &p.conf.Stderr, p.stderrPath())
	return files, err
}

// swap puts the daemon's end first.
func swap(ours, child *os.File, err error) (*os.File, *os.File, error) { return ours, child, err }

func (p *process) openOutput(name string, c *conf.Log, path string) (child *os.File, err error) {
	ch := &channel{p: p, name: name, conf: c}
	if path != "" {
		if ch.file, err = p.d.openLog(path, c.MaxBytes, c.Backups); err != nil {
			return nil, err
		}
	}
	listening := p.group.pool != nil && name == "stdout"
	if c.Syslog && !listening {
		if ch.syslog, err = syslog.New(syslog.LOG_INFO|syslog.LOG_USER, "supervisord"); err != nil {
			p.d.log.warn("%s of %s not sent to syslog: %v", name, p.conf.Name, err)
			ch.syslog = nil
		}
	}
	ours, child, err := newPipe(0)
	if err != nil {
		ch.closeLogs()
		return nil, err
	}
	ch.out = &output{pipe: ours, take: ch.take, end: ch.end, done: make(chan struct{})}
	if listening {
		p.listener = newListener(p.listenerHooks())
		ch.out.take = ch.hear
	} else if c.CaptureMaxBytes > 0 {
		ch.cap = &capture{max: int(c.CaptureMaxBytes), log: ch.write, inside: ch.tell, emit: ch.emit}
		ch.out.take = ch.cap.write
	}
	p.channels.outs = append(p.channels.outs, ch)
	return child, nil
}

// start begins to read.
func (c *channels) start(d *Daemon) {
	for _, ch := range c.outs {
		ch.pid = ch.p.pid
		d.background(ch.out.run)
	}
}

// drain reads what the pipes still hold, closes them and returns once everything has been dealt with.
func (c *channels) drain() {
	for _, ch := range c.outs {
		ch.out.drain()
	}
	for _, ch := range c.outs {
		<-ch.out.done
	}
}

// close closes the standard input, and the rest if it was never read: readers close what they read.
func (c *channels) close() {
	if c.stdin != nil {
		c.stdin.close()
	}
	for _, ch := range c.outs {
		if ch.pid == 0 {
			ch.out.pipe.Close()
			ch.closeLogs()
		}
	}
}

// take is output without capture.
func (ch *channel) take(data []byte) { ch.write(data) }

// write logs output.
func (ch *channel) write(data []byte) {
	if len(data) == 0 {
		return
	}
	if ch.p.d.conf.Supervisord.StripANSI {
		data = stripANSI(data)
	}
	if ch.file != nil {
		_, _ = ch.file.Write(data) // counts its own losses
	}
	if ch.syslog != nil {
		for line := range strings.SplitSeq(strings.TrimRight(readable(data), "\n"), "\n") {
			_ = ch.syslog.Info(ch.p.conf.Name + " " + line) // syslog is where it would be told
		}
	}
	ch.tell(data)
}

// tell reports output, logged or captured, to the main log and to listeners, if anybody asked for it.
func (ch *channel) tell(data []byte) {
	if ch.p.d.log.enabled(conf.LevelDebug) {
		ch.p.d.log.debug("%s %s output:\n%s", quote(ch.p.conf.Name), ch.name, readable(data))
	}
	if ch.conf.Events {
		e := logEvent(ch.p, ch.name, ch.pid, data)
		ch.p.d.post(func() { ch.p.d.notify(e) })
	}
}

// emit reports a communication.
func (ch *channel) emit(data []byte) {
	e := captureEvent(ch.p, ch.name, ch.pid, data)
	ch.p.d.post(func() {
		ch.p.d.notify(e)
		ch.p.d.log.debug("%s %s emitted a comm event", quote(ch.p.conf.Name), ch.name)
	})
}

// hear is the output of an event listener: its side of the protocol.
func (ch *channel) hear(data []byte) {
	if ch.p.d.log.enabled(conf.LevelDebug) {
		ch.p.d.log.debug("%s %s output:\n%s", quote(ch.p.conf.Name), ch.name, quoteBytes(data))
	}
	said := strings.Clone(string(data))
	if ch.file != nil {
		if ch.p.d.conf.Supervisord.StripANSI {
			data = stripANSI(data)
		}
		_, _ = ch.file.Write(data) // counts its own losses
	}
	p, l := ch.p, ch.p.listener
	p.d.post(func() { l.write([]byte(said)) })
}

// end runs after the last output.
func (ch *channel) end() {
	if ch.cap != nil {
		ch.cap.close()
	}
	ch.closeLogs()
}

func (ch *channel) closeLogs() {
	if ch.file != nil {
		ch.file.Close()
	}
	if ch.syslog != nil {
		_ = ch.syslog.Close() // every line has been sent
	}
}

// removeLogs empties the logs of a running process; one that does not run has none open, and Supervisor then does nothing.
func (p *process) removeLogs() error {
	for _, ch := range p.channels.outs {
		if ch.file != nil {
			if err := ch.file.Remove(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *process) reopenLogs() {
	for _, ch := range p.channels.outs {
		if ch.file != nil {
			if err := ch.file.Reopen(); err != nil {
				p.d.log.error("log %s not reopened: %v", ch.file.path, err)
			}
		}
	}
}
