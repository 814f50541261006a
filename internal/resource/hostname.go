package resource

import (
	"context"
	"fmt"
	"os"
	"regexp"
)

// hostname is the host's own name, now and after a boot.
type hostname struct{ name, id string }

func hostnameKind() Kind {
	return Kind{
		Name: "hostname", Is: Text, Doc: "The host's own name.",
		make: func(s Spec) Resource { return &hostname{s.Name, s.ID()} },
	}
}

func (n *hostname) valid() error {
	if !regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$`).MatchString(n.name) {
		return fmt.Errorf("%q is no name of a host", n.name)
	}
	return nil
}

// Check implements Resource.
func (n *hostname) Check(ctx context.Context, h *Host) (Change, error) {
	text := n.name + "\n"
	c, err := (attributes{Owner: "root", Group: "root", Mode: "0644"}).put(ctx, h, n.id, "/etc/hostname", Digest([]byte(text)), inline([]byte(text)), false)
	if err != nil {
		return c, err
	}
	now, err := os.Hostname()
	if err != nil {
		return c, failed(n.id, "the name cannot be read", "look at the host", err)
	}
	if now != n.name {
		c.do(Update, now+" -> "+n.name, func(context.Context) error {
			if err := setHostname(n.name); err != nil {
				return failed(n.id, "the name could not be set", "see whether the host is a container that may not", err)
			}
			return nil
		})
	}
	return c, nil
}
