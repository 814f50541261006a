package keeper

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
)

// The keys of the entries that a standby holds for a keeper.
const (
	keyLock         = "lock"          // the claim on the state directory
	keyClients      = "clients"       // listener of keeper.sock
	keyNotify       = "notify"        // STATE/notify.sock
	keyPublicNotify = "notify-public" // the abstract one
	keySocket       = "socket/"       // + name: heldSocket and its descriptor
	keyProcess      = "process/"      // + name: heldProcess, its output pipe and its pidfd
	keyStored       = "stored/"       // + number: heldFile and its descriptor
)

// heldSocket is a socket as the next keeper gets it.
type heldSocket struct {
	Asked   Listen `json:"asked"`
	Network string `json:"network"`
	Address string `json:"address"`
}

// heldProcess is a record as the next keeper gets it: without the environment, which may hold secrets and which nobody
// needs once the process runs, and with argv[0] alone.
type heldProcess struct {
	Spec    Spawn         `json:"spec"`
	Run     string        `json:"run"`
	PID     int           `json:"pid"` // 0: it was about to be forked
	Start   uint64        `json:"start"`
	Started time.Time     `json:"started"`
	Since   time.Duration `json:"since"`
	Ready   bool          `json:"ready,omitempty"`
	Status  string        `json:"status,omitempty"`
	Said    Said          `json:"said,omitzero"`
	Access  string        `json:"access,omitempty"`
	Main    uint64        `json:"main,omitempty"` // start time of Said.MainPID
	Line    bool          `json:"line,omitempty"`
	Dropped uint64        `json:"dropped,omitempty"`
	Unmet   []Unmet       `json:"unmet,omitempty"`
	Ended   *Exit         `json:"ended,omitempty"` // the leader has ended so; its tree and its output may be left
	Exit    *Exit         `json:"exit,omitempty"`
}

// heldFile is a file of the fd store as the next keeper gets it.
type heldFile struct {
	Process string `json:"process"`
	Name    string `json:"name"`
	Polled  bool   `json:"polled,omitempty"`
}

func (r *record) held() heldProcess {
	spec := r.spec
	spec.Env, spec.Argv = nil, spec.Argv[:1]
	return heldProcess{
		Spec: spec, Run: r.run, PID: r.pid, Start: r.start, Started: r.started, Since: r.since, Ready: r.ready, Status: r.status,
		Said: r.said, Access: r.access, Main: r.main.start, Line: r.line,
		Dropped: r.capture.dropped.Load(), Unmet: r.unmet, Ended: r.ended, Exit: r.exit,
	}
}

// deposit leaves an entry with the standby, so that it outlives this process from now on. An entry that is too long is
// an error; a standby that is gone or hangs is replaced, and gets everything then.
func (k *Keeper) deposit(op, key string, value any, fds ...int) error {
	if k.link == nil {
		return nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	err = k.link.send(parcel{Op: op, Key: key, Value: data}, fds...)
	if fault.Code(err) != "" {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		k.log.Error("standby hangs and is ended", "standby", k.hello.Standby)
		k.endStandby()
	}
	return nil
}

// endStandby kills the standby, which as the parent keeps its pid for as long as it is one.
func (k *Keeper) endStandby() {
	if os.Getppid() == k.hello.Standby {
		_ = unix.Kill(k.hello.Standby, unix.SIGKILL) // it may have ended just now
	}
}

// depositRecord leaves what is known of a process. Its labels were measured when it was spawned, so it fits.
func (k *Keeper) depositRecord(r *record, fds ...int) {
	op := opPut
	if r.exit != nil {
		op = opShut
	}
	if err := k.deposit(op, keyProcess+r.spec.Name, r.held(), fds...); err != nil {
		k.log.Error("state of a process not left with the standby", "process", r.spec.Name, "error", err)
	}
}

func (k *Keeper) withdraw(key string) {
	if err := k.deposit(opDrop, key, nil); err != nil {
		k.log.Error("entry not taken from the standby", "key", key, "error", err)
	}
}

// followStandby hears the standby until its end, and then takes its place.
func (k *Keeper) followStandby() {
	for {
		p, err := k.link.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			k.become() // it returns when it could not
			continue
		}
		if err != nil {
			close(k.unlinked)
			k.stepUp()
			return
		}
		closeAll(p.fds)
		switch p.Op {
		case opExited:
			if p.Exit != nil {
				k.inherited(p.PID, *p.Exit)
			}
		case opHello:
			k.standbyIs(p.Value)
		case opGone:
			if gone, ok := k.awaited.LoadAndDelete(p.Key); ok {
				close(gone.(chan struct{}))
			}
		}
	}
}

