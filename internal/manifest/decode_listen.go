package manifest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxUnixPath is the room for a path in sockaddr_un, less its final zero.
const maxUnixPath = 107

// listens is a map from names to a port, an address or unix:/path.
func listens() shape[[]Listen] {
	names := plainName()
	return shape[[]Listen]{
		schema{"type": "object", "propertyNames": schema{"pattern": names.pattern}, "additionalProperties": schema{"anyOf": []any{
			schema{"type": "integer", "minimum": 0, "maximum": 65535},
			schema{"type": "string", "pattern": `^([0-9]+|.*:[0-9]+|unix:.+)$`},
		}}},
		func(d *decoder, n *node, path string, into *[]Listen) {
			if !d.isMap(n, path) {
				return
			}
			for i := range n.entries {
				e := &n.entries[i]
				if !d.checkName(names, e.name, e.at) || !d.present(e, join(path, e.name)) {
					continue
				}
				if !e.value.scalar() {
					d.add(e.value.at, "bad-listen", fmt.Sprintf("%s must be a port or an address, not %s", join(path, e.name), e.value), "write 8080, 127.0.0.1:8080 or unix:/path")
					continue
				}
				network, address, err := parseListen(e.value.text, d.dir)
				if err != nil {
					d.add(e.value.at, "bad-listen", fmt.Sprintf("%s: %s", join(path, e.name), err), "write 8080, 127.0.0.1:8080 or unix:/path; 0.0.0.0:8080 is open to the network")
					continue
				}
				*into = append(*into, Listen{Name: e.name, Network: network, Address: address})
			}
		},
	}
}

// parseListen reads an address to listen on. What names no host is loopback: nothing is open to the network unless the
// file says so. Hosts are IP addresses or localhost, because a name could mean another address tomorrow. Port 0 takes any
// free port.
func parseListen(s, dir string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || strings.ContainsRune(path, 0) {
			return "", "", fmt.Errorf("%q names no socket", short(s))
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if path = filepath.Clean(path); len(path) > maxUnixPath {
			return "", "", fmt.Errorf("the socket's path %q is longer than %d bytes", short(path), maxUnixPath)
		}
		return "unix", path, nil
	}
	host, port := "", s
	if at := strings.LastIndexByte(s, ':'); at >= 0 {
		host, port = s[:at], s[at+1:]
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strings.HasPrefix(port, "+") {
		return "", "", fmt.Errorf("%q has no port from 0 to 65535", short(s))
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil || ip.Zone() != "" {
		return "", "", fmt.Errorf("%q is not an IP address", short(host))
	}
	return "tcp", netip.AddrPortFrom(ip.Unmap(), uint16(number)).String(), nil
}
