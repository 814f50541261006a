package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/hozo-dev/hozo/wire"
)

const (
	probeUser     = "broker"           // asks whether all is well, and answers renewals
	committerUser = "broker-committer" // answers whoever waits for the disk
)

// ownUsers are the broker's own, whose password nobody else knows.
var ownUsers = map[string]User{
	probeUser: {Publish: []string{"$JS.API.INFO"}, Subscribe: []string{"_INBOX.>", wire.RenewSubject + ".>"}, Respond: true},
	committerUser: {
		Publish:   []string{"$JS.API.STREAM.INFO.*"},
		Subscribe: []string{"_INBOX.>", wire.CommitSubject + ".*", wire.SyncSubject}, Respond: true,
	},
}

// respondWithin bounds how long after a request its one answer is let through: longer than any sensible deadline.
const respondWithin = 2 * time.Minute

// gate decides who gets in: the server asks it for every connection.
type gate struct {
	dir         string
	ownPassword string // random, known to this process only
	guests      *guests

	mu     sync.Mutex
	info   os.FileInfo // of the access file that users was made from; nil when there is none
	users  map[string]account
	leases map[uint64]lease // by the server's number of the connection
}

type account struct {
	keys        keys
	permissions *server.Permissions // nil allows everything
	byMQTT      *server.Permissions // of a client that comes in by MQTT; nil for others than clients
}

var _ server.Authentication = (*gate)(nil)

func newGate(dir string) (*gate, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return &gate{dir: dir, ownPassword: hex.EncodeToString(secret), guests: newGuests(), leases: map[uint64]lease{}}, nil
}

// Check implements server.Authentication. It is called concurrently.
func (g *gate) Check(c server.ClientAuthentication) bool {
	name, password := c.GetOpts().Username, c.GetOpts().Password
	sum := digest(sha256.Sum256([]byte(password)))
	now := time.Now()
	found, ok := g.admit(name, sum, now, c.GetID())
	if !ok {
		return false
	}
	allowed := found.permissions
	if door := g.guests.door(c.RemoteAddress()); door != "" {
		if found.byMQTT == nil {
			return false // a credential of this host's own, from outside
		}
		if door == DoorMQTT {
			allowed = found.byMQTT
		}
	}
	// Not under the lock: the server takes locks of its own.
	c.RegisterUser(&server.User{Username: name, Permissions: allowed})
	return true
}

// admit looks a user up and notes the connection as its own.
func (g *gate) admit(name string, sum digest, now time.Time, client uint64) (account, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found, ok := g.lookupLocked(name)
	// An unknown name is compared like a wrong password, so that the time taken tells nothing of the names there are.
	if !found.keys.opens(sum, now) || !ok {
		return account{}, false
	}
	if _, own := ownUsers[name]; !own {
		g.leases[client] = lease{name, sum}
	}
	return found, true
}

func (g *gate) lookupLocked(name string) (account, bool) {
	if own, ok := ownUsers[name]; ok {
		return account{keys: keys{current: sha256.Sum256([]byte(g.ownPassword))}, permissions: permissions(own)}, true
	}
	g.refreshLocked()
	found, ok := g.users[name]
	return found, ok
}

// refreshLocked reads the access file again when it is another one than before. Without a readable file nobody gets in:
// a gate that cannot see its list stays shut.
func (g *gate) refreshLocked() {
	info, err := os.Stat(accessPath(g.dir))
	if err != nil {
		g.info, g.users = nil, nil
		return
	}
	if g.info != nil && os.SameFile(info, g.info) && info.ModTime().Equal(g.info.ModTime()) && info.Size() == g.info.Size() {
		return
	}
	access, info, err := readAccess(g.dir)
	if err != nil {
		g.info, g.users = nil, nil
		return
	}
	users := make(map[string]account, len(access.Users))
	for _, u := range access.Users {
		if keys, ok := keysOf(u); ok && u.Name != "" {
			one := account{keys: keys, permissions: permissions(u)}
			if u.Client {
				one.byMQTT = permissions(byMQTT(u))
			}
			users[u.Name] = one
		}
	}
	g.info, g.users = info, users
}

func permissions(u User) *server.Permissions {
	if u.Name == PlatformUser {
		return nil
	}
	p := &server.Permissions{Publish: allowOnly(u.Publish), Subscribe: allowOnly(u.Subscribe)}
	if u.Respond {
		p.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: respondWithin}
	}
	return p
}

// allowOnly turns an allow list into the server's form, in which an empty allow list would allow everything.
func allowOnly(subjects []string) *server.SubjectPermission {
	if len(subjects) == 0 {
		return &server.SubjectPermission{Deny: []string{">"}}
	}
	return &server.SubjectPermission{Allow: subjects}
}
