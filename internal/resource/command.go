package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// run is a command that is run when something says that it has to be: a path that is missing, a command that fails, or
// another resource that has changed.
type run struct {
	name string
	id   string

	Run     []string `json:"run"`
	Creates string   `json:"creates"`
	Unless  []string `json:"unless"`
	Checked []string `json:"check"`
	User    string   `json:"user"`
	Dir     string   `json:"dir"`
}

func commandKind() Kind {
	return Kind{
		Name: "command", Is: Text, Doc: "A command, under a name. It must say when it is needed: creates, unless, check, or another resource notifies it.",
		Keys: []Key{
			{Name: "run", Type: Argv, Doc: "The command line, run without a shell.", Required: true},
			{Name: "creates", Type: Path, Doc: "Run it only while this path does not exist."},
			{Name: "unless", Type: Argv, Doc: "Run it only when this command fails. It must change nothing: a plan runs it too."},
			{Name: "check", Type: Argv, Doc: "Run it when this command exits with 2, not when with 0; what it writes is shown in the plan. It must change nothing."},
			{Name: "user", Type: Text, Doc: "As whom. Default root."},
			{Name: "dir", Type: Path, Doc: "Where. Default /."},
		},
		make: func(s Spec) Resource { return &run{name: s.Name, id: s.ID(), Dir: "/"} },
	}
}

// OnlyNotified reports whether nothing but a notification makes a command run.
func OnlyNotified(s Spec) bool {
	return s.Kind == "command" && s.With["creates"] == nil && s.With["unless"] == nil && s.With["check"] == nil
}

// Check implements Resource.
func (r *run) Check(ctx context.Context, h *Host) (Change, error) {
	var c Change
	apply := func(ctx context.Context) error { return r.Handle(ctx, h) }
	switch {
	case r.Creates != "":
		_, err := os.Lstat(r.Creates)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return c, failed(r.id, r.Creates+" cannot be looked at", "correct the path", err)
		}
		c.do(Run, r.Creates+" does not exist", func(ctx context.Context) error {
			if err := apply(ctx); err != nil {
				return err
			}
			if _, err := os.Lstat(r.Creates); err != nil {
				return failed(r.id, "it ended well, but "+r.Creates+" does not exist", "correct creates, or the command", nil)
			}
			return nil
		})
	case len(r.Unless) > 0 || len(r.Checked) > 0:
		return r.asked(ctx, h, apply)
	}
	return c, nil
}

// asked runs unless or check.
func (r *run) asked(ctx context.Context, h *Host, apply func(context.Context) error) (Change, error) {
	var c Change
	argv := r.Unless
	if len(argv) == 0 {
		argv = r.Checked
	}
	out, status, err := command(ctx, r.Dir, r.User, argv...)
	if err != nil {
		if len(h.promised) > 0 { // what it asks with, or as whom, may come with an earlier change
			c.do(Run, "once what comes before it is there", nil)
			return c, nil
		}
		return c, failed(r.id, strings.Join(argv, " ")+" could not be run", "correct it, or install what it needs before", err)
	}
	switch {
	case status == 0:
	case len(r.Unless) > 0:
		c.do(Run, fmt.Sprintf("%s ended with status %d", strings.Join(argv, " "), status), apply)
	case status == 2:
		c.Diff = out
		c.do(Run, "", apply)
	default:
		return c, failed(r.id, fmt.Sprintf("check ended with status %d, which is neither 0 (nothing to do) nor 2 (something to do): %s", status, lastLines(out, 20)), "correct the check", nil)
	}
	return c, nil
}

// Handle implements Notified.
func (r *run) Handle(ctx context.Context, _ *Host) error {
	out, status, err := command(ctx, r.Dir, r.User, r.Run...)
	if err != nil {
		return failed(r.id, strings.Join(r.Run, " ")+" could not be run", "correct it, or install it before", err)
	}
	if status != 0 {
		return failed(r.id, fmt.Sprintf("%s ended with status %d: %s", strings.Join(r.Run, " "), status, lastLines(out, 20)), "correct what it says", nil)
	}
	return nil
}

// Handling implements Notified.
func (r *run) Handling() string { return "run" }
