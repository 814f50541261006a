package keeper

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// endLeftovers kills the trees that a killed keeper of the same boot left. One that cannot be ended is a reason not to
// start: its service would run twice.
func (k *Keeper) endLeftovers() error {
	path := identitiesPath(k.cfg.State)
	ids, err := readIdentities(path)
	if err != nil && beforeBoot(path) {
		k.log.Warn("identities damaged before the machine started are of no use", "path", path, "error", err)
		return nil
	}
	if err != nil {
		e := failure("bad-identities", "cannot tell what the last keeper left running",
			"end the project's processes, then remove the file", err)
		e.Where = path
		return e
	}
	if ids.BootID != k.hello.BootID {
		ids.Groups, ids.Processes = nil, nil // nothing outlives a boot
	}
	left, err := k.groups.endLeftovers(ids.Groups)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return survivors(path, "processes", left)
	}
	for _, p := range ids.Processes {
		t := newTree(p.Run, identity{p.PID, p.StartTime})
		found, err := t.find(true)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			continue
		}
		k.log.Warn("leftover of a killed keeper is ended", "process", p.Name, "pid", p.PID, "tree", len(found))
		left, err := t.end(time.Now().Add(killTime))
		if err != nil {
			return fmt.Errorf("end leftover %s: %w", p.Name, err)
		}
		if len(left) > 0 {
			return survivors(path, p.Name, left)
		}
	}
	return nil
}

func survivors(path, what string, left []int) error {
	return at(path, failure("leftovers", fmt.Sprintf("%s of the last keeper cannot be killed: %v", what, left),
		"end them, then start again", nil))
}

// beforeBoot says whether a file was last written before the machine was started. A loss of power can leave keeper.json
// empty, which must not keep the next boot from starting.
func beforeBoot(path string) bool {
	var up unix.Timespec
	info, err := os.Stat(path)
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return false
	}
	return info.ModTime().Before(time.Now().Add(-time.Duration(up.Nano())))
}
