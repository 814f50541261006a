package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/hozo-dev/hozo/fault"
)

// transport makes ssh connections. A jump host gets one connection, through which all others go.
type transport struct {
	cfg Config

	mu    sync.Mutex
	jumps map[string]*jump
}

type jump struct {
	once   sync.Once
	client *ssh.Client
	err    error
}

// connectTime bounds one attempt to connect and log in; a host that is up and far away needs two seconds.
const connectTime = 15 * time.Second

// attempts is how often a connection that is cut before the login is tried again: sshd does that at random when too
// many come at once (MaxStartups).
const attempts = 4

// connect logs in on a host.
func (t *transport) connect(ctx context.Context, to Target) (*ssh.Client, error) {
	h, err := t.resolve(ctx, to)
	if err != nil {
		return nil, err
	}
	dial := t.cfg.Dial
	for i, name := range h.jump {
		via, err := t.through(ctx, strings.Join(h.jump[:i+1], ","), name, dial, to)
		if err != nil {
			return nil, fmt.Errorf("jump host %s: %w", name, err)
		}
		dial = via.DialContext
	}
	return t.login(ctx, h, dial)
}

// through returns the connection to a jump host, which everybody shares.
func (t *transport) through(ctx context.Context, key, name string, dial DialFunc, to Target) (*ssh.Client, error) {
	t.mu.Lock()
	j := t.jumps[key]
	if j == nil {
		j = &jump{}
		t.jumps[key] = j
	}
	t.mu.Unlock()
	j.once.Do(func() {
		target := Target{Addr: name, Key: to.Key, KnownHosts: to.KnownHosts}
		if user, addr, ok := strings.Cut(name, "@"); ok {
			target.User, target.Addr = user, addr
		}
		var h hop
		if h, j.err = t.resolve(ctx, target); j.err == nil {
			j.client, j.err = t.login(ctx, h, dial)
		}
	})
	return j.client, j.err
}

// close ends the connections to jump hosts.
func (t *transport) close() {
	for _, j := range t.jumps {
		if j.client != nil {
			_ = j.client.Close() // everything through it has ended
		}
	}
}

func (t *transport) login(ctx context.Context, h hop, dial DialFunc) (*ssh.Client, error) {
	db, err := knownhosts.NewDB(h.known...)
	if err != nil {
		return nil, &fault.Error{Code: "deploy/known-hosts", What: "the known hosts cannot be read", Where: strings.Join(h.known, ", "), Fix: "correct the file", Err: err}
	}
	keys := &keyring{hop: h}
	defer keys.close()
	check := db.HostKeyCallback()
	config := &ssh.ClientConfig{
		User:              h.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeysCallback(keys.signers)},
		HostKeyCallback:   func(_ string, remote net.Addr, key ssh.PublicKey) error { return h.hostKey(check, remote, key) },
		HostKeyAlgorithms: db.HostKeyAlgorithms(h.knownAs()),
		ClientVersion:     "SSH-2.0-hozo",
		Timeout:           connectTime,
	}
	var last error
	for i := range attempts {
		if i > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Duration(i) * 200 * time.Millisecond):
			}
		}
		client, err := h.attempt(ctx, dial, config)
		if err == nil {
			return client, nil
		}
		if last = err; !cutShort(err) {
			break
		}
	}
	return nil, h.explain(last, keys)
}

// knownAs is the address as known_hosts has it.
func (h hop) knownAs() string {
	_, port := splitPort(h.addr)
	return net.JoinHostPort(h.alias, port)
}

func (h hop) attempt(ctx context.Context, dial DialFunc, config *ssh.ClientConfig) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := dial(ctx, "tcp", h.addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, h.knownAs(), config)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the first error is the one to tell
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// cutShort reports whether the other side hung up before it said why.
func cutShort(err error) bool {
	text := err.Error()
	return errors.Is(err, syscall.ECONNRESET) || strings.Contains(text, "handshake failed: EOF") || strings.Contains(text, "connection reset")
}

