package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
)

func newUpgrade(o *options) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the platform's processes by the binary on disk; services run on",
		Long: `Upgrade makes the running keeper, node, broker and standby this version of Hozo, one after the other, and waits until
each is ready. Put the new binary in the place of the old one (mv, not cp: the old one runs), then run upgrade.

Services keep their processes, sockets and logs. While the node and the broker are replaced nothing is probed or
restarted for a moment, and what is published waits in its sender. Built-in services get the new version when they are
restarted the next time.

When a part does not get ready in the new version, all are put back to the version that ran, and upgrade exits with 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := o.stateDir()
			if err != nil {
				return err
			}
			u := &upgrade{o: o, state: state, client: node.NewClient(state), timeout: timeout}
			u.report.Parts = []upgradedPart{}
			err = u.run(cmd.Context())
			if o.json && u.report.Executable != "" {
				err = errors.Join(err, o.printJSON(u.report))
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait until a part is ready")
	return o.jsonFlag(cmd)
}

// upgrade is one run of the command.
type upgrade struct {
	o       *options
	state   string
	client  *node.Client
	timeout time.Duration
	hello   keeper.Hello // of the keeper as it runs now
	report  upgradeReport
}

// upgradeReport is what --json prints.
type upgradeReport struct {
	Executable string         `json:"executable"`
	From       string         `json:"from"` // version that ran
	To         string         `json:"to"`   // version of the binary
	Parts      []upgradedPart `json:"parts"`
	Reverted   bool           `json:"reverted"` // a part did not get ready, and the old version runs again
}

type upgradedPart struct {
	Name    string  `json:"name"`
	Before  int     `json:"pid_before"`
	After   int     `json:"pid_after"`
	Seconds float64 `json:"seconds"` // until it was ready
}

func (u *upgrade) run(ctx context.Context) error {
	k, err := keeper.Dial(ctx, keeper.SocketPath(u.state))
	if err != nil {
		return err
	}
	u.hello, err = k.Hello(ctx)
	if err = errors.Join(err, k.Close()); err != nil {
		return err
	}
	if err := u.check(); err != nil {
		return err
	}
	u.report.Executable, u.report.From, u.report.To = u.hello.Executable, u.hello.Version, Version
	steps := []struct {
		name string
		do   func(context.Context) (before, after int, err error)
	}{{"keeper", u.keeper}, {"node", u.node}, {"broker", u.broker}, {"standby", u.standby}}
	for _, step := range steps {
		began := time.Now()
		before, after, err := step.do(ctx)
		if err != nil {
			return u.revert(ctx, step.name, err)
		}
		took := time.Since(began)
		u.report.Parts = append(u.report.Parts, upgradedPart{step.name, before, after, took.Seconds()})
		if !u.o.json {
			u.o.say("%-8s %s → %s  process %d → %d  %s", step.name, u.report.From, u.report.To, before, after, took.Round(time.Millisecond))
		}
	}
	return nil
}

// check refuses what cannot work before anything is touched.
func (u *upgrade) check() error {
	refuse := func(what, fix string) error {
		return &fault.Error{Code: "cli/skew", What: what, Where: u.state, Fix: fix}
	}
	again := "`hozo down` with the version that runs, then `hozo up` with the other"
	switch {
	case u.hello.State == 0 || u.hello.Executable == "":
		return refuse(fmt.Sprintf("the keeper (%s) is of a version that cannot be upgraded while services run", u.hello.Version), again)
	case u.hello.Protocol > keeper.ProtocolVersion || u.hello.State > keeper.StateFormat:
		return refuse(fmt.Sprintf("the keeper (%s) is newer than this binary (%s), which cannot read what it leaves", u.hello.Version, Version), again)
	case u.hello.Standby == 0:
		return refuse("the keeper has no standby, which would take over if the new version failed", again)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	mine, err := os.Stat(self)
	if err != nil {
		return err
	}
	if theirs, err := os.Stat(u.hello.Executable); err != nil || !os.SameFile(mine, theirs) {
		return &fault.Error{
			Code: "cli/other-binary", Kind: fault.Misuse, What: "the project runs from another place than this binary, " + self,
			Where: u.hello.Executable, Fix: "mv the new binary there, then run `" + u.hello.Executable + " upgrade`",
		}
	}
	return nil
}

// ask sends the keeper one upgrade request.
func (u *upgrade) ask(ctx context.Context, request keeper.Upgrade) error {
	request.State = keeper.StateFormat
	k, err := keeper.Dial(ctx, keeper.SocketPath(u.state))
	if err != nil {
		return err
	}
	return errors.Join(k.Upgrade(ctx, request), k.Close())
}

// await asks the keeper until done holds of its answers.
func (u *upgrade) await(ctx context.Context, part string, done func(keeper.Hello, []keeper.Process) (bool, error)) error {
	return u.o.poll(ctx, u.timeout, func() (bool, error) {
		hello, processes, err := u.look(ctx)
		if err != nil {
			return false, nil // it is being replaced; the deadline bounds it
		}
		u.hello = hello
		return done(hello, processes)
	}, func() error {
		return &fault.Error{Code: "cli/not-ready", What: fmt.Sprintf("the %s of version %s is not ready after %s", part, Version, u.timeout)}
	})
}

func (u *upgrade) look(ctx context.Context) (keeper.Hello, []keeper.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	k, err := keeper.Dial(ctx, keeper.SocketPath(u.state))
	if err != nil {
		return keeper.Hello{}, nil, err
	}
	defer k.Close()
	hello, err := k.Hello(ctx)
	if err != nil {
		return keeper.Hello{}, nil, err
	}
	processes, _, err := k.List(ctx)
	return hello, processes, err
}

// keeper has the keeper become the binary. It keeps its pid when it gets ready; else the standby has started another.
func (u *upgrade) keeper(ctx context.Context) (before, after int, err error) {
	old := u.hello
	return old.PID, old.PID, u.become(ctx, keeper.Upgrade{Part: keeper.PartKeeper, Executable: old.Executable})
}

func (u *upgrade) become(ctx context.Context, request keeper.Upgrade) error {
	old := u.hello
	if err := u.ask(ctx, request); err != nil {
		return err
	}
	return u.await(ctx, "keeper", func(h keeper.Hello, _ []keeper.Process) (bool, error) {
		if h.PID != old.PID {
			return false, &fault.Error{
				Code: "cli/not-ready", What: "the keeper ended in its new version, and the standby has started the old one",
				Where: keeperLog(u.state), Source: tailFile(keeperLog(u.state), buildOutputLines),
			}
		}
		return h.Started.After(old.Started), nil
	})
}

// node has the keeper start the node again, and waits until it has adopted everything.
func (u *upgrade) node(ctx context.Context) (before, after int, err error) {
	old := u.nodeProcess(ctx)
	if err := u.ask(ctx, keeper.Upgrade{Part: keeper.PartNode}); err != nil {
		return old.PID, 0, err
	}
	err = u.await(ctx, "node", func(_ keeper.Hello, all []keeper.Process) (bool, error) {
		i := slices.IndexFunc(all, func(p keeper.Process) bool { return p.Name == keeper.NodeName })
		if i < 0 || all[i].Run == old.Run || all[i].Exit != nil || !all[i].Ready {
			return false, nil
		}
		after = all[i].PID
		return true, nil
	})
	return old.PID, after, err
}

func (u *upgrade) nodeProcess(ctx context.Context) keeper.Process {
	_, all, err := u.look(ctx)
	if i := slices.IndexFunc(all, func(p keeper.Process) bool { return p.Name == keeper.NodeName }); err == nil && i >= 0 {
		return all[i]
	}
	return keeper.Process{}
}

// broker has the node restart the broker and waits until it is ready.
func (u *upgrade) broker(ctx context.Context) (before, after int, err error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	before = u.platformPID(ctx, "broker")
	err = u.client.Restart(ctx, "broker")
	return before, u.platformPID(ctx, "broker"), err
}

func (u *upgrade) platformPID(ctx context.Context, name string) int {
	s, err := u.client.Status(ctx)
	i := slices.IndexFunc(s.Platform, func(p status.Process) bool { return p.Name == name })
	if err != nil || i < 0 {
		return 0
	}
	return s.Platform[i].PID
}

// standby is the last: until then it can start the old version.
func (u *upgrade) standby(ctx context.Context) (before, after int, err error) {
	old := u.hello
	if err := u.ask(ctx, keeper.Upgrade{Part: keeper.PartStandby, Executable: old.Executable}); err != nil {
		return old.Standby, 0, err
	}
	err = u.await(ctx, "standby", func(h keeper.Hello, _ []keeper.Process) (bool, error) {
		return h.StandbyStarted.After(old.StandbyStarted), nil
	})
	return old.Standby, u.hello.Standby, err
}

// revert puts back what was upgraded before the part that failed, and returns the command's error.
func (u *upgrade) revert(ctx context.Context, part string, cause error) error {
	what := fmt.Sprintf("the %s does not get ready in version %s: %v", part, Version, cause)
	failed := &fault.Error{Code: "cli/upgrade", What: what, Where: keeperLog(u.state), Fix: "correct what its log says; version " + u.report.From + " runs on"}
	if part == "standby" {
		failed.What += "; everything else runs in the new version"
		failed.Fix = "run `hozo upgrade` again"
		return failed
	}
	if part == "node" {
		failed.Where = filepath.Join(u.state, "logs", "node.log")
	}
	failed.Source = tailFile(failed.Where, buildOutputLines)
	ctx = context.WithoutCancel(ctx) // a Ctrl-C must not leave half of it; each step is bounded
	var errs []error
	if part != "keeper" {
		u.o.say("%s failed, version %s is put back", part, u.report.From)
		errs = append(errs, u.become(ctx, keeper.Upgrade{Part: keeper.PartKeeper}))
		_, _, err := u.node(ctx)
		errs = append(errs, err)
	}
	if part == "broker" {
		_, _, err := u.broker(ctx)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		failed.Fix = "look at `hozo status`"
		return errors.Join(failed, fmt.Errorf("put version %s back: %w", u.report.From, err))
	}
	u.report.Reverted = true
	return failed
}
