package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// credentialLife is how long a password opens new connections. A node that is away for less is not noticed by
	// anybody; longer, and what is connected stays connected.
	credentialLife = time.Hour

	// credentialAge is the age at which a password is replaced: a stolen one is of no use after that and credentialGrace.
	credentialAge = 15 * time.Minute

	// credentialGrace is how long a replaced password is still good: the owner needs milliseconds to take the new one, a
	// program of another language that looks at its file now and then a few seconds.
	credentialGrace = time.Minute

	// credentialTick is how often is looked for passwords that are due. It is also how long it takes after the clock has
	// jumped ahead until services can connect again.
	credentialTick = 5 * time.Second
)

// dueForReplacement reports whether the password of g is old enough. One without an end is of an earlier version.
func dueForReplacement(g wire.Grant) bool {
	left := time.Until(g.Expires)
	// More than its whole life is left after the clock went back: it would stay good for too long.
	return left < credentialLife-credentialAge || left > credentialLife+credentialTick
}

// install lets the instances of grants in and gives each its grant. First the broker knows the new passwords beside the
// old, then the files change, and then the instances are told.
func (n *Node) install(m *manifest.Manifest, password string, grants []wire.Grant) error {
	before := map[string]string{}
	for _, g := range grants {
		if old, err := wire.ReadGrant(n.state.grant(g.User)); err == nil {
			before[g.User] = old.Password
		}
	}
	// An instance that goes may need its credential until it has drained.
	if err := n.writeAccess(password, append(leaving(n.state, grants), grants...)); err != nil {
		return err
	}
	if err := writeGrants(n.state, m, grants); err != nil {
		return err
	}
	for _, g := range grants {
		if old, ok := before[g.User]; ok && old != g.Password {
			// Who does not hear it is disconnected when the old password's time is over, and connects with the new one.
			_ = n.nats.Publish(wire.CredentialSubject(g.Inbox), nil)
		}
	}
	return nil
}

func (n *Node) writeAccess(password string, grants []wire.Grant) error {
	return broker.WriteAccessOver(n.state.broker(), withClients(accessOf(password, grants), n.foreign), time.Now(), credentialGrace)
}

// replaceCredentials gives every instance a new password in time, until ctx ends.
func (n *Node) replaceCredentials(ctx context.Context) error {
	tick := time.NewTicker(credentialTick)
	defer tick.Stop()
	failing := false
	for {
		_, err := n.rotate(ctx, dueForReplacement)
		if err != nil && !failing && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "credentials cannot be replaced", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// rotate replaces the passwords that due selects and returns whose they are.
func (n *Node) rotate(_ context.Context, due func(wire.Grant) bool) ([]string, error) {
	n.applying.Lock()
	defer n.applying.Unlock()
	m := n.current()
	if m == nil {
		return nil, nil
	}
	var users []string
	grants, err := grantsOf(m, n.state, func(g wire.Grant) bool {
		if due(g) {
			users = append(users, g.User)
			return true
		}
		return false
	})
	if err != nil || len(users) == 0 {
		return nil, err
	}
	password, err := n.state.password()
	if err != nil {
		return nil, err
	}
	return users, n.install(m, password, grants)
}

// Rotation is what a replacement of credentials has done.
type Rotation struct {
	Instances []string  `json:"instances"` // whose passwords were replaced
	Until     time.Time `json:"until"`     // when the old ones stop being good
}

// rotateServices replaces the passwords of services, or of all when none is named.
func (n *Node) rotateServices(ctx context.Context, services []string) (Rotation, error) {
	m := n.current()
	if m == nil {
		return Rotation{}, errNoManifest
	}
	for _, name := range services {
		if !slices.ContainsFunc(m.Services, func(s manifest.Service) bool { return s.Name == name }) {
			return Rotation{}, unknownService(m, name)
		}
	}
	users, err := n.rotate(ctx, func(g wire.Grant) bool { return len(services) == 0 || slices.Contains(services, g.Service) })
	if users == nil {
		users = []string{}
	}
	return Rotation{users, time.Now().Add(credentialGrace)}, err
}

func unknownService(m *manifest.Manifest, name string) error {
	var names []string
	for _, s := range m.Services {
		names = append(names, s.Name)
	}
	return &fault.Error{
		Code: "node/unknown-service", Kind: fault.Misuse, What: fmt.Sprintf("there is no service %q", name), Where: filepath.Base(m.Path),
		Fix: fmt.Sprintf("name one of %v", names),
	}
}
