package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// unit is a unit of systemd, its file included if that is given.
type unit struct {
	name string
	id   string

	Digest   string `json:"digest"`
	Enabled  *bool  `json:"enabled"`
	Running  *bool  `json:"running"`
	OnNotify string `json:"on_notify"`
	Absent   bool   `json:"absent"`
}

func unitKind() Kind {
	return Kind{
		Name: "unit", Is: Text, Doc: "A unit of systemd: nginx, backup.timer. It is restarted when another resource that notifies it has changed.",
		Keys: []Key{
			{Name: "content", Type: Text, Doc: "Its file. Default: one that is there, from a package."},
			{Name: "from", Type: Local, Doc: "File beside the manifest that its file is a copy of; one that ends in .tmpl is a Go template."},
			{Name: "enabled", Type: Bool, Doc: "Whether it starts at boot. Default: as it is."},
			{Name: "running", Type: Bool, Doc: "Whether it runs. Default: as it is."},
			{Name: "on_notify", Type: Text, Doc: "What a notification does: restart (default) or reload."},
			absent("Its file in /etc must not exist, and it must not run."),
		},
		make: func(s Spec) Resource { return &unit{name: s.Name, id: s.ID(), OnNotify: "restart"} },
	}
}

func (u *unit) valid() error {
	if strings.ContainsAny(u.name, "/ \n") || strings.HasPrefix(u.name, "-") {
		return fmt.Errorf("%q is no name of a unit", u.name)
	}
	if u.OnNotify != "restart" && u.OnNotify != "reload" {
		return fmt.Errorf("on_notify is restart or reload, not %q", u.OnNotify)
	}
	return nil
}

// full is the unit's name with its type.
func (u *unit) full() string {
	for _, suffix := range []string{".service", ".timer", ".socket", ".path", ".mount", ".target", ".slice"} {
		if strings.HasSuffix(u.name, suffix) {
			return u.name
		}
	}
	return u.name + ".service"
}

func (u *unit) path() string { return "/etc/systemd/system/" + u.full() }

// Wants implements Blobs.
func (u *unit) Wants(*Host) string {
	if u.Digest == "" || u.Absent || hashFile(u.path()) == u.Digest {
		return ""
	}
	return u.Digest
}

// Check implements Resource.
func (u *unit) Check(ctx context.Context, h *Host) (Change, error) {
	if u.Absent {
		return u.gone(ctx)
	}
	var c Change
	var err error
	if u.Digest != "" {
		if c, err = (attributes{Owner: "root", Group: "root", Mode: "0644"}).put(ctx, h, u.id, u.path(), u.Digest, h.Blob, false); err != nil {
			return c, err
		}
	}
	fileChanged := !c.Empty()
	if fileChanged {
		c.do(Update, "", func(ctx context.Context) error { return must(ctx, u.id, "systemctl", "daemon-reload") })
	}
	state, err := u.state(ctx)
	if err != nil {
		return c, err
	}
	if state["LoadState"] == "not-found" && !fileChanged && !h.installing() {
		return c, failed(u.id, "the host has no such unit", "give it a file with content or from, or install its package before", nil)
	}
	if u.Enabled != nil {
		enabled := state["UnitFileState"] == "enabled" || state["UnitFileState"] == "enabled-runtime"
		fixed := slices.Contains([]string{"static", "indirect", "generated", "alias"}, state["UnitFileState"]) // nothing to enable
		u.toggle(&c, *u.Enabled, enabled || fixed && *u.Enabled, "enable", "disable")
	}
	if u.Running != nil {
		active := slices.Contains([]string{"active", "activating", "reloading"}, state["ActiveState"])
		u.toggle(&c, *u.Running, active, "start", "stop")
	}
	return c, nil
}

func (u *unit) toggle(c *Change, want, have bool, on, off string) {
	verb := on
	if !want {
		verb = off
	}
	if want != have {
		c.do(Update, verb, func(ctx context.Context) error { return must(ctx, u.id, "systemctl", verb, "--", u.full()) })
	}
}

// gone is the change that stops a unit and takes its file away.
func (u *unit) gone(ctx context.Context) (Change, error) {
	c, err := removal(u.id, u.path(), false)
	if err != nil || c.Empty() {
		return c, err
	}
	steps := c.steps
	c.steps = nil
	c.do(Remove, "", func(ctx context.Context) error {
		return must(ctx, u.id, "systemctl", "disable", "--now", "--", u.full())
	})
	c.steps = append(c.steps, steps...)
	c.do(Remove, "", func(ctx context.Context) error { return must(ctx, u.id, "systemctl", "daemon-reload") })
	return c, nil
}

// state asks systemd for what it knows of the unit.
func (u *unit) state(ctx context.Context) (map[string]string, error) {
	out, status, err := command(ctx, "/", "", "systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", "--", u.full())
	if err != nil || status != 0 {
		return nil, failed(u.id, "systemd does not answer: "+lastLines(out, 3), "see whether the host runs systemd", err)
	}
	all := map[string]string{}
	for l := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
		all[k] = v
	}
	return all, nil
}

// Handle implements Notified. A unit that does not run is left so: it will start with what has changed.
func (u *unit) Handle(ctx context.Context, _ *Host) error {
	verb := "try-restart"
	if u.OnNotify == "reload" {
		verb = "try-reload-or-restart"
	}
	return must(ctx, u.id, "systemctl", verb, "--", u.full())
}

// Handling implements Notified.
func (u *unit) Handling() string { return u.OnNotify }
