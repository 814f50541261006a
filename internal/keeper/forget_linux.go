package keeper

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// forget drops the record of a dead process.
func (k *Keeper) forget(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.records[name]
	if r == nil {
		return noProcess(name, slices.Collect(maps.Keys(k.records)))
	}
	if r.exit == nil {
		return failure("still-running", fmt.Sprintf("process %q has not ended", name), "kill it first", nil)
	}
	k.forgetLocked(r)
	return nil
}

func (k *Keeper) forgetLocked(r *record) {
	delete(k.records, r.spec.Name)
	k.withdraw(keyProcess + r.spec.Name)
	if r.exit != nil && len(r.exit.Survivors) > 0 {
		k.noteLocked(namedIdentity{Name: r.spec.Name, Run: r.run, Ended: true})
	}
}

func noProcess(name string, known []string) error {
	slices.Sort(known)
	return misuse("no-process", fmt.Sprintf("no process %q", name), "one of: "+strings.Join(known, ", "))
}
