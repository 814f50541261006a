package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const supervisordName = "supervisord"

// supervisord is Supervisor from Debian's package, with its defaults but for the rotation of logs, which is off. Its
// programs are one group: groups are stopped one after the other, one a second.
type supervisord struct {
	children
	config string
}

var _ manager = (*supervisord)(nil)

func (s *supervisord) name() string { return supervisordName }

func (s *supervisord) start(ctx context.Context, dir string, programs []program) error {
	s.children.dir, s.config = dir, filepath.Join(dir, "supervisord.conf")
	var text strings.Builder
	fmt.Fprintf(&text, "[supervisord]\nlogfile=%[1]s/main.log\npidfile=%[1]s/pid\nchildlogdir=%[1]s\nminfds=4096\n"+
		"[unix_http_server]\nfile=%[1]s/rpc\n"+
		"[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"+
		"[supervisorctl]\nserverurl=unix://%[1]s/rpc\n", dir)
	names := make([]string, len(programs))
	for i, one := range programs {
		names[i] = one.name
		fmt.Fprintf(&text, "[program:%s]\ncommand=%s\nautorestart=true\nredirect_stderr=true\nstdout_logfile=%s\nstdout_logfile_maxbytes=0\n",
			one.name, strings.Join(one.argv, " "), s.path(one.name))
	}
	fmt.Fprintf(&text, "[group:bench]\nprograms=%s\n", strings.Join(names, ","))
	if err := os.WriteFile(s.config, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return s.children.start("supervisord", nil, nil, dir, "/usr/bin/supervisord", "-n", "-c", s.config)
}

// stop shuts it down by its own tool, and by force when that fails.
func (s *supervisord) stop(ctx context.Context) error {
	if err := runTool(ctx, "/usr/bin/supervisorctl", "-c", s.config, "shutdown"); err != nil {
		return fmt.Errorf("%w; %w", err, s.children.stop(syscall.SIGTERM))
	}
	return s.children.ended(stopPatience)
}

func (s *supervisord) status(ctx context.Context) error {
	return runTool(ctx, "/usr/bin/supervisorctl", "-c", s.config, "status")
}

func (s *supervisord) pids() ([]int, error)    { return s.children.pids(), s.alive() }
func (s *supervisord) parents() ([]int, error) { return s.pids() }
func (s *supervisord) path(program string) string {
	return filepath.Join(s.children.dir, program+".log")
}

func (s *supervisord) log(program string) (path, prefix string) { return s.path(program), "" }