// awaitGone waits until the standby has closed a socket: only then can its address be used again.
func (k *Keeper) awaitGone(gone <-chan struct{}) {
	timer := time.NewTimer(linkTime)
	defer timer.Stop()
	select {
	case <-gone:
	case <-k.unlinked: // with the standby
	case <-timer.C:
		k.log.Error("standby does not close a socket", "standby", k.hello.Standby)
	}
}

// inherited takes the exit of a child of the standby, and lets it go. Those that no record has are orphans.
func (k *Keeper) inherited(pid int, exit Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.live[pid]; r != nil {
		if p, err := readProc(pid); err == nil && p.identity == r.leader() {
			k.leaderGoneLocked(r, exit, nil)
		}
	}
	_ = k.link.send(parcel{Op: opReap, PID: pid}) // a link that has ended is seen by the next receive
}

// standbyIs takes the standby's word on its version.
func (k *Keeper) standbyIs(value json.RawMessage) {
	var h Hello
	if err := json.Unmarshal(value, &h); err != nil {
		k.log.Error("word of the standby not understood", "error", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.standby = h
}

// versionJSON is who this process is.
func (k *Keeper) versionJSON() json.RawMessage {
	data, err := json.Marshal(k.hello)
	if err != nil {
		return nil // our own types always encode
	}
	return data
}

// stepUp makes this process the standby, once it has none, and that starts a keeper of its own: so the children keep
// their parent, who alone learns how they end.
func (k *Keeper) stepUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return
	}
	k.log.Warn("standby is gone, the keeper takes its place", "standby", k.hello.Standby)
	err := k.imageLocked().become(ownImage)
	k.log.Error("keeper goes on without a standby: its end would be the end of every service", "error", err)
	k.link, k.hello.Standby = nil, 0
	k.disinheritLocked()
}

// imageLocked is everything that this keeper would have left with its standby.
func (k *Keeper) imageLocked() image {
	img := image{Format: StateFormat}
	add := func(key string, value any, fds ...int) {
		data, err := json.Marshal(value)
		if err != nil {
			k.log.Error("entry not kept", "key", key, "error", err) // our own types always encode
			return
		}
		img.Entries = append(img.Entries, imageEntry{key, data, fds})
	}
	add(keyLock, nil, k.base[keyLock])
	add(keyClients, nil, k.base[keyClients])
	add(keyNotify, nil, k.base[keyNotify])
	if fd, ok := k.base[keyPublicNotify]; ok {
		add(keyPublicNotify, nil, fd)
	}
	for name, s := range k.sockets {
		add(keySocket+name, s.held(), int(s.file.Fd()))
	}
	for name, r := range k.records {
		var fds []int
		if pipe, err := duplicate(r.capture.pipe); r.exit == nil && err == nil { // else its output has ended
			if fds = append(fds, pipe); r.pidfd >= 0 {
				fds = append(fds, r.pidfd)
			}
		}
		add(keyProcess+name, r.held(), fds...)
	}
	for _, files := range k.store.files {
		for _, f := range files {
			add(f.key, f.heldFile, f.fd)
		}
	}
	return img
}

// duplicate returns another descriptor of a file that may be closed at any time.
func duplicate(file *os.File) (fd int, err error) {
	if file == nil {
		return -1, os.ErrClosed
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	dupErr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(dupErr, err)
}
