package resource

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// user is an account of the host. It is made without a password, so that only keys let it in.
type user struct {
	name string
	id   string

	UID    string   `json:"uid"`
	Group  string   `json:"group"`
	Groups []string `json:"groups"`
	Home   string   `json:"home"`
	Shell  string   `json:"shell"`
	System bool     `json:"system"`
	Absent bool     `json:"absent"`
}

func userKind() Kind {
	return Kind{
		Name: "user", Is: Text, Doc: "A user of the host, without a password.",
		Keys: []Key{
			{Name: "uid", Type: Text, Doc: "Its number. Default: the next free one."},
			{Name: "group", Type: Text, Doc: "Its own group. Default: one of its name."},
			{Name: "groups", Type: Words, Doc: "Further groups that it must be in; it may be in others."},
			{Name: "home", Type: Path, Doc: "Its home. Default /home/NAME; a system user has none that exists."},
			{Name: "shell", Type: Path, Doc: "Its shell. Default /bin/bash, for a system user /usr/sbin/nologin."},
			{Name: "system", Type: Bool, Doc: "A system user, with a low number and no home. Default false."},
			absent("There must be no such user; its home stays."),
		},
		make: func(s Spec) Resource { return &user{name: s.Name, id: s.ID()} },
	}
}

func (u *user) valid() error {
	if err := accountName(u.name); err != nil {
		return err
	}
	if u.UID != "" {
		if _, err := strconv.ParseUint(u.UID, 10, 31); err != nil {
			return fmt.Errorf("uid %q is no number", u.UID)
		}
	}
	return nil
}

func accountName(name string) error {
	ok := name != "" && len(name) <= 32 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) && name[0] != '-' && (name[0] < '0' || name[0] > '9')
	if !ok {
		return fmt.Errorf("%q is no name of an account: lower-case letters, digits, _ and -, at most 32", name)
	}
	return nil
}

// Check implements Resource.
func (u *user) Check(_ context.Context, h *Host) (Change, error) {
	var c Change
	have, err := findUser(u.name)
	if err != nil {
		return c, failed(u.id, "the users cannot be listed", "look at /etc/passwd of the host", err)
	}
	if u.Absent {
		if have != nil {
			c.do(Remove, "", func(ctx context.Context) error { return must(ctx, u.id, "userdel", "--", u.name) })
		}
		return c, nil
	}
	for _, g := range append(slices.Clone(u.Groups), u.Group) {
		if _, _, _, err := h.owner("", g); err != nil {
			return c, failed(u.id, err.Error(), "add group: "+g+" before it", nil)
		}
	}
	if have == nil {
		h.promise("user " + u.name)
		c.do(Create, strings.Join(u.words(), " "), func(ctx context.Context) error { return must(ctx, u.id, u.add()...) })
		return c, nil
	}
	return c, u.modify(&c, have)
}

func (u *user) modify(c *Change, have *account) error {
	var args []string
	differs := func(what, flag, has, wants string) {
		if wants != "" && has != wants {
			c.Notes = append(c.Notes, fmt.Sprintf("%s %s -> %s", what, has, wants))
			args = append(args, flag, wants)
		}
	}
	differs("uid", "--uid", strconv.Itoa(have.uid), u.UID)
	differs("home", "--home", have.home, u.Home)
	differs("shell", "--shell", have.shell, u.Shell)
	if u.Group != "" {
		if g, err := findGroup(u.Group); err != nil {
			return err
		} else if g == nil || g.gid != have.gid {
			differs("group", "--gid", groupName(have.gid), u.Group)
		}
	}
	all, err := readGroups()
	if err != nil {
		return err
	}
	var join []string
	for _, name := range u.Groups {
		i := slices.IndexFunc(all, func(g team) bool { return g.name == name })
		if i < 0 || !slices.Contains(all[i].members, u.name) && all[i].gid != have.gid {
			join = append(join, name)
		}
	}
	if len(join) > 0 {
		c.Notes = append(c.Notes, "joins "+strings.Join(join, ", "))
		args = append(args, "--append", "--groups", strings.Join(join, ","))
	}
	if len(args) > 0 {
		argv := append(append([]string{"usermod"}, args...), "--", u.name)
		c.do(Update, "", func(ctx context.Context) error { return must(ctx, u.id, argv...) })
	}
	return nil
}

// words are what the user is made with, as useradd's flags.
func (u *user) words() []string {
	var w []string
	flag := func(name, value string) {
		if value != "" {
			w = append(w, name, value)
		}
	}
	flag("--uid", u.UID)
	flag("--gid", u.Group)
	flag("--groups", strings.Join(u.Groups, ","))
	flag("--home-dir", u.Home)
	shell := u.Shell
	if shell == "" {
		shell = "/bin/bash"
		if u.System {
			shell = "/usr/sbin/nologin"
		}
	}
	flag("--shell", shell)
	if u.System {
		return append(w, "--system")
	}
	return append(w, "--create-home")
}

func (u *user) add() []string {
	argv := append([]string{"useradd"}, u.words()...)
	if u.Group == "" {
		if g, err := findGroup(u.name); err == nil && g != nil {
			argv = append(argv, "--gid", u.name) // its group is there already
		} else {
			argv = append(argv, "--user-group")
		}
	}
	// "*" is a password that nothing matches; without it sshd may refuse the account as locked.
	return append(argv, "--password", "*", "--", u.name)
}
