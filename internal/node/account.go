package node

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
)

// account is the user that a service runs as.
type account struct {
	name   string
	home   string
	uid    uint32
	gid    uint32
	groups []uint32
}

// accountOf looks up the user of a service that names one, by name or by number.
func accountOf(s manifest.Service) (account, error) {
	u, err := user.Lookup(s.User)
	if err != nil {
		if byID, idErr := user.LookupId(s.User); idErr == nil {
			u, err = byID, nil
		}
	}
	if err != nil {
		return account{}, &fault.Error{
			Code: "node/no-user", Kind: fault.Misuse, What: fmt.Sprintf("there is no user %q on this host", s.User), Where: "services." + s.Name + ".user",
			Fix: "make the user (`useradd --system " + s.User + "`) or leave user out", Err: err,
		}
	}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("look up groups of %s: %w", s.User, err)
	}
	a := account{name: u.Username, home: u.HomeDir}
	numbers := append([]string{u.Uid, u.Gid}, ids...)
	for i, text := range numbers {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", s.User, err)
		}
		switch i {
		case 0:
			a.uid = uint32(n)
		case 1:
			a.gid = uint32(n)
		default:
			a.groups = append(a.groups, uint32(n))
		}
	}
	return a, nil
}
