package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy"
	"github.com/hozo-dev/hozo/internal/deploy/agent"
)

// remote are the flags of commands that go to the hosts of an environment.
type remote struct {
	hosts        []string
	sudoPassword bool
	yes          bool
	out          string // where a plan is saved
}

func (r *remote) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&r.hosts, "host", nil, "only this host of the environment; may be given several times")
	cmd.Flags().BoolVar(&r.sudoPassword, "sudo-password", false, "ask for the password of sudo, or take it from HOZO_SUDO_PASSWORD")
}

func newDeploy(o *options) *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "deploy -e ENV [PLAN]",
		Short: "Bring the hosts of an environment to what the manifest says",
		Long: `Deploy looks at every host of the environment over ssh, shows what differs as plan does, asks, and then changes all hosts
at once. What is under host in the manifest is what hosts must have. Doing it again does nothing.

Nothing is changed anywhere if one host cannot be looked at. A host that fails while it is changed stops no other; what it
has left to do, notifications included, is done by the next deploy. So is what a killed deploy has left.

With a PLAN that "plan -o" has saved, it refuses if a host differs from what was planned.

A host needs sshd and a shell. The first deploy sends it a copy of this program; that host's key must be known.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			saved := ""
			if len(args) == 1 {
				saved = args[0]
			}
			return o.deploy(cmd.Context(), r, saved)
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return o.jsonFlag(cmd)
}

// savedPlan is the file that plan -o writes and deploy reads.
type savedPlan struct {
	Project string            `json:"project"`
	Env     string            `json:"env"`
	Hosts   []deploy.HostPlan `json:"hosts"`
}

func (o *options) deploy(ctx context.Context, r remote, planFile string) error {
	cfg, err := o.deployConfig(r)
	if err != nil {
		return err
	}
	var saved *savedPlan
	if planFile != "" {
		if saved, err = o.readPlan(planFile, cfg); err != nil {
			return err
		}
	}
	if !r.yes && saved == nil && (o.json || !o.interactive()) {
		return &fault.Error{Code: "cli/must-ask", Kind: fault.Misuse, What: "deploy asks before it changes hosts, and nobody is there to answer", Fix: "give it -y, or a plan that plan -o has saved"}
	}
	enc := json.NewEncoder(o.env.Stdout)
	cfg.Event = func(e deploy.Event) {
		if o.json {
			_ = enc.Encode(e) // a closed stdout must not stop a deploy in the middle
			return
		}
		o.tellEvent(e)
	}
	refused := false
	cfg.Approve = func(plans []deploy.HostPlan) (bool, error) {
		if saved != nil {
			if err := saved.still(plans); err != nil {
				return false, err
			}
		}
		if !o.json {
			if err := o.printHostPlans(plans); err != nil {
				return false, err
			}
		}
		if r.yes || saved != nil || !pending(plans) {
			return pending(plans), nil
		}
		yes, err := o.ask(ctx, fmt.Sprintf("Change %d of %d hosts?", count(plans), len(plans)))
		refused = !yes
		return yes, err
	}
	_, results, err := deploy.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if refused {
		o.say("nothing was changed")
		return &exit{1, nil}
	}
	if o.json {
		return enc.Encode(map[string]any{"results": append([]deploy.Result{}, results...)})
	}
	for _, one := range results {
		o.say("%s: %d changed, %d notified", one.Host, one.Changed, one.Handled)
	}
	return nil
}

func pending(plans []deploy.HostPlan) bool { return count(plans) > 0 }

// count is how many hosts differ.
func count(plans []deploy.HostPlan) int {
	n := 0
	for _, p := range plans {
		if p.Pending() {
			n++
		}
	}
	return n
}

// still says whether hosts differ as they did when the plan was saved.
func (s *savedPlan) still(plans []deploy.HostPlan) error {
	was := map[string]string{}
	for _, p := range s.Hosts {
		was[p.Host] = p.Digest
	}
	var moved []string
	for _, p := range plans {
		if was[p.Host] != p.Digest {
			moved = append(moved, p.Host)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	return &fault.Error{Code: "deploy/stale-plan", What: "the manifest, or the host itself, has changed since the plan was made: " + strings.Join(moved, ", "), Fix: "make a new plan and look at it"}
}

func (o *options) readPlan(path string, cfg deploy.Config) (*savedPlan, error) {
	text, err := os.ReadFile(o.abs(path))
	if err != nil {
		return nil, &fault.Error{Code: "cli/no-plan", Kind: fault.Misuse, What: "the plan cannot be read", Where: path, Fix: "make one with plan -o " + path, Err: err}
	}
	var s savedPlan
	if err := json.Unmarshal(text, &s); err != nil || len(s.Hosts) == 0 {
		return nil, &fault.Error{Code: "cli/no-plan", Kind: fault.Misuse, What: "this is no plan", Where: path, Fix: "make one with plan -o " + path, Err: err}
	}
	if s.Project != cfg.Project || s.Env != cfg.Env {
		return nil, &fault.Error{Code: "cli/no-plan", Kind: fault.Misuse, What: fmt.Sprintf("the plan is of %s in %s", s.Project, s.Env), Where: path, Fix: "deploy it there"}
	}
	return &s, nil
}

// deployConfig reads the manifest and everything that goes to the hosts. It connects to nothing.
func (o *options) deployConfig(r remote) (deploy.Config, error) {
	m, err := o.load()
	if err != nil {
		return deploy.Config{}, err
	}
	hosts, err := deploy.Hosts(m, r.hosts)
	if err != nil {
		return deploy.Config{}, err
	}
	cfg := deploy.Config{Project: m.Project, Env: m.Env, Hosts: hosts, By: whoami(), Getenv: o.env.Getenv, SudoPassword: o.env.Getenv("HOZO_SUDO_PASSWORD"), Home: o.env.Getenv("HOME")}
	if r.sudoPassword && cfg.SudoPassword == "" {
		if cfg.SudoPassword, err = o.readPassword(); err != nil {
			return deploy.Config{}, err
		}
	}
	return cfg, nil
}

// whoami names who deploys: user@machine.
func whoami() string {
	name, host := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

func (o *options) interactive() bool {
	in, ok := o.env.Stdin.(*os.File)
	return ok && term.IsTerminal(int(in.Fd()))
}

func (o *options) readPassword() (string, error) {
	in, ok := o.env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", &fault.Error{Code: "cli/must-ask", Kind: fault.Misuse, What: "nobody is there to be asked for the password", Fix: "give it in HOZO_SUDO_PASSWORD"}
	}
	_, _ = fmt.Fprint(o.env.Stderr, "Password of sudo: ") // a closed stderr has no reader to tell
	text, err := term.ReadPassword(int(in.Fd()))
	o.say("")
	return string(text), err
}

// ask waits for y or anything else; Ctrl-C and the end of input are no.
func (o *options) ask(ctx context.Context, question string) (bool, error) {
	_, _ = fmt.Fprint(o.env.Stderr, question+" [y/N] ") // a closed stderr has no reader to tell
	answered := make(chan string, 1)
	go func() { // ends with the process at the latest: a terminal's read cannot be taken back
		line, _ := bufio.NewReader(o.env.Stdin).ReadString('\n') // the end of input is no answer
		answered <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answered:
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// newAgent is what runs on hosts; deploy starts it there.
func newAgent(_ *options) *cobra.Command {
	return &cobra.Command{
		Use: "agent", Short: "The far end of a deploy", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := agent.Main(cmd.Context(), agent.Config{}); err != nil {
				return &exit{1, errors.Join(err)}
			}
			return nil
		},
	}
}
