//go:build linux

package supervisord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// Options is the command line of the daemon.
type Options struct {
	File string // the configuration; "" looks for it where Supervisor does
	// Override lays the command line over the [supervisord] section, each time it is read.
	Override func(*conf.Supervisord)
	Stderr   io.Writer
}

// Main runs the daemon, in the background unless the configuration or the command line says otherwise, and runs it again
// whenever it is to restart. It takes SIGTERM, SIGINT, SIGQUIT, SIGHUP and SIGUSR2 for itself.
func Main(ctx context.Context, o Options) error {
	back := takeBackground()
	file, err := o.find()
	if err != nil {
		return err
	}
	environ := os.Environ() // as it is now: reading again expands %(ENV_X)s to what it was at the start
	load := func() (*conf.Config, []conf.Warning, error) { return o.load(file, environ) }
	for first := true; ; first = false {
		c, warnings, err := load()
		if err != nil {
			return err
		}
		if back == nil && first && !c.Supervisord.NoDaemon {
			return startBackground()
		}
		mood, err := o.run(ctx, c, warnings, load, first, back)
		back = nil
		if err != nil || mood < MoodRestarting {
			return err
		}
	}
}

// run is one life of the daemon.
func (o Options) run(ctx context.Context, c *conf.Config, warnings []conf.Warning,
	load func() (*conf.Config, []conf.Warning, error), first bool, back *background,
) (Mood, error) {
	if first {
		if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			for fd := 3; fd < c.Supervisord.MinFDs; fd++ {
				unix.CloseOnExec(fd) // an older kernel: descriptors that this process inherited are not for its children
			}
		}
	}
	notes, err := notes(c, warnings, first)
	if err != nil {
		return MoodFatal, err
	}
	cfg := Config{Conf: c, First: first, Notes: notes, Load: func() (*conf.Config, error) {
		c, _, err := load()
		if err != nil {
			return nil, errors.New(conf.Message(err))
		}
		return c, nil
	}}
	if back != nil {
		cfg.Started = back.enter
	}
	d, err := New(cfg)
	if err != nil {
		return MoodFatal, err
	}
	return d.Run(ctx)
}

// notes prepares this process for the daemon, and gives what there is to say of it, in Supervisor's order.
func notes(c *conf.Config, warnings []conf.Warning, first bool) ([]Note, error) {
	list, err := dropPrivileges(c.Supervisord)
	if err != nil {
		return nil, err
	}
	if first {
		raised, err := raiseLimits(c.Supervisord)
		if err != nil {
			return nil, err
		}
		list = append(list, raised...)
	}
	var all []Note
	add := func(n Note, level conf.Level) {
		if n.Level == level {
			all = append(all, n)
		}
	}
	for _, n := range list {
		add(n, conf.LevelCritical)
	}
	for _, w := range warnings {
		text := w.Text
		if at := w.Position.String(); at != "" {
			text += " (" + at + ")"
		}
		all = append(all, Note{conf.LevelWarn, text})
	}
	for _, file := range c.Included {
		all = append(all, Note{conf.LevelInfo, fmt.Sprintf("Included extra file %q during parsing", file)})
	}
	for _, n := range list {
		add(n, conf.LevelInfo)
	}
	return all, nil
}

func (o Options) load(file string, environ []string) (*conf.Config, []conf.Warning, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "" // then %(host_node_name)s is empty
	}
	c, warnings, err := conf.Load(file, conf.Options{Environ: environ, NodeName: host})
	if err != nil {
		return nil, nil, err
	}
	if o.Override != nil {
		o.Override(&c.Supervisord)
	}
	return c, warnings, nil
}

// find is the configuration's path: the one that was asked for, or the first that is there of those Supervisor looks at.
func (o Options) find() (string, error) {
	if o.File != "" {
		return filepath.Abs(o.File)
	}
	var places []string
	if self, err := os.Executable(); err == nil {
		above := filepath.Dir(filepath.Dir(self))
		places = append(places, filepath.Join(above, "etc/supervisord.conf"), filepath.Join(above, "supervisord.conf"))
	}
	places = append(places, "supervisord.conf", "etc/supervisord.conf", "/etc/supervisord.conf", "/etc/supervisor/supervisord.conf")
	for _, place := range places {
		if _, err := os.Stat(place); err == nil {
			if os.Getuid() == 0 && o.Stderr != nil {
				fmt.Fprintf(o.Stderr, "supervisord runs as root and found %s by itself; name the configuration with -c\n", place)
			}
			return filepath.Abs(place)
		}
	}
	return "", &fault.Error{
		Code: "supervisord/no-config", Kind: fault.Misuse,
		What: "No config file found at default paths (" + strings.Join(places, ", ") + ")",
		Fix:  "name it with -c",
	}
}
