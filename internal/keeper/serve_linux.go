package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// do carries a request out, events aside; the reply's ID is left to the caller.
func (k *Keeper) do(ctx context.Context, req Request) (Reply, error) {
	missing := misuse("bad-request", fmt.Sprintf("%s without its arguments", req.Op), "")
	switch req.Op {
	case opHello:
		hello := k.describe()
		return Reply{Hello: &hello}, nil
	case opSpawn:
		if req.Spawn == nil {
			return Reply{}, missing
		}
		return k.spawnFor(*req.Spawn)
	case opSignal:
		if req.Signal == nil {
			return Reply{}, missing
		}
		return Reply{}, k.signal(*req.Signal)
	case opKill:
		return Reply{}, k.kill(req.Name)
	case opList:
		return k.list(), nil
	case opForget:
		if k.reserved(req.Name) {
			return Reply{}, reservedName()
		}
		return Reply{}, k.forget(req.Name)
	case opListen:
		if req.Listen == nil {
			return Reply{}, missing
		}
		s, err := k.listen(ctx, *req.Listen)
		return Reply{Sockets: []Socket{s}}, err
	case opUnlisten:
		return Reply{}, k.unlisten(req.Name)
	case opUpgrade:
		if req.Upgrade == nil {
			return Reply{}, missing
		}
		return Reply{}, k.upgrade(*req.Upgrade)
	case opUnstore:
		k.unstore(req.Name)
		return Reply{}, nil
	case opLog:
		if req.Log == nil {
			return Reply{}, missing
		}
		return Reply{}, k.setLog(req.Name, *req.Log)
	case opRotate:
		return Reply{}, k.rotateLog(req.Name)
	case opLimit:
		if req.Limit == nil {
			return Reply{}, missing
		}
		return k.limit(*req.Limit)
	case opShutdown:
		k.ask.Do(func() { close(k.asked) })
		return Reply{}, nil
	default:
		return Reply{}, misuse("unknown-op", fmt.Sprintf("this keeper does not know %q", req.Op),
			"restart the keeper with the newer hozo: hozo down, then hozo up")
	}
}

func (k *Keeper) spawnFor(s Spawn) (Reply, error) {
	if k.reserved(s.Name) {
		return Reply{}, reservedName()
	}
	r, err := k.spawn(s)
	if err != nil {
		return Reply{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.processLocked(r)
	return Reply{Process: &p}, nil
}

// reserved says whether a name is that of the node, which the keeper starts and forgets itself.
func (k *Keeper) reserved(name string) bool { return name == NodeName && len(k.cfg.Node) > 0 }

func reservedName() error {
	return misuse("reserved", fmt.Sprintf("the keeper itself keeps the process %q", NodeName), "choose another name")
}

func (k *Keeper) list() Reply {
	k.mu.Lock()
	defer k.mu.Unlock()
	var r Reply
	for _, name := range slices.Sorted(maps.Keys(k.records)) {
		r.Processes = append(r.Processes, k.processLocked(k.records[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(k.sockets)) {
		r.Sockets = append(r.Sockets, k.sockets[name].describe())
	}
	return r
}

func (k *Keeper) find(name string) (*record, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.records[name]; r != nil {
		return r, nil
	}
	return nil, noProcess(name, slices.Collect(maps.Keys(k.records)))
}

func (k *Keeper) signal(s Signal) error {
	const last = 64 // SIGRTMAX
	if s.Number < 1 || s.Number > last {
		return misuse("bad-request", fmt.Sprintf("there is no signal %d", s.Number), "")
	}
	r, err := k.find(s.Name)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	err = r.signal(syscall.Signal(s.Number), s.Group)
	if errors.Is(err, unix.ESRCH) {
		return failure("not-running", fmt.Sprintf("process %q has ended", s.Name), "", nil)
	}
	if err != nil {
		return fmt.Errorf("signal %s: %w", s.Name, err)
	}
	return nil
}

// kill ends a tree and returns once its exit is told, or when it cannot be ended.
func (k *Keeper) kill(name string) error {
	r, err := k.find(name)
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	default:
	}
	left := k.endTree(r)
	// The leader's exit is told after its own search for the rest and its last output.
	timer := time.NewTimer(killTime + drainTime)
	defer timer.Stop()
	select {
	case <-r.done:
		return nil
	case <-timer.C:
		return failure("unkillable", fmt.Sprintf("processes %s of %q survive SIGKILL",
			strings.Trim(fmt.Sprint(left), "[]"), name), "they wait for a device, most likely; see ps -o pid,wchan", nil)
	}
}
