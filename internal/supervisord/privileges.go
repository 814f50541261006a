//go:build linux

package supervisord

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// dropPrivileges makes the daemon the user of its configuration, for good, and says so in a note.
func dropPrivileges(s conf.Supervisord) ([]Note, error) {
	if s.User == "" {
		if os.Getuid() != 0 {
			return nil, nil
		}
		return []Note{{conf.LevelCritical, "Supervisor is running as root.  Privileges were not dropped because no user is " +
			"specified in the config file.  If you intend to run as root, you can set user=root in the config file to avoid " +
			"this message."}}, nil
	}
	uid, err := strconv.Atoi(s.User)
	if err != nil {
		u, err := user.Lookup(s.User)
		if err != nil {
			return nil, cannotBecome(s, fmt.Sprintf("Invalid user name %s", s.User))
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return nil, cannotBecome(s, "user "+s.User+" has no numeric uid")
		}
	}
	if problem := become(uid); problem != "" {
		return nil, cannotBecome(s, problem)
	}
	return []Note{{conf.LevelInfo, fmt.Sprintf("Set uid to user %d succeeded", uid)}}, nil
}

func cannotBecome(s conf.Supervisord, what string) error {
	return &fault.Error{
		Code: "supervisord/user", Kind: fault.Misuse, What: what, Where: s.Position.String(),
		Fix: "start as root, or leave user out",
	}
}

// raiseLimits gives the daemon and its children the descriptors and processes that the configuration asks for.
func raiseLimits(s conf.Supervisord) ([]Note, error) {
	var notes []Note
	for _, l := range []struct {
		name, key string
		which     int
		min       uint64
	}{
		{"RLIMIT_NOFILE", "minfds", unix.RLIMIT_NOFILE, uint64(max(s.MinFDs, 0))},
		{"RLIMIT_NPROC", "minprocs", unix.RLIMIT_NPROC, uint64(max(s.MinProcs, 0))},
	} {
		var have unix.Rlimit
		if err := unix.Getrlimit(l.which, &have); err != nil {
			return nil, fmt.Errorf("read %s: %w", l.name, err)
		}
		soft := have.Cur
		if l.which == unix.RLIMIT_NOFILE {
			soft = inheritedFiles(soft)
		}
		if soft >= l.min {
			continue
		}
		want := unix.Rlimit{Cur: l.min, Max: max(have.Max, l.min)}
		if err := unix.Setrlimit(l.which, &want); err != nil {
			return nil, &fault.Error{
				Code: "supervisord/limit", Kind: fault.Misuse, Where: s.Position.String(),
				What: fmt.Sprintf("%s asks for %d, and this environment allows %d (%s)", l.key, l.min, have.Max, l.name),
				Fix:  fmt.Sprintf("raise the limit, or lower %s", l.key), Err: err,
			}
		}
		notes = append(notes, Note{conf.LevelInfo, fmt.Sprintf("Increased %s limit to %d", l.name, l.min)})
	}
	return notes, nil
}

// inheritedFiles is the soft limit of descriptors that children get. The Go runtime has raised this process's own as far
// as it goes, and gives children the old one back; only a child can tell which that is.
func inheritedFiles(own uint64) uint64 {
	out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn").Output()
	if err != nil {
		return own
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return own // unlimited
	}
	return n
}
