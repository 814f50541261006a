// Command bench runs whole-system workloads through Hozo and through its peers, in turn, on the same machine in the same
// run:
//
//	go run ./bench e2e [-quick] [-json] [-rounds N] [-events FILE] [-only files,python]
//	go run ./bench process [-quick] [-json] [-rounds N] [-only hozo,supervisord]
//	go run ./bench messaging [-quick] [-json] [-rounds N] [-only hozo,libzmq]
//	go run ./bench tasks [-quick] [-json] [-rounds N] [-only hozo,asynq]
//	go run ./bench deploy [-quick] [-json] [-rounds N]
//
// It prints medians with their spread, the roofs of the machine, what an acknowledgement of each row survives, and at the
// end one line a ratio: RATIO <name> <value> bar <bar>, turned so that higher is better. A checker counts and sums what
// arrived. Exit status: 0 when every count and sum is right, whatever the ratios; 1 when one is wrong; 2 when the
// benchmark could not run. The peers are installed by bench/setup.sh.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// area is one subject of measurement.
type area struct {
	name, about string
	run         func(context.Context, *session) error
}

func areas() []area {
	return []area{
		{"e2e", "HTTP, three stages and a store: MB/s and CPU beside Tornado + pyzmq + Celery + PostgreSQL", e2e},
		{"process", "200 programs that crash, start, stop and write: beside supervisord and process-compose", processes},
		{"messaging", "streams, fan-out, chains and calls between programs: beside libzmq, pyzmq, nats.go, JetStream and Watermill", messaging},
		{"deploy", "50 resources on 1, 5 and 20 hosts over ssh: beside Ansible", deploys},
		{"tasks", "a queue of tasks: beside Celery, RQ, asynq, River and the publishes and acknowledgements of JetStream alone", tasks},
	}
}

// errWrong is the base of every finding of the checker.
var errWrong = errors.New("wrong result")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, chosen, err := parse(args, stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(stderr, "bench: %v\n", err)
		}
		return 2
	}
	if s.dir, err = os.MkdirTemp(s.base, "hozo-bench-"); err != nil {
		fmt.Fprintf(stderr, "bench: make work folder: %v\n", err)
		return 2
	}
	defer os.RemoveAll(s.dir)
	if s.root, err = moduleRoot(ctx); err == nil {
		s.machine = describeMachine(ctx, s.root)
		err = chosen.run(ctx, s)
	}
	switch {
	case err == nil:
	case errors.Is(err, errWrong):
		s.report.Wrong = strings.Split(err.Error(), "\n")
	default:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	if err := s.print(stdout); err != nil {
		fmt.Fprintf(stderr, "bench: print: %v\n", err)
		return 2
	}
	if len(s.report.Wrong) > 0 {
		return 1
	}
	return 0
}

// session is one run of the command: what was asked for and what was found.
type session struct {
	quick  bool
	asJSON bool
	rounds int
	conns  int
	bytes  int // of events a round
	events string
	only   []string
	base   string

	root    string // of the module
	dir     string // work folder, removed at the end
	machine machine
	report  report
	stderr  io.Writer
}

func parse(args []string, stderr io.Writer) (*session, area, error) {
	s := &session{stderr: stderr}
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench AREA [flags]\n\nareas:")
		for _, a := range areas() {
			fmt.Fprintf(stderr, "  %-9s %s\n", a.name, a.about)
		}
		fmt.Fprintln(stderr, "\nflags:")
		flags.PrintDefaults()
	}
	var only string
	var megabytes int
	flags.BoolVar(&s.quick, "quick", false, "small rounds: done within 45 s")
	flags.BoolVar(&s.asJSON, "json", false, "print one JSON document instead of tables")
	flags.IntVar(&s.rounds, "rounds", 0, "rounds of every contender (default 5, quick 3)")
	flags.IntVar(&megabytes, "mb", 0, "MB of events a round (default 256, quick 64)")
	flags.IntVar(&s.conns, "conns", 4, "connections that send, each in a closed loop")
	flags.StringVar(&s.events, "events", "", "NDJSON `file` (plain or .gz) to send, with new ids, instead of generated events")
	flags.StringVar(&only, "only", "", "`contenders` to run, separated by commas (default all)")
	flags.StringVar(&s.base, "dir", os.TempDir(), "`folder` for the work folder: the disk that is measured")
	if err := flags.Parse(args); err != nil {
		return nil, area{}, err
	}
	if name == "" {
		name = flags.Arg(0)
	}
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	if s.rounds == 0 {
		s.rounds = pick(s.quick, 3, 5)
	}
	if megabytes == 0 {
		megabytes = pick(s.quick, 64, 256)
	}
	s.bytes = megabytes * 1e6
	if s.rounds < 1 || s.bytes < 1 || s.conns < 1 {
		return nil, area{}, errors.New("-rounds, -mb and -conns must be at least 1")
	}
	for _, a := range areas() {
		if a.name == name {
			return s, a, nil
		}
	}
	flags.Usage()
	return nil, area{}, fmt.Errorf("no area %q", name)
}

func pick[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}

// say tells a person what is going on; the results go to standard output.
func (s *session) say(format string, args ...any) { fmt.Fprintf(s.stderr, format+"\n", args...) }

func (s *session) print(w io.Writer) error {
	if s.asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Machine machine `json:"machine"`
			report
		}{s.machine, s.report})
	}
	_, err := io.WriteString(w, s.machine.String()+s.report.String())
	return err
}

// moduleRoot finds the folder of go.mod: the command builds the programs that it measures.
func moduleRoot(ctx context.Context) (string, error) {
	file, err := output(ctx, "", "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	if file == "" || file == os.DevNull {
		return "", errors.New("run it inside the module: go run ./bench")
	}
	return filepath.Dir(file), nil
}
