package supervisord

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// credentialFor is how to become the user with a uid: nil when the daemon is that user already. The problem, if there is
// one, is in Supervisor's words.
func credentialFor(uid int) (cred *syscall.Credential, problem string) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil, "Can't find uid " + strconv.Itoa(uid)
	}
	if os.Getuid() == uid {
		return nil, ""
	}
	if os.Getuid() != 0 {
		return nil, "Can't drop privilege as nonroot user"
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, "Could not set group id of effective user"
	}
	cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, "Could not set groups of effective user"
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && n != gid {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return cred, ""
}
