package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/supervisord"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// supervisordFlags are those of Supervisor's own daemon, under its names.
type supervisordFlags struct {
	file, user, directory, logfile, pidfile, identifier, childlogdir string
	umask, maxBytes, backups, level, minfds, minprocs, profile       string
	nodaemon, silent, nocleanup, stripANSI, version                  bool
}

func newSupervisord(o *options) *cobra.Command {
	var f supervisordFlags
	cmd := &cobra.Command{
		Use:   "supervisord",
		Short: "Run a supervisord.conf, unchanged",
		Long: `Runs the programs of a supervisord.conf as Supervisor does, and answers supervisorctl, event listeners and other
clients of its XML-RPC. It goes into the background unless -n or nodaemon=true says otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.version {
				fmt.Fprintln(o.env.Stdout, supervisord.Version)
				return nil
			}
			override, err := f.override(cmd)
			if err != nil {
				return misuse(cmd, err)
			}
			return supervisord.Main(cmd.Context(), supervisord.Options{File: f.file, Override: override, Stderr: o.env.Stderr})
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "configuration", "c", "", "configuration file (searches if not given)")
	fl.BoolVarP(&f.nodaemon, "nodaemon", "n", false, "run in the foreground")
	fl.BoolVarP(&f.silent, "silent", "s", false, "no log on standard output")
	fl.BoolVarP(&f.version, "version", "v", false, "print the version of Supervisor that this daemon behaves like")
	fl.StringVarP(&f.user, "user", "u", "", "run as this user, by name or uid")
	fl.StringVarP(&f.umask, "umask", "m", "", "umask of the daemon, octal")
	fl.StringVarP(&f.directory, "directory", "d", "", "folder to change to in the background")
	fl.StringVarP(&f.logfile, "logfile", "l", "", "main log")
	fl.StringVarP(&f.maxBytes, "logfile_maxbytes", "y", "", "size at which the main log is rotated: 50MB")
	fl.StringVarP(&f.backups, "logfile_backups", "z", "", "rotated main logs that are kept")
	fl.StringVarP(&f.level, "loglevel", "e", "", "critical, error, warn, info, debug, trace or blather")
	fl.StringVarP(&f.pidfile, "pidfile", "j", "", "pid file")
	fl.StringVarP(&f.identifier, "identifier", "i", "", "identifier of this daemon")
	fl.StringVarP(&f.childlogdir, "childlogdir", "q", "", "folder of AUTO logs")
	fl.BoolVarP(&f.nocleanup, "nocleanup", "k", false, "keep AUTO logs of an earlier run")
	fl.StringVarP(&f.minfds, "minfds", "a", "", "descriptors that must be available")
	fl.StringVar(&f.minprocs, "minprocs", "", "processes that must be available")
	fl.BoolVarP(&f.stripANSI, "strip_ansi", "t", false, "take escape sequences out of child logs")
	fl.StringVar(&f.profile, "profile_options", "", "accepted and ignored: there is no Python to profile")
	// Supervisor's -e is the level of the log. A flag of this name keeps that of all commands, which has the same letter, away.
	fl.String("env", "", "")
	_ = fl.MarkHidden("env") // it fails when there is no such flag
	return cmd
}

// override checks the flags that were given and returns what lays them over a configuration.
func (f *supervisordFlags) override(cmd *cobra.Command) (func(*conf.Supervisord), error) {
	var sets []func(*conf.Supervisord)
	var bad error
	given := func(name, value string, parse func(string) (func(*conf.Supervisord), error)) {
		if bad != nil || !cmd.Flags().Changed(name) {
			return
		}
		set, err := parse(value)
		if err != nil {
			bad = fmt.Errorf("invalid value for --%s %q: %w", name, value, err)
			return
		}
		sets = append(sets, set)
	}
	text := func(name, value string, field func(*conf.Supervisord) *string) {
		given(name, value, func(v string) (func(*conf.Supervisord), error) {
			return func(s *conf.Supervisord) { *field(s) = v }, nil
		})
	}
	number := func(name, value string, base int, field func(*conf.Supervisord) *int) {
		given(name, value, func(v string) (func(*conf.Supervisord), error) {
			n, err := strconv.ParseInt(v, base, 32)
			return func(s *conf.Supervisord) { *field(s) = int(n) }, err
		})
	}
	path := func(name, value string, field func(*conf.Supervisord) *string) {
		given(name, value, func(v string) (func(*conf.Supervisord), error) {
			abs, err := filepath.Abs(v)
			return func(s *conf.Supervisord) { *field(s) = abs }, err
		})
	}
	text("user", f.user, func(s *conf.Supervisord) *string { return &s.User })
	text("identifier", f.identifier, func(s *conf.Supervisord) *string { return &s.Identifier })
	path("directory", f.directory, func(s *conf.Supervisord) *string { return &s.Directory })
	path("childlogdir", f.childlogdir, func(s *conf.Supervisord) *string { return &s.ChildLogDir })
	path("pidfile", f.pidfile, func(s *conf.Supervisord) *string { return &s.Pidfile })
	if f.logfile == "syslog" {
		text("logfile", f.logfile, func(s *conf.Supervisord) *string { return &s.Logfile })
	} else {
		path("logfile", f.logfile, func(s *conf.Supervisord) *string { return &s.Logfile })
	}
	number("umask", f.umask, 8, func(s *conf.Supervisord) *int { return &s.Umask })
	number("logfile_backups", f.backups, 10, func(s *conf.Supervisord) *int { return &s.LogfileBackups })
	number("minfds", f.minfds, 10, func(s *conf.Supervisord) *int { return &s.MinFDs })
	number("minprocs", f.minprocs, 10, func(s *conf.Supervisord) *int { return &s.MinProcs })
	given("logfile_maxbytes", f.maxBytes, func(v string) (func(*conf.Supervisord), error) {
		n, err := conf.ParseSize(v)
		return func(s *conf.Supervisord) { s.LogfileMaxBytes = n }, err
	})
	given("loglevel", f.level, func(v string) (func(*conf.Supervisord), error) {
		level, ok := conf.ParseLevel(strings.ToLower(v))
		if !ok {
			return nil, errors.New("bad logging level name")
		}
		return func(s *conf.Supervisord) { s.Loglevel = level }, nil
	})
	return func(s *conf.Supervisord) {
		for _, set := range sets {
			set(s)
		}
		s.NoDaemon = s.NoDaemon || f.nodaemon
		s.Silent = s.Silent || f.silent
		s.NoCleanup = s.NoCleanup || f.nocleanup
		s.StripANSI = s.StripANSI || f.stripANSI
	}, bad
}

// supervisordShim runs the command line if it is the one that becomes a program of supervisord.
func supervisordShim(env Env, environ []string) (status int, ok bool) {
	if len(env.Args) == 0 || env.Args[0] != supervisord.ShimCommand {
		return 0, false
	}
	return supervisord.ExecShim(env.Args[1:], environ), true
}

// supervisordTold is the exit status of an error whose reason has been told by another process.
func supervisordTold(err error) (status int, ok bool) { return supervisord.TellStatus(err) }
