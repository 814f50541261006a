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

	Clients      []string  `json:"clients,omitempty"` // foreign clients whose passwords were replaced
	ClientsUntil time.Time `json:"clients_until,omitzero"`
}

const (
	// DefaultOverlap is how long the replaced password of a foreign client is still good: somebody has to carry the new
	// one there.
	DefaultOverlap = time.Hour

	// MostOverlap bounds it.
	MostOverlap = 30 * 24 * time.Hour
)

// rotateNamed replaces the passwords of services and foreign clients, or of all services when nothing is named. overlap
// is how long the old ones of clients are still good; those of services have credentialGrace.
func (n *Node) rotateNamed(ctx context.Context, names []string, overlap time.Duration) (Rotation, error) {
	m := n.current()
	if m == nil {
		return Rotation{}, errNoManifest
	}
	if overlap < 0 || overlap > MostOverlap {
		return Rotation{}, &fault.Error{Code: "access/overlap", Kind: fault.Misuse, What: fmt.Sprintf("an overlap of %v is not between 0 and %v", overlap, MostOverlap), Fix: "--overlap 1h"}
	}
	done := Rotation{Instances: []string{}}
	services := false
	for _, name := range names {
		switch {
		case slices.ContainsFunc(m.Clients, func(c manifest.Client) bool { return c.Name == name }):
			done.Clients = append(done.Clients, name)
		case slices.ContainsFunc(m.Services, func(s manifest.Service) bool { return s.Name == name }):
			services = true
		default:
			return Rotation{}, unknownService(m, name)
		}
	}
	if services || len(names) == 0 {
		users, err := n.rotate(ctx, func(g wire.Grant) bool { return len(names) == 0 || slices.Contains(names, g.Service) })
		if err != nil {
			return Rotation{}, err
		}
		done.Instances = append(done.Instances, users...)
		done.Until = time.Now().Add(credentialGrace)
	}
	if len(done.Clients) > 0 {
		if err := n.rotateClients(m, done.Clients, overlap); err != nil {
			return Rotation{}, err
		}
		done.ClientsUntil = time.Now().Add(overlap)
	}
	return done, nil
}

// rotateClients gives foreign clients new passwords. The broker knows them before their files do: a node that is killed in
// between leaves the old ones good.
func (n *Node) rotateClients(m *manifest.Manifest, names []string, overlap time.Duration) error {
	n.applying.Lock()
	defer n.applying.Unlock()
	grants, err := grantsOf(m, n.state, func(wire.Grant) bool { return false })
	if err != nil {
		return err
	}
	clients, err := clientGrants(m, n.state)
	if err != nil {
		return err
	}
	for i, g := range clients {
		if slices.Contains(names, g.User) {
			clients[i].Password = newPassword()
		}
	}
	password, err := n.state.password()
	if err != nil {
		return err
	}
	port, err := n.state.port()
	if err != nil {
		return err
	}
	access := withClients(accessOf(password, append(leaving(n.state, grants), grants...)), clients)
	if err := broker.WriteAccessOver(n.state.broker(), access, time.Now(), overlap); err != nil {
		return err
	}
	n.foreign = clients
	return writeClients(n.state, m, clients, port)
}

func unknownService(m *manifest.Manifest, name string) error {
	var names []string
	for _, s := range m.Services {
		names = append(names, s.Name)
	}
	for _, c := range m.Clients {
		names = append(names, c.Name)
	}
	return &fault.Error{
		Code: "node/unknown-service", Kind: fault.Misuse, What: fmt.Sprintf("there is no service or client %q", name), Where: filepath.Base(m.Path),
		Fix: fmt.Sprintf("name one of %v", names),
	}
}
