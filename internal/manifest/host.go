package manifest

import (
	"github.com/hozo-dev/hozo/internal/resource"
)

// Host is a host that an environment deploys to.
type Host struct {
	Name      string
	Addr      string            // host or host:port; default: its name
	Roles     []string          // besides all, which every host has
	Vars      map[string]string `json:",omitempty"` // its own, over those of the manifest
	SSH       SSH               `json:",omitzero"`  // with those of the manifest where it says nothing
	Resources []HostResource    `json:",omitempty"` // of its roles, in file order, with every value rendered
}

// SSH is how hosts are reached. What is empty is ~/.ssh/config's, and then ssh's own default.
type SSH struct {
	User       string
	Key        string   // private key file
	KnownHosts string   // file
	Jump       []string // USER@HOST:PORT, nearest first
	NoSudo     bool     // work as the user, without becoming root
}

// HostResource is a thing that a host must have.
type HostResource struct {
	resource.Spec
	Content string `json:",omitempty"` // what is in it, where the manifest says so
	Local   string `json:",omitempty"` // path, on this machine, of the file that its content is made of
}

// Roles are lists of what hosts must have, as the file has them: values are rendered for each host.
type Roles struct{ all []role }

// Equal is always true: Hosts has what Roles come to.
func (Roles) Equal(Roles) bool { return true }

type role struct {
	name  string
	items []*node
}

// roles is the section host.
func roles() shape[Roles] {
	of := named[role]{plainName(), roleItems(), func(name string) role { return role{name: name} }, false}.shape()
	return shape[Roles]{of.schema, func(d *decoder, n *node, path string, into *Roles) {
		var all []role
		of.read(d, n, path, &all)
		into.all = all
	}}
}

func newHost(name string) Host { return Host{Name: name, Addr: name} }

func hostKeys() []key[Host] {
	return []key[Host]{
		field("addr", "Where sshd listens: a name or an address, with :PORT if it is not 22. Default: the host's name.", text(), func(h *Host) *string { return &h.Addr }),
		field("roles", "What it is for: names under host. Every host has the role all as well.", listOf(nameText(plainName()), true), func(h *Host) *[]string { return &h.Roles }),
		field("vars", "Variables of this host, over those of the manifest.", table(variableName(), plain()), func(h *Host) *map[string]string { return &h.Vars }),
		field("ssh", "How this host is reached, over ssh of the manifest.", object(sshKeys(), nil), func(h *Host) *SSH { return &h.SSH }),
	}
}

func sshKeys() []key[SSH] {
	negated := shape[bool]{schema{"type": "boolean"}, func(d *decoder, n *node, path string, into *bool) {
		sudo := true
		boolean().read(d, n, path, &sudo)
		*into = !sudo
	}}
	return []key[SSH]{
		field("user", "User to log in as. One that is not root becomes root by sudo. Default: that of ~/.ssh/config, or your own name.", text(), func(s *SSH) *string { return &s.User }),
		field("key", "Private key file. The keys of a running ssh agent are tried as well.", filePath(), func(s *SSH) *string { return &s.Key }),
		field("known_hosts", "File with the host keys. Default: that of ~/.ssh/config. Hosts that are not in it are refused.", filePath(), func(s *SSH) *string { return &s.KnownHosts }),
		field("jump", "Hosts to go through, nearest first, as USER@HOST:PORT. They are logged in to once.", listOf(text(), true), func(s *SSH) *[]string { return &s.Jump }),
		field("sudo", "Whether a user that is not root becomes root. Default true.", negated, func(s *SSH) *bool { return &s.NoSudo }),
	}
}

// variableName is what templates call a variable.
func variableName() nameRule {
	return nameRule{"variable name", `^[a-z_][a-z0-9_]{0,47}$`, func(s string) bool {
		if s == "" || len(s) > maxName || '0' <= s[0] && s[0] <= '9' {
			return false
		}
		for _, r := range s {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' {
				return false
			}
		}
		return true
	}, "use lower-case letters, digits and _; at most 48 characters"}
}

// over lays the settings of one host over those of all.
func (s SSH) over(all SSH) SSH {
	if s.User == "" {
		s.User = all.User
	}
	if s.Key == "" {
		s.Key = all.Key
	}
	if s.KnownHosts == "" {
		s.KnownHosts = all.KnownHosts
	}
	if s.Jump == nil {
		s.Jump = all.Jump
	}
	s.NoSudo = s.NoSudo || all.NoSudo
	return s
}

// Host returns the host of that name.
func (m *Manifest) Host(name string) (Host, bool) {
	for _, h := range m.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// Variables are what templates on a host see, in values and in files.
func (m *Manifest) Variables(h Host) map[string]any {
	hosts := map[string]string{}
	for _, other := range m.Hosts {
		hosts[other.Name] = other.Addr
	}
	all := map[string]any{"project": m.Project, "env": m.Env, "host": h.Name, "addr": h.Addr, "roles": append([]string{"all"}, h.Roles...), "hosts": hosts}
	for _, layer := range []map[string]string{m.Vars, h.Vars} {
		for name, value := range layer {
			all[name] = value
		}
	}
	return all
}

// givenVariables are there without being declared.
func givenVariables() []string { return []string{"addr", "env", "host", "hosts", "project", "roles"} }
