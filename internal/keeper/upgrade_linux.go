package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// upgrade begins to replace a part of the platform.
func (k *Keeper) upgrade(u Upgrade) error {
	if u.Executable != "" {
		if !filepath.IsAbs(u.Executable) {
			return misuse("bad-request", fmt.Sprintf("binary %q is not an absolute path", u.Executable), "")
		}
		if err := checkProgram(u.Executable); err != nil {
			return err
		}
		if u.State < StateFormat {
			return failure("skew", fmt.Sprintf("the new binary reads state up to format %d, this keeper (%s) leaves format %d",
				u.State, k.cfg.Version, StateFormat), "hozo down, then hozo up with the other version", nil)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return failure("stopping", "the keeper is stopping", "", nil)
	}
	if u.Part != PartNode && k.link == nil {
		return failure("no-standby", "the keeper has no standby that would take over if the new binary failed",
			"hozo down, then hozo up", nil)
	}
	switch {
	case u.Part == PartKeeper:
		k.renewal = u.Executable
		if u.Executable == "" {
			k.renewal = fmt.Sprintf("/proc/%d/exe", k.hello.Standby)
		}
		return k.link.conn.SetReadDeadline(time.Unix(1, 0)) // wakes followStandby, which alone reads the link
	case u.Part == PartStandby && u.Executable != "":
		return k.link.send(parcel{Op: opRenew, Key: u.Executable})
	case u.Part == PartNode:
		r := k.records[NodeName]
		if r == nil || !k.reserved(NodeName) {
			return misuse("no-process", "this keeper has no node", "")
		}
		_ = r.signal(unix.SIGTERM, false) // keepNode starts it again, or does so already
		return nil
	default:
		return misuse("bad-request", fmt.Sprintf("part %q cannot be upgraded so", u.Part), "")
	}
}

// become makes this process the binary that was asked for: its pid, its children and its link stay. It has everything
// handed over again, as if it had been started by the standby, which starts the old binary should this one fail. Only
// followStandby may call it, as nobody else may read the link meanwhile.
func (k *Keeper) become() {
	k.mu.Lock() // nothing forks or changes any more
	defer k.mu.Unlock()
	_ = k.link.conn.SetReadDeadline(time.Time{}) // else the next receive fails and comes here again
	if k.renewal == "" || k.stopping {
		return
	}
	path := k.renewal
	k.renewal = ""
	fd, err := k.link.file()
	if err == nil {
		if err = k.link.send(parcel{Op: opResend}); err == nil {
			k.log.Info("keeper becomes another binary", "path", path)
			err = syscall.Exec(path, os.Args, withRole(roleActive, fd))
			_ = k.link.send(parcel{Op: opReady}) // the standby hears clients served again; what it hands over is ignored
		}
		closeAll([]int{fd})
	}
	k.log.Error("keeper cannot become another binary", "path", path, "error", err)
}

// describe is what hello answers.
func (k *Keeper) describe() Hello {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.hello
	h.StandbyVersion, h.StandbyStarted = k.standby.Version, k.standby.Started
	return h
}