// hostKey checks the key of a host. The errors are told to the user as they are.
func (h hop) hostKey(check ssh.HostKeyCallback, remote net.Addr, key ssh.PublicKey) error {
	err := check(h.knownAs(), remote, key)
	switch {
	case knownhosts.IsHostKeyChanged(err):
		return &fault.Error{
			Code: "deploy/host-key-changed", What: fmt.Sprintf("%s has another host key than the one that is known: %s %s", h.alias, key.Type(), ssh.FingerprintSHA256(key)),
			Where: strings.Join(h.known, ", "),
			Fix:   "find out why: somebody may stand between. If the host was set up anew, compare the fingerprint on its console and then run: ssh-keygen -R " + h.alias,
		}
	case knownhosts.IsHostUnknown(err):
		return &fault.Error{
			Code: "deploy/unknown-host", What: fmt.Sprintf("the host key of %s is not known: %s %s", h.alias, key.Type(), ssh.FingerprintSHA256(key)),
			Where: strings.Join(h.known, ", "),
			Fix:   "compare the fingerprint with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host's console, then add to known_hosts: " + knownhosts.Line([]string{h.knownAs()}, key),
		}
	}
	return err
}

// explain makes the fault of a login that failed.
func (h hop) explain(err error, keys *keyring) error {
	if f, ok := fault.As(err); ok {
		return f
	}
	where := h.user + "@" + h.addr
	text := err.Error()
	switch {
	case strings.Contains(text, "unable to authenticate"):
		fix := "add your public key to ~/.ssh/authorized_keys there, or name another key or user under ssh in the manifest"
		if len(keys.skipped) > 0 {
			fix = strings.Join(keys.skipped, "; ") + ". Else " + fix
		}
		return &fault.Error{Code: "deploy/refused", What: fmt.Sprintf("the host does not let us in; tried %s", keys.tried()), Where: where, Fix: fix}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &fault.Error{Code: "deploy/unreachable", What: fmt.Sprintf("the host does not answer within %s", connectTime), Where: where, Fix: "see whether it is up, and whether a firewall is between"}
	case errors.Is(err, context.Canceled):
		return err
	}
	return &fault.Error{Code: "deploy/unreachable", What: "the host cannot be reached", Where: where, Fix: "see whether it is up and sshd listens there", Err: err}
}

// keyring holds the keys to try: the files first, then those of the ssh agent.
type keyring struct {
	hop     hop
	names   []string
	skipped []string
	conn    net.Conn
}

func (k *keyring) signers() ([]ssh.Signer, error) {
	var all []ssh.Signer
	for _, path := range k.hop.keys {
		text, err := os.ReadFile(path)
		if err != nil {
			k.skipped = append(k.skipped, fmt.Sprintf("the key %s cannot be read: %s", path, err))
			continue
		}
		signer, err := ssh.ParsePrivateKey(text)
		if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
			k.skipped = append(k.skipped, "the key "+path+" has a passphrase: run ssh-add "+path)
			continue
		}
		if err != nil {
			k.skipped = append(k.skipped, fmt.Sprintf("the key %s cannot be used: %s", path, err))
			continue
		}
		all, k.names = append(all, signer), append(k.names, path)
	}
	if k.hop.agent == "" {
		return all, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "unix", k.hop.agent) // a socket of this machine
	if err != nil {
		k.skipped = append(k.skipped, "the ssh agent does not answer: "+err.Error())
		return all, nil
	}
	k.conn = conn
	held, err := agent.NewClient(conn).Signers()
	if err != nil {
		k.skipped = append(k.skipped, "the ssh agent does not answer: "+err.Error())
		return all, nil
	}
	k.names = append(k.names, fmt.Sprintf("%d keys of the ssh agent", len(held)))
	return append(all, held...), nil
}

func (k *keyring) tried() string {
	if len(k.names) == 0 {
		return "no key: there is none"
	}
	return strings.Join(k.names, ", ")
}

func (k *keyring) close() {
	if k.conn != nil {
		_ = k.conn.Close() // the signatures are made
	}
}
