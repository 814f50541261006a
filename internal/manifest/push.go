package manifest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// pushKeys are the keys of to that builtin: push has for itself.
var pushKeys = []string{"http", "timeout", "attempts", "workers", "batch", "linger"}

// pushURL is http://…, https://…, or unix:SOCKET:PATH.
func pushURL() shape[string] {
	of := scalar(schema{"type": "string", "pattern": `^(https?://.|unix:[^:]+:/)`}, "bad-url", "a URL like http://127.0.0.1:9000/events, or unix:run/app.sock:/events", func(s string) (string, error) {
		if _, _, ok := SplitUnixURL(s); ok {
			return s, nil
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return "", fmt.Errorf("%q is no URL to send to", short(s))
		}
		return s, nil
	})
	return shape[string]{of.schema, func(d *decoder, n *node, path string, into *string) {
		of.read(d, n, path, into)
		if socket, at, ok := SplitUnixURL(*into); ok && !filepath.IsAbs(socket) {
			*into = "unix:" + filepath.Join(d.dir, socket) + ":" + at
		}
	}}
}

// SplitUnixURL cuts unix:SOCKET:PATH into its two halves; the path begins with /.
func SplitUnixURL(s string) (socket, path string, ok bool) {
	rest, ok := strings.CutPrefix(s, "unix:")
	if !ok {
		return "", "", false
	}
	socket, path, ok = strings.Cut(rest, ":")
	return socket, path, ok && socket != "" && strings.HasPrefix(path, "/") && !strings.ContainsAny(s, " \t\r\n\x00")
}

func (c *checker) push(s *Service) {
	to := c.node("services", s.Name, "to")
	if s.To == nil || to == nil || to.kind != kindMap {
		return
	}
	if to.get("http") == nil {
		c.add(c.key("services", s.Name, "to"), "bad-target", fmt.Sprintf("push service %q does not say where to send", s.Name), "write to: { http: URL }")
	}
	if to.get("linger") != nil && to.get("batch") == nil {
		c.add(c.key("services", s.Name, "to", "linger"), "wrong-key", "linger is how long a batch waits, and there is none", "add batch: 100, or take linger out")
	}
	if to.get("batch") != nil && len(s.Consumes) == 0 && !c.undecoded(s, "consumes", 0) {
		c.add(c.key("services", s.Name, "to", "batch"), "wrong-key", "a batch is of events, and this service consumes none: a task is a request of its own", "take batch out")
	}
	for _, name := range to.names() {
		if !slices.Contains(pushKeys, name) {
			c.unused(s, name, "push service's")
		}
	}
}
