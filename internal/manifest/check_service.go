package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// service checks one service by itself.
func (c *checker) service(s *Service) {
	at := c.key("services", s.Name)
	if slices.Contains([]string{"broker", "node", "keeper", "hozo"}, s.Name) {
		c.add(at, "reserved-name", fmt.Sprintf("%q is the name of a part of the platform", s.Name), "choose another name")
	}
	if n := c.node("services", s.Name); n == nil || n.kind != kindMap {
		return // reported
	}
	run, builtin := c.set(s.Name, "run"), c.set(s.Name, "builtin")
	switch {
	case run && builtin:
		c.add(c.key("services", s.Name, "builtin"), "two-programs", fmt.Sprintf("service %q has both run and builtin", s.Name), "keep one of the two")
	case !run && !builtin:
		c.add(at, "no-command", fmt.Sprintf("service %q has no command", s.Name), "add run: ./program, or builtin: ingest, route, sink, push or zmq")
	}
	c.environment(s)
	if s.User != "" && !isUser(s.User) {
		c.add(c.value("services", s.Name, "user"), "bad-user", fmt.Sprintf("%q is not a user's name or number", short(s.User)), "write a name from /etc/passwd, or a number")
	}
	if s.Restart.Delay > s.Restart.Max {
		c.add(c.value("services", s.Name, "restart"), "bad-restart", fmt.Sprintf("service %q waits %s before its first restart but %s at most", s.Name, formatDuration(s.Restart.Delay), formatDuration(s.Restart.Max)),
			"raise restart.max, or lower restart.delay")
	}
	if s.Restart.Then == "fail" && c.node("services", s.Name, "restart", "retry_after") != nil {
		c.add(c.value("services", s.Name, "restart", "retry_after"), "bad-restart", fmt.Sprintf("service %q stays down once its budget is spent, so retry_after means nothing", s.Name),
			"write then: slow, or remove retry_after")
	}
	c.limits(s)
	c.health(s, "health", s.Health)
	c.health(s, "liveness", s.Liveness)
	if h := s.Liveness; h != nil && (h.Notify || h.Log != "") {
		c.add(c.value("services", s.Name, "liveness"), "bad-health", fmt.Sprintf("liveness of service %q waits for what is said once, not for a sign of life", s.Name),
			"write watchdog: 10s for a program that sends WATCHDOG=1, or http, tcp, exec or grpc")
	}
	c.log(s)
	c.schedule(s)
}

func (c *checker) log(s *Service) {
	if s.Log.Compress && s.Log.Keep == 0 {
		c.add(c.value("services", s.Name, "log", "compress"), "bad-log", fmt.Sprintf("service %q is to compress its rotated logs but keeps none", s.Name),
			"raise log.keep, or remove log.compress")
	}
	if s.Log.Age > 0 && s.Log.Age < minLogAge {
		c.add(c.value("services", s.Name, "log", "age"), "bad-log", fmt.Sprintf("service %q is to rotate its log every %s", s.Name, formatDuration(s.Log.Age)),
			"set log.age to at least "+formatDuration(minLogAge)+", or to 0 to rotate by size alone")
	}
}

// environment keeps the variables that the platform sets out of the file's hands.
func (c *checker) environment(s *Service) {
	for _, name := range c.node("services", s.Name, "env").names() {
		if strings.HasPrefix(name, "HOZO_") || slices.Contains([]string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}, name) {
			c.add(c.key("services", s.Name, "env", name), "reserved-name", fmt.Sprintf("the platform sets %s itself", name), "remove it")
		}
		if strings.ContainsRune(s.Env[name], 0) {
			c.add(c.value("services", s.Name, "env", name), "bad-text", fmt.Sprintf("%s holds a zero byte, which no environment can", name), "remove it")
		}
	}
}

func isUser(s string) bool {
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		return true
	}
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r != '-' && r != '.' && (r < '0' || r > '9')) {
			return false
		}
	}
	return len(s) <= 32 // of useradd
}

