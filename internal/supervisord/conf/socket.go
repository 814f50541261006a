package conf

import (
	"os"
	"regexp"
	"strconv"
	"strings"
)

var tcpSocket = regexp.MustCompile(`^tcp://([^\s:]+):(\d+)\n?$`)

// parse fills in the address from unix:///path or tcp://host:port. uid is the program's user, or -1: a unix socket
// without an owner belongs to it.
func (s *FCGISocket) parse(text string, uid int, hasOwner, hasMode bool) *problem {
	const fix = "write unix:///absolute/path or tcp://host:port"
	if path, found := strings.CutPrefix(text, "unix://"); found {
		if !strings.HasPrefix(path, "/") {
			return &problem{code: "bad-socket", what: "the path of socket " + quote(text) + " is not absolute", words: "('Unix socket path %s is not an absolute path', " + repr(path) + ")", fix: fix}
		}
		s.Network, s.Address = "unix", cleanPath(path)
		if !hasOwner && uid >= 0 && uid != os.Getuid() {
			s.UID = uid
			if u, err := lookupUser(strconv.Itoa(uid)); err == nil {
				s.GID, _ = strconv.Atoi(u.Gid) // on Linux it is a number
			}
		}
		return nil
	}
	if hasOwner || hasMode {
		return &problem{code: "bad-socket", what: "socket_owner and socket_mode are for unix sockets, and " + quote(text) + " is none", words: "socket_owner and socket_mode params should only be used with a Unix domain socket", fix: "drop socket_owner and socket_mode"}
	}
	m := tcpSocket.FindStringSubmatch(text)
	if m == nil {
		return &problem{code: "bad-socket", what: "socket " + quote(text) + " is neither unix:// nor tcp://", words: "('Bad socket format %s', " + repr(text) + ")", fix: fix}
	}
	port, err := portNumber(m[2])
	if err != nil {
		return &problem{code: "bad-socket", what: "the port of socket " + quote(text) + " is out of range", words: err.Error(), fix: "write a port from 1 to 65535"}
	}
	s.Network, s.Address = "tcp", strings.ToLower(m[1])+":"+strconv.Itoa(port)
	return nil
}

// cleanPath is Python's normpath of an absolute path, which keeps two leading slashes.
func cleanPath(path string) string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, part)
		}
	}
	lead := "/"
	if strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///") {
		lead = "//"
	}
	return lead + strings.Join(parts, "/")
}
