package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func checkSpawn(s Spawn) error {
	labels, err := json.Marshal(s.Labels)
	if err != nil {
		return err
	}
	_, bad := regexp.Compile(s.ReadyLine)
	switch {
	case !goodName(s.Name):
		return misuse("bad-request", fmt.Sprintf("process name %q is empty, too long or not printable", s.Name), "")
	case len(s.Argv) == 0 || !filepath.IsAbs(s.Argv[0]):
		return misuse("bad-request", fmt.Sprintf("program of %s is not an absolute path", s.Name), "")
	case s.Dir != "" && !filepath.IsAbs(s.Dir):
		return misuse("bad-request", fmt.Sprintf("folder of %s is not an absolute path", s.Name), "")
	case s.Store != "" && !goodName(s.Store):
		return misuse("bad-request", fmt.Sprintf("store %q of %s is no name", s.Store, s.Name), "")
	case s.Watchdog < 0:
		return misuse("bad-request", fmt.Sprintf("watchdog of %s is negative", s.Name), "")
	case bad != nil:
		return misuse("bad-request", fmt.Sprintf("ready line of %s: %v", s.Name, bad), "")
	case s.Limits.check(s.Name) != nil:
		return s.Limits.check(s.Name)
	case len(labels) > maxLabelBytes:
		return misuse("bad-request", fmt.Sprintf("labels of %s are longer than %d bytes", s.Name, maxLabelBytes), "")
	}
	if err := checkLog(s.Name, s.Log); err != nil {
		return err
	}
	for _, text := range slices.Concat(s.Argv, s.Env, []string{s.Dir, s.Log.Path}) {
		if strings.ContainsRune(text, 0) {
			return misuse("bad-request", fmt.Sprintf("a text of %s holds a zero byte", s.Name), "")
		}
	}
	return nil
}

// goodName says whether a name can stand in a log line and in LISTEN_FDNAMES.
func goodName(name string) bool {
	odd := func(r rune) bool { return r == ':' || r == '/' || !strconv.IsPrint(r) }
	return name != "" && len(name) <= maxNameBytes && !strings.ContainsFunc(name, odd)
}

// credential is nil when the child runs as the keeper does; then no right is needed for it.
func credential(s Spawn) (*syscall.Credential, error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if s.UID == nil && s.GID == nil && len(s.Groups) == 0 {
		return nil, nil
	}
	want := &syscall.Credential{Uid: uid, Gid: gid, Groups: s.Groups}
	if s.UID != nil {
		want.Uid = *s.UID
	}
	switch {
	case s.GID != nil:
		want.Gid = *s.GID
	case want.Uid != uid:
		u, err := user.LookupId(strconv.FormatUint(uint64(want.Uid), 10))
		if err != nil {
			return nil, failure("unknown-user", fmt.Sprintf("user %d of %s has no entry, so its group is unknown",
				want.Uid, s.Name), "name a group, or make the user", err)
		}
		main, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read group of user %d: %w", want.Uid, err)
		}
		want.Gid = uint32(main)
	}
	if want.Uid == uid && want.Gid == gid && len(s.Groups) == 0 {
		return nil, nil
	}
	return want, nil
}
