package deploy

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// Target says how a host is reached. What is empty is taken from ~/.ssh/config, and then from ssh's own defaults.
type Target struct {
	Addr       string // host or host:port
	User       string
	Key        string   // private key file; the ssh agent's keys are tried as well
	KnownHosts string   // file; empty: the user's and the system's
	Jump       []string // hosts to go through, nearest first: user@host:port
	NoSudo     bool     // do not become root
}

// hop is one ssh server on the way, with every setting resolved.
type hop struct {
	addr   string // host:port
	alias  string // as it is called in known_hosts and messages
	user   string
	keys   []string
	known  []string
	jump   []string
	agent  string // socket of the ssh agent, "" for none
	strict bool
}

// resolve fills in what a target leaves open. It asks ssh itself what the user's configuration says, so that Match and
// Include mean what they mean there.
func (t *transport) resolve(ctx context.Context, to Target) (hop, error) {
	name, port := splitPort(to.Addr)
	h := hop{alias: name, user: to.User, jump: to.Jump, agent: t.cfg.Getenv("SSH_AUTH_SOCK"), strict: true}
	said, err := t.configured(ctx, name)
	if err != nil {
		return h, err
	}
	if said["proxycommand"] != nil && said["proxycommand"][0] != "none" {
		return h, &fault.Error{Code: "deploy/proxy-command", Kind: fault.Misuse, What: "ProxyCommand is not supported", Where: name + " in ~/.ssh/config", Fix: "use ProxyJump there, or jump in the manifest"}
	}
	first := func(key, fallback string) string {
		if v := said[key]; len(v) > 0 {
			return v[0]
		}
		return fallback
	}
	h.addr = net.JoinHostPort(first("hostname", name), cmp.Or(port, first("port", "22")))
	if h.user == "" {
		me, err := user.Current()
		if err != nil {
			return h, fmt.Errorf("find out who you are: %w", err)
		}
		h.user = first("user", me.Username)
	}
	if to.Key != "" {
		h.keys = []string{to.Key}
	} else if h.keys = t.paths(said["identityfile"]); h.keys == nil {
		h.keys = t.paths([]string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"})
	}
	if to.KnownHosts != "" {
		h.known = []string{to.KnownHosts}
	} else {
		h.known = t.paths(append(strings.Fields(first("userknownhostsfile", "~/.ssh/known_hosts")), strings.Fields(first("globalknownhostsfile", "/etc/ssh/ssh_known_hosts"))...))
	}
	if jump := first("proxyjump", "none"); len(h.jump) == 0 && jump != "none" {
		h.jump = strings.Split(jump, ",")
	}
	return h, nil
}

func splitPort(addr string) (host, port string) {
	if host, port, err := net.SplitHostPort(addr); err == nil {
		return host, port
	}
	return strings.Trim(addr, "[]"), ""
}

// paths expands ~ and leaves out files that do not exist.
func (t *transport) paths(all []string) []string {
	var some []string
	for _, p := range all {
		if rest, ok := strings.CutPrefix(p, "~/"); ok {
			p = filepath.Join(t.cfg.Home, rest)
		}
		if _, err := os.Stat(p); err == nil {
			some = append(some, p)
		}
	}
	return some
}

// configured returns what ~/.ssh/config says of a host, nil without such a file or without ssh.
func (t *transport) configured(ctx context.Context, host string) (map[string][]string, error) {
	path := filepath.Join(t.cfg.Home, ".ssh", "config")
	if _, err := os.Stat(path); err != nil {
		return nil, nil
	}
	cmd := exec.CommandContext(ctx, "ssh", "-G", "-F", path, "--", host)
	var complaint tail
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, &fault.Error{Code: "deploy/ssh-config", What: "ssh cannot read your configuration: " + complaint.String(), Where: path, Fix: "correct it, or install openssh-client", Err: err}
	}
	said := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[key] = append(said[key], value)
	}
	return said, nil
}
