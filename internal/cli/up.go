package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func newUp(o *options) *cobra.Command {
	var (
		detach  bool
		noBuild bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build and start everything in the manifest",
		Long: `Up builds the services, starts them in the order of their needs and waits until all are ready. Then it follows
their logs; Ctrl-C stops everything. With -d it leaves everything running and returns.

When a service that is essential ends for good, everything stops and up exits as that service did. So it can be the
first process of a container.

When the project is running already, up brings it to what the manifest says now: services that did not change run on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			m, err := o.load()
			if err != nil {
				return err
			}
			state, err := o.stateDir()
			if err != nil {
				return err
			}
			if !noBuild {
				if err := o.build(ctx, m); err != nil {
					return err
				}
			}
			client := node.NewClient(state)
			if err := node.ForgetEnd(state); err != nil {
				return fmt.Errorf("forget how the last run ended: %w", err)
			}
			if err := o.bringUp(ctx, client, state, m, o.saySteps); errors.Is(err, errEnded) {
				return ended(state)
			} else if err != nil {
				return err
			}
			if !detach {
				var stop func()
				ctx, stop = untilEnd(ctx, state)
				defer stop()
			}
			err = o.awaitReady(ctx, client, timeout)
			if detach {
				if err != nil {
					return err
				}
				return o.ps(ctx)
			}
			if err == nil {
				err = o.ps(ctx)
			}
			if err == nil {
				err = o.showLogs(ctx, logsOptions{follow: true, tail: true})
			}
			if errors.Is(err, errEnded) {
				return ended(state)
			}
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
			defer cancel()
			o.say("stopping …")
			if errors.Is(err, errInterrupted) {
				err = nil // Ctrl-C is how a foreground up is meant to end
			}
			return errors.Join(err, o.down(stopCtx, client, state))
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&detach, "detach", "d", false, "leave everything running and return")
	flags.BoolVar(&noBuild, "no-build", false, "do not run the build commands")
	flags.DurationVar(&timeout, "timeout", 90*time.Second, "how long to wait until all services are ready")
	return cmd
}

// saySteps tells what was done.
func (o *options) saySteps(steps []plan.Step) {
	if len(steps) == 0 {
		o.say("nothing to change")
	}
	for _, step := range steps {
		o.say("%s", step)
	}
}

// bringUp starts the keeper of state, or, when one runs already, has its node apply m and gives tell what was done.
func (o *options) bringUp(ctx context.Context, client *node.Client, state string, m *manifest.Manifest, tell func([]plan.Step)) error {
	if probe, err := keeper.Dial(ctx, keeper.SocketPath(state)); err == nil {
		_ = probe.Close() // it was only asked whether it is there
		steps, err := client.Apply(ctx, m.Path, m.Env)
		if err != nil {
			return err
		}
		if tell != nil {
			tell(steps)
		}
		return nil
	}
	exited, err := o.startKeeper(state, m)
	if err != nil {
		return err
	}
	// The keeper answers within milliseconds and its node soon after; 20 s leaves room for a loaded machine.
	return o.poll(ctx, 20*time.Second, func() (bool, error) {
		select {
		case <-exited:
			if _, over := node.LastEnd(state); over {
				return false, errEnded // sooner than anybody looked
			}
			return false, &fault.Error{
				Code: "cli/keeper-ended", What: "the keeper ended at once", Where: keeperLog(state),
				Source: tailFile(keeperLog(state), buildOutputLines), Fix: "correct what its log says",
			}
		default:
		}
		_, err := client.Status(ctx)
		return err == nil, nil
	}, func() error {
		log := filepath.Join(state, "logs", "node.log")
		return &fault.Error{Code: "cli/node-silent", What: "the node does not answer", Where: log, Source: tailFile(log, buildOutputLines), Fix: "correct what its log says, then `hozo down` and `hozo up`"}
	})
}

func keeperLog(state string) string { return filepath.Join(state, "logs", "keeper.log") }

// startKeeper starts a keeper in a session of its own, so that it outlives this command and its terminal. The channel is
// closed when it ends while this command still runs.
func (o *options) startKeeper(state string, m *manifest.Manifest) (<-chan struct{}, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(state, "logs"), 0o700); err != nil {
		return nil, &fault.Error{Code: "cli/no-state", What: "the state folder cannot be made", Where: state, Err: err, Fix: "name another with --state"}
	}
	log, err := os.OpenFile(keeperLog(state), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, &fault.Error{Code: "cli/no-state", What: "the keeper's log cannot be opened", Where: keeperLog(state), Err: err, Fix: "name another folder with --state"}
	}
	defer log.Close()
	cmd := exec.Command(self, "keeper", "--state", state, "--file", m.Path, "--env", m.Env) // it must outlive this command
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	exited := make(chan struct{})
	go func() { // ends with the keeper, or with this process: there is nothing to wait for
		_ = cmd.Wait() // its log says why
		close(exited)
	}()
	return exited, nil
}

// awaitReady waits until every instance runs as it should and the node can say all of streams and queues, and says what
// does not.
func (o *options) awaitReady(ctx context.Context, client *node.Client, timeout time.Duration) error {
	var last status.Snapshot
	err := o.poll(ctx, timeout, func() (bool, error) {
		snapshot, err := client.Status(ctx)
		if err != nil {
			return false, nil // a node that restarts is asked again; the deadline bounds it
		}
		last = snapshot
		return settled(snapshot), failed(snapshot)
	}, func() error {
		var late []string
		for _, i := range instances(last) {
			if !up(i) {
				late = append(late, fmt.Sprintf("%s is %s (%s)", i.Name, i.State, i.Reason))
			}
		}
		if last.Asked.IsZero() {
			late = append(late, "the broker has not answered about every stream and queue")
		}
		return &fault.Error{
			Code: "cli/not-ready", What: fmt.Sprintf("not everything is ready after %s: %s", timeout, strings.Join(late, "; ")),
			Fix: "look at `hozo logs SERVICE`; `hozo down` stops the rest",
		}
	})
	return err
}

// settled reports whether every instance is where it should be, and the node is connected to the broker: who looks at the
// status then finds streams and queues in it.
func settled(s status.Snapshot) bool {
	if s.Asked.IsZero() {
		return false
	}
	for _, i := range instances(s) {
		if !up(i) {
			return false
		}
	}
	return len(instances(s)) > 0
}

func up(i status.Instance) bool {
	return i.State == status.Ready || i.State == status.Exited || i.State == status.Scheduled || i.State == status.Stopped
}

// failed returns the reason why waiting is no use, or nil.
func failed(s status.Snapshot) error {
	for _, i := range instances(s) {
		if i.State == status.Failed {
			return &fault.Error{Code: "cli/failed", What: i.Name + " failed: " + i.Reason, Where: i.Log, Source: tailFile(i.Log, 10), Fix: "correct it, then `hozo up` again; `hozo down` stops the rest"}
		}
	}
	return nil
}

func instances(s status.Snapshot) []status.Instance {
	var all []status.Instance
	for _, service := range s.Services {
		all = append(all, service.Instances...)
	}
	return all
}

// pollEvery is how often a waiting command asks the node: below what a person notices, and cheap.
const pollEvery = 100 * time.Millisecond

// poll asks done until it says true or fails; late makes the error for when the time is over.
func (o *options) poll(ctx context.Context, timeout time.Duration, done func() (bool, error), late func() error) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return late()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
