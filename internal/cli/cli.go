// Package cli is the command line of Hozo: one file a command. Standard output carries data, standard error carries
// talk; exit status 0 is done, 1 is failed, 2 is misused.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

// Env is what a command sees of the world, so that tests need no process.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	Dir    string // working directory
}

// OS is the Env of this process.
func OS() Env {
	dir, err := os.Getwd()
	if err != nil {
		dir = "." // a deleted working directory; commands that need it will say so
	}
	return Env{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Dir: dir}
}

// errInterrupted is the cause of the context of a command that Ctrl-C ended.
var errInterrupted = errors.New("interrupted")

// Main runs the command that env.Args names and returns the process's exit status.
func Main(ctx context.Context, env Env) int {
	if len(env.Args) > 0 && env.Args[0] == keeper.ShimCommand {
		return report(env, keeper.ExecShim(env.Args[1:], os.Environ()))
	}
	if status, ok := supervisordShim(env, os.Environ()); ok {
		return status
	}
	ctx, stop := signalContext(ctx)
	defer stop()
	root := newRoot(env)
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if errors.Is(err, errInterrupted) {
		return 130 // the shell's convention for a program that Ctrl-C ended
	}
	if status, ok := supervisordTold(err); ok {
		return status
	}
	if status, ok := errors.AsType[*exitError](err); ok {
		report(env, status.err)
		return status.code
	}
	return report(env, err)
}

// signalContext returns a context that the first SIGINT or SIGTERM ends; the second ends the process as usual.
func signalContext(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-signals:
			signal.Stop(signals)
			cancel(errInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		<-finished
		signal.Stop(signals)
		cancel(nil)
	}
}

func report(env Env, err error) int {
	if err == nil {
		return 0
	}
	own, isOwn := errors.AsType[*exit](err)
	if isOwn && own.err == nil {
		return own.status
	}
	text := fault.Render(err)
	if newPainter(env.Stderr, env).on {
		text = strings.ReplaceAll(text, "error: ", "\x1b[31merror:\x1b[0m ")
	}
	_, _ = io.WriteString(env.Stderr, text) // nobody is left to tell
	if isOwn {
		return own.status
	}
	return fault.ExitCode(err)
}

// options are the flags of every command.
type options struct {
	env      Env
	file     string
	manifest string // name of the environment
	state    string
	json     bool
}

func newRoot(env Env) *cobra.Command {
	o := &options{env: env}
	root := &cobra.Command{
		Use:   "hozo",
		Short: "Run a set of small programs as one service",
		Long: `Hozo starts the programs of a hozo.yaml, connects them by messages, queues their slow work,
keeps them alive and shows what they do.

  hozo up          start everything and follow its logs; Ctrl-C stops it
  hozo up -d       start everything and leave it running
  hozo plan        what apply would do, and why
  hozo apply       bring what runs to what the manifest says, touching nothing else
  hozo status      what runs, what flows, what is wrong`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&o.file, "file", "", "the manifest (default: hozo.yaml here or in a folder above)")
	root.PersistentFlags().StringVarP(&o.manifest, "env", "e", "", "environment of the manifest to lay over it")
	root.PersistentFlags().StringVar(&o.state, "state", "", "folder of the running project's state (default: .hozo beside the manifest)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misuse(cmd, err) })
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "see", Title: "See:"},
		&cobra.Group{ID: "data", Title: "Data:"},
		&cobra.Group{ID: "manifest", Title: "Manifest:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newUp(o), newApply(o), newDown(o), newStart(o), newStop(o), newRestart(o), newRun(o), newUpgrade(o), newScale(o), newWait(o), newSupervisord(o))
	add("see", newPs(o), newStatus(o), newLogs(o), newGraph(o), newTop(o), newTap(o), newAccess(o))
	add("data", newSend(o), newStream(o), newClient(o), newDLQ(o), newTask(o), newReplay(o))
	add("manifest", newValidate(o), newPlan(o), newDeploy(o), newConfig(o), newSchema(o), newImport(o))
	root.AddCommand(newVersion(o), newAgent(o), newKeeper(o), newNode(o), newBroker(o), newService(o))
	markMisuse(root)
	return root
}

// markMisuse makes wrong arguments of every command a Misuse fault with the command's usage as its fix.
func markMisuse(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return misuse(cmd, err)
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		markMisuse(c)
	}
}

func misuse(cmd *cobra.Command, err error) error {
	what := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " ")
	return &fault.Error{Code: "cli/usage", Kind: fault.Misuse, What: what, Fix: "usage: " + cmd.UseLine() + "; `" + cmd.CommandPath() + " --help` says more"}
}

// painter colours text for a person; on anything but a terminal it does nothing.
type painter struct{ on bool }

func newPainter(w io.Writer, env Env) painter {
	file, ok := w.(*os.File)
	return painter{ok && term.IsTerminal(int(file.Fd())) && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"}
}

func (p painter) paint(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p painter) bold(s string) string   { return p.paint("1", s) }
func (p painter) dim(s string) string    { return p.paint("2", s) }
func (p painter) red(s string) string    { return p.paint("31", s) }
func (p painter) green(s string) string  { return p.paint("32", s) }
func (p painter) yellow(s string) string { return p.paint("33", s) }
