package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// authorizedKeys are keys that let somebody in as a user of the host.
type authorizedKeys struct {
	user string
	id   string

	Keys      []string `json:"keys"`
	Exclusive bool     `json:"exclusive"`
}

func authorizedKeysKind() Kind {
	return Kind{
		Name: "authorized_keys", Is: Text, Doc: "Public keys that may log in as a user.",
		Keys: []Key{
			{Name: "keys", Type: Words, Doc: "Lines as in authorized_keys.", Required: true},
			{Name: "exclusive", Type: Bool, Doc: "Remove every other key. Default false."},
		},
		make: func(s Spec) Resource { return &authorizedKeys{user: s.Name, id: s.ID()} },
	}
}

func (a *authorizedKeys) valid() error {
	for _, k := range a.Keys {
		if strings.ContainsAny(k, "\r\n") || keyPart(k) == "" {
			return fmt.Errorf("%.40q is no public key: write a line like ssh-ed25519 AAAA… NAME", k)
		}
	}
	return nil
}

// keyPart returns the key itself of a line, without its options and comment, or "".
func keyPart(line string) string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if strings.HasPrefix(f, "#") {
			return ""
		}
		if i > 0 && strings.HasPrefix(f, "AAAA") && (strings.HasPrefix(fields[i-1], "ssh-") || strings.HasPrefix(fields[i-1], "ecdsa-") || strings.HasPrefix(fields[i-1], "sk-")) {
			return f
		}
	}
	return ""
}

// Check implements Resource.
func (a *authorizedKeys) Check(_ context.Context, h *Host) (Change, error) {
	var c Change
	u, err := findUser(a.user)
	if err != nil {
		return c, failed(a.id, "the users cannot be listed", "look at /etc/passwd of the host", err)
	}
	if u == nil {
		if !h.promised["user "+a.user] && !h.installing() {
			return c, failed(a.id, "there is no user "+a.user+" on the host", "add user: "+a.user+" before it", nil)
		}
		c.do(Create, fmt.Sprintf("%d keys", len(a.Keys)), nil)
		return c, nil
	}
	path := filepath.Join(u.home, ".ssh", "authorized_keys")
	// The home is its user's, who could lay links in it to make root write elsewhere.
	for _, p := range []string{filepath.Dir(path), path} {
		if info, err := os.Lstat(p); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return c, failed(a.id, p+" is a symbolic link, which is not followed", "make it a file of the user's own", nil)
		}
	}
	old, err := readBounded(path, maxLines)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, failed(a.id, path+" cannot be read", "look at it on the host", err)
	}
	created := err != nil
	text := a.merged(string(old))
	attr := attributes{Owner: a.user, Group: groupName(u.gid), Mode: "0600"}
	if !bytes.Equal(old, []byte(text)) || created {
		op := Update
		if created {
			op = Create
		}
		c.Diff, _ = unified(path, old, []byte(text), created)
		c.do(op, "", func(context.Context) error {
			dir := filepath.Dir(path)
			if err := os.Mkdir(dir, 0o700); err == nil {
				err = os.Lchown(dir, u.uid, u.gid)
				if err != nil {
					return failed(a.id, dir+" could not be given to its user", "look at the host's disk", err)
				}
			} else if !errors.Is(err, fs.ErrExist) {
				return failed(a.id, dir+" could not be made", "see whether the home exists", err)
			}
			if err := replace(path, []byte(text), 0o600, u.uid, u.gid); err != nil {
				return failed(a.id, path+" could not be written", "see whether the disk is full or read-only", err)
			}
			return nil
		})
		return c, nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return c, failed(a.id, path+" cannot be looked at", "look at it on the host", err)
	}
	if has := info.Sys().(*syscall.Stat_t); int(has.Uid) != u.uid || info.Mode()&0o022 != 0 { // sshd would not read it
		attr.fix(&c, h, a.id, path, info, u.uid, u.gid, true)
	}
	return c, nil
}

// merged returns the file's text with the keys in it.
func (a *authorizedKeys) merged(old string) string {
	var out []string
	if !a.Exclusive {
		out = lines(old)
	} else {
		for _, l := range lines(old) {
			if slices.Contains(a.Keys, l) {
				out = append(out, l)
			}
		}
	}
	for _, k := range a.Keys {
		at := slices.IndexFunc(out, func(l string) bool { return keyPart(l) == keyPart(k) })
		switch {
		case at < 0:
			out = append(out, k)
		case out[at] != k:
			out[at] = k // other options or another comment
		}
	}
	return joined(out)
}
