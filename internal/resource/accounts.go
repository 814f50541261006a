package resource

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// account is a line of /etc/passwd. Names that come from elsewhere (LDAP) are not seen: what is made here is there.
type account struct {
	name, home, shell, comment string
	uid, gid                   int
}

// team is a line of /etc/group.
type team struct {
	name    string
	gid     int
	members []string
}

// findUser returns the account of a name, or of a number, or nil.
func findUser(name string) (*account, error) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 7 || f[0] != name && f[2] != name {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil {
			continue
		}
		return &account{name: f[0], uid: uid, gid: gid, comment: f[4], home: f[5], shell: f[6]}, nil
	}
	return nil, nil
}

func readGroups() ([]team, error) {
	text, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, err
	}
	var all []team
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 4 {
			continue
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		all = append(all, team{name: f[0], gid: gid, members: strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })})
	}
	return all, nil
}

func findGroup(name string) (*team, error) {
	all, err := readGroups()
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.name == name || strconv.Itoa(g.gid) == name {
			return &g, nil
		}
	}
	return nil, nil
}

// groupsOf returns the numbers of a user's supplementary groups.
func groupsOf(user string) ([]uint32, error) {
	all, err := readGroups()
	if err != nil {
		return nil, err
	}
	var some []uint32
	for _, g := range all {
		if slices.Contains(g.members, user) {
			some = append(some, uint32(g.gid))
		}
	}
	return some, nil
}

// owner resolves names to numbers. Where one is only promised, its number is not known yet, and known is false.
func (h *Host) owner(user, group string) (uid, gid int, known bool, err error) {
	known = true
	if user != "" {
		u, err := findUser(user)
		switch {
		case err != nil:
			return 0, 0, false, err
		case u != nil:
			uid, gid = u.uid, 0
		case h.promised["user "+user] || h.installing():
			known = false
		default:
			return 0, 0, false, fmt.Errorf("there is no user %s on the host", user)
		}
	}
	if group != "" {
		g, err := findGroup(group)
		switch {
		case err != nil:
			return 0, 0, false, err
		case g != nil:
			gid = g.gid
		case h.promised["group "+group] || h.promised["user "+group] || h.installing():
			known = false
		default:
			return 0, 0, false, fmt.Errorf("there is no group %s on the host", group)
		}
	}
	return uid, gid, known, nil
}

func userName(uid int) string {
	if u, err := findUser(strconv.Itoa(uid)); err == nil && u != nil {
		return u.name
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := findGroup(strconv.Itoa(gid)); err == nil && g != nil {
		return g.name
	}
	return strconv.Itoa(gid)
}