// health checks what stands under key, health or liveness.
func (c *checker) health(s *Service, key string, h *Health) {
	if h == nil {
		return
	}
	written := c.node("services", s.Name, key)
	at := c.value("services", s.Name, key)
	if written != nil && written.kind == kindMap {
		var probes []string
		for _, probe := range []string{"http", "tcp", "exec", "grpc", "log", "notify"} {
			if written.get(probe) != nil {
				probes = append(probes, probe)
			}
		}
		switch {
		case len(probes) > 1:
			c.add(at, "bad-health", fmt.Sprintf("%s of service %q has %s", key, s.Name, strings.Join(probes, " and ")), "keep one of them")
			return
		case len(probes) == 0 && (s.Builtin == "" || key == "liveness"):
			c.add(at, "bad-health", fmt.Sprintf("%s of service %q does not say how to ask", key, s.Name), "add http: /path, tcp: LISTENER, exec: COMMAND, grpc: LISTENER, log: PATTERN or notify: true")
			return
		}
	}
	switch {
	case strings.HasPrefix(h.HTTP, "/"):
		if !slices.ContainsFunc(s.Listen, func(l Listen) bool { return l.Network == "tcp" }) && !c.undecoded(s, "listen", len(s.Listen)) {
			c.add(at, "no-listener", fmt.Sprintf("service %q is probed at %s but listens on no TCP address", s.Name, short(h.HTTP)), "add listen: { http: PORT }, or write a full URL")
		}
	case h.TCP != "":
		c.probed(s, key, h.TCP, at)
	case h.GRPC != "":
		listener, _, _ := strings.Cut(h.GRPC, "/")
		c.probed(s, key, listener, at)
	}
}

// probed checks that a listener or address can be asked.
func (c *checker) probed(s *Service, key, address string, at position) {
	var names []string
	for _, l := range s.Listen {
		names = append(names, l.Name)
	}
	if slices.Contains(names, address) || c.undecoded(s, "listen", len(s.Listen)) {
		return
	}
	if host, port, found := cutPort(address); found && host != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			return
		}
	}
	c.add(at, "no-listener", fmt.Sprintf("%s of service %q: %q is neither one of its listeners nor host:port", key, s.Name, short(address)), orKnown(address, names, "a listener under listen"))
}

func cutPort(s string) (host, port string, found bool) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

// undecoded reports whether a list or map of a service is written with more in it than could be read: then what seems to
// be missing may be what was reported already.
func (c *checker) undecoded(s *Service, name string, decoded int) bool {
	n := c.node(section(s), s.Name, name)
	if n == nil {
		return false
	}
	return n.scalar() || max(len(n.items), len(n.entries)) > decoded
}

// listeners finds addresses that two services, or one twice, would listen on.
func (c *checker) listeners() {
	type used struct {
		Listen
		service string
	}
	var all []used
	for _, s := range c.m.Services {
		for _, l := range s.Listen {
			for _, other := range all {
				if clash(l, other.Listen) {
					c.add(c.value("services", s.Name, "listen", l.Name), "address-in-use",
						fmt.Sprintf("%s is taken by %s of service %q", l.Address, other.Name, other.service), "choose another port or path")
					break
				}
			}
			all = append(all, used{l, s.Name})
		}
	}
}

// clash reports whether two sockets cannot be open at once. An address that stands for all takes its port on each.
func clash(a, b Listen) bool {
	if a.Network != b.Network || a.Network != "tcp" {
		return a == Listen{a.Name, b.Network, b.Address}
	}
	x, errX := netip.ParseAddrPort(a.Address)
	y, errY := netip.ParseAddrPort(b.Address)
	if errX != nil || errY != nil || x.Port() != y.Port() || x.Port() == 0 {
		return false
	}
	// Linux lets :: take the port of IPv4 as well, unless the socket says otherwise.
	return x == y || x.Addr() == netip.IPv6Unspecified() || y.Addr() == netip.IPv6Unspecified() ||
		x.Addr().Is4() == y.Addr().Is4() && (x.Addr().IsUnspecified() || y.Addr().IsUnspecified())
}
