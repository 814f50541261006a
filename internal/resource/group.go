package resource

import (
	"context"
	"fmt"
	"strconv"
)

// group is a group of the host.
type group struct {
	name string
	id   string

	GID    string `json:"gid"`
	System bool   `json:"system"`
	Absent bool   `json:"absent"`
}

func groupKind() Kind {
	return Kind{
		Name: "group", Is: Text, Doc: "A group of users.",
		Keys: []Key{
			{Name: "gid", Type: Text, Doc: "Its number. Default: the next free one."},
			{Name: "system", Type: Bool, Doc: "A system group, with a low number. Default false."},
			absent("There must be no such group."),
		},
		make: func(s Spec) Resource { return &group{name: s.Name, id: s.ID()} },
	}
}

func (g *group) valid() error {
	if g.GID != "" {
		if _, err := strconv.ParseUint(g.GID, 10, 31); err != nil {
			return fmt.Errorf("gid %q is no number", g.GID)
		}
	}
	return accountName(g.name)
}

// Check implements Resource.
func (g *group) Check(_ context.Context, h *Host) (Change, error) {
	var c Change
	have, err := findGroup(g.name)
	switch {
	case err != nil:
		return c, failed(g.id, "the groups cannot be listed", "look at /etc/group of the host", err)
	case g.Absent && have != nil:
		c.do(Remove, "", func(ctx context.Context) error { return must(ctx, g.id, "groupdel", "--", g.name) })
	case g.Absent:
	case have == nil:
		h.promise("group " + g.name)
		argv, note := []string{"groupadd"}, ""
		if g.GID != "" {
			argv, note = append(argv, "--gid", g.GID), "gid "+g.GID
		}
		if g.System {
			argv = append(argv, "--system")
		}
		c.do(Create, note, func(ctx context.Context) error { return must(ctx, g.id, append(argv, "--", g.name)...) })
	case g.GID != "" && g.GID != strconv.Itoa(have.gid):
		c.do(Update, fmt.Sprintf("gid %d -> %s", have.gid, g.GID), func(ctx context.Context) error {
			return must(ctx, g.id, "groupmod", "--gid", g.GID, "--", g.name)
		})
	}
	return c, nil
}
