package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// forkIn forks in the group of a record, within its limits. Where a group cannot be used the process is started all the
// same: then its tree is held together as on a host without cgroups.
func (k *Keeper) forkIn(r *record, program string, argv []string, attr *syscall.ProcAttr) (int, error) {
	made, err := k.groups.make(r.spec.Name, r.run)
	if err != nil {
		k.log.Error("no cgroup for a process", "process", r.spec.Name, "error", err)
		made = nil
	}
	birth := r.spec.Limits
	if birth.PIDs > 0 {
		birth.PIDs++ // the thread that forks may count while it does
	}
	if !birth.empty() {
		made, r.unmet = k.groups.limited(made, r.spec.Name, r.run, birth)
	}
	pid, err := made.fork(program, argv, attr)
	if err != nil && made != nil && groupFailed(err) {
		made.remove()
		attr.Sys.UseCgroupFD = false
		bare, bareErr := syscall.ForkExec(program, argv, attr)
		if bareErr == nil {
			k.log.Error("cgroup of a process not used", "process", r.spec.Name, "error", err)
			for _, knob := range r.spec.Limits.knobs() {
				if knob.set && !isUnmet(r.unmet, knob.limit) {
					r.unmet = append(r.unmet, k.groups.unmet(knob, err))
				}
			}
		}
		return bare, bareErr
	}
	if err != nil {
		made.remove()
		return 0, err
	}
	if r.spec.Limits.PIDs > 0 {
		made, r.unmet = k.groups.limited(made, r.spec.Name, r.run, r.spec.Limits)
	}
	r.group = made
	return pid, nil
}

// limit changes the limits of a process and its tree while they run.
func (k *Keeper) limit(l Limit) (Reply, error) {
	if err := l.Limits.check(l.Name); err != nil {
		return Reply{}, err
	}
	r, err := k.find(l.Name)
	if err != nil {
		return Reply{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.ended != nil {
		return Reply{}, failure("not-running", fmt.Sprintf("process %q has ended", l.Name), "", nil)
	}
	old := r.group
	r.group, r.unmet = k.groups.limited(old, r.spec.Name, r.run, l.Limits)
	members, err := r.moveLocked()
	if err != nil {
		return Reply{}, fmt.Errorf("limit %s: %w", l.Name, err)
	}
	r.unmet = append(r.unmet, l.Limits.impose(r.spec.Limits, members)...)
	r.spec.Limits = l.Limits
	k.depositRecord(r)
	p := k.processLocked(r)
	return Reply{Process: &p}, nil
}

// moveLocked brings the whole tree into its version 1 groups, of which some may be new, and returns its pids.
func (r *record) moveLocked() ([]int, error) {
	moved := map[int]bool{}
	for pass := 0; ; pass++ {
		pids, err := r.pids()
		if err != nil {
			return nil, err
		}
		fresh := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			moved[pid], fresh = true, true
			for _, l := range r.limitGroups() {
				err := writeGroup(l.dir, "cgroup.procs", strconv.Itoa(pid))
				if err != nil && !errors.Is(err, unix.ESRCH) {
					return nil, err
				}
			}
		}
		if !fresh || pass == freezePasses {
			return pids, nil
		}
	}
}

func (r *record) limitGroups() []limitGroup {
	if r.group == nil {
		return nil
	}
	return r.group.limits
}

// pids are the processes of the tree that live.
func (r *record) pids() ([]int, error) {
	if r.group.holds() {
		return r.group.pids()
	}
	alive, err := r.tree.find(true)
	var pids []int
	for _, p := range alive {
		pids = append(pids, p.pid)
	}
	return pids, err
}

// impose sets what each process has for itself. What is no longer limited gets what the keeper has.
func (l Limits) impose(old Limits, pids []int) []Unmet {
	failed, held := map[string]error{}, map[string]error{}
	note := func(limit string, err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			failed[limit] = err
		}
	}
	for _, pid := range pids {
		for _, r := range l.resources() {
			note(r.Name, unix.Prlimit(pid, r.Number, &unix.Rlimit{Cur: *r.Value, Max: *r.Value}, nil))
		}
		for _, r := range old.resources() {
			var own unix.Rlimit
			if l.has(r.Name) || unix.Getrlimit(r.Number, &own) != nil {
				continue
			}
			if err := unix.Prlimit(pid, r.Number, &own, nil); err != nil && err != unix.ESRCH {
				held[r.Name] = err
			}
		}
		if l.Nice != nil || old.Nice != nil {
			note("nice", renice(pid, valueOr(l.Nice, 0)))
		}
		if l.OOMScoreAdj != nil || old.OOMScoreAdj != nil {
			note("oom_score_adj", writeProc(pid, "oom_score_adj", strconv.Itoa(valueOr(l.OOMScoreAdj, 0))))
		}
	}
	var unmet []Unmet
	for _, limit := range []string{"nofile", "nproc", "core", "fsize", "stack", "memlock", "as", "nice", "oom_score_adj"} {
		if err := failed[limit]; err != nil {
			unmet = append(unmet, notPermitted(limit, err))
		}
		if err := held[limit]; err != nil {
			unmet = append(unmet, Unmet{Limit: limit, Why: fmt.Sprintf("the former limit cannot be lifted while it runs: %v", err), Fix: "restart it"})
		}
	}
	return unmet
}

func (l Limits) has(name string) bool {
	for _, r := range l.resources() {
		if r.Name == name {
			return true
		}
	}
	return false
}

func valueOr(p *int, otherwise int) int {
	if p == nil {
		return otherwise
	}
	return *p
}

// renice sets the niceness of every thread of a process; those that start later inherit it.
func renice(pid int, nice int) error {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
		}
		if err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

func writeProc(pid int, file, value string) error {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/"+file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func isUnmet(all []Unmet, limit string) bool {
	for _, u := range all {
		if u.Limit == limit {
			return true
		}
	}
	return false
}
