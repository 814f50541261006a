package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxIdentitiesBytes bounds keeper.json when it is read: maxProcesses entries and spareLines, of less than 1 KiB each.
	maxIdentitiesBytes = 4 << 20
	// spareLines is how many lines keeper.json may have beyond two for each process before it is written anew.
	spareLines = 256
)

// identities is keeper.json: whom the next keeper has to end when this one is killed. What happens after it was written
// follows it, one namedIdentity a line, so that a spawn among a thousand costs no more than the first.
type identities struct {
	BootID    string          `json:"boot_id"`
	Keeper    int             `json:"keeper"`           // pid, for people
	Groups    []string        `json:"groups,omitempty"` // folders of its cgroups
	Processes []namedIdentity `json:"processes"`
}

type namedIdentity struct {
	Name      string `json:"name"`
	Run       string `json:"run"`
	PID       int    `json:"pid"` // 0: about to be forked
	StartTime uint64 `json:"start_time"`
	Ended     bool   `json:"ended,omitempty"` // in a line after the rest: nothing is left of it
}

func identitiesPath(state string) string { return filepath.Join(state, "keeper.json") }

// ledger is keeper.json while it is written.
type ledger struct {
	file   *os.File // nil: it has to be written anew
	lines  int      // since it was
	groups int      // folders that it names
	failed bool     // it could not be written last time
	over   bool     // it was removed and must not come back
}

func (r *record) identity() namedIdentity {
	return namedIdentity{Name: r.spec.Name, Run: r.run, PID: r.pid, StartTime: r.start}
}

// noteLocked adds what has happened to a process. A disk that is full must stop no service, so an error is logged, once.
func (k *Keeper) noteLocked(id namedIdentity) {
	l := &k.ledger
	if l.file == nil || l.groups != len(k.groups.folders()) || l.lines > 2*len(k.records)+spareLines {
		k.saveLocked(id)
		return
	}
	line, err := json.Marshal(id)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	l.lines++
	if err != nil {
		k.saveLocked(id) // half a line may be there
	}
}

// saveLocked writes keeper.json anew, with every process that may still live and one that is about to be forked.
func (k *Keeper) saveLocked(coming ...namedIdentity) {
	if k.ledger.over {
		return
	}
	folders := k.groups.folders()
	ids := identities{BootID: k.hello.BootID, Keeper: k.hello.PID, Groups: folders, Processes: []namedIdentity{}}
	for _, one := range coming {
		if known := k.records[one.Name]; !one.Ended && (known == nil || known.run != one.Run) {
			ids.Processes = append(ids.Processes, one)
		}
	}
	for _, r := range k.records {
		if r.exit == nil || len(r.exit.Survivors) > 0 {
			ids.Processes = append(ids.Processes, r.identity())
		}
	}
	slices.SortFunc(ids.Processes, func(a, b namedIdentity) int { return strings.Compare(a.Name, b.Name) })
	k.ledger.close()
	file, err := writeIdentities(identitiesPath(k.cfg.State), ids)
	if err != nil && !k.ledger.failed {
		k.log.Error("identities of processes not saved", "error", err)
	}
	k.ledger = ledger{file: file, groups: len(folders), failed: err != nil}
}

func (l *ledger) close() {
	if l.file != nil {
		_ = l.file.Close() // every write's error was seen
		l.file = nil
	}
}

// writeIdentities replaces the file as a whole and returns it to be added to. It is not synced: after a loss of power
// there is nobody left to end.
func writeIdentities(path string, ids identities) (*os.File, error) {
	data, err := json.MarshalIndent(ids, "", " ")
	if err != nil {
		return nil, err
	}
	temp := path + ".new"
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(append(data, '\n'))
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func readIdentities(path string) (identities, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identities{}, nil
	}
	if err != nil {
		return identities{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIdentitiesBytes))
	if err != nil {
		return identities{}, err
	}
	return parseIdentities(data)
}

// parseIdentities reads keeper.json. Its last line may be cut: the keeper was killed, or the disk was full, as it was
// written, and what it was to tell had not happened yet.
func parseIdentities(data []byte) (identities, error) {
	var ids identities
	in := json.NewDecoder(bytes.NewReader(data))
	if err := in.Decode(&ids); err != nil {
		return identities{}, err
	}
	for {
		var id namedIdentity
		err := in.Decode(&id)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return identities{}, err
		}
		ids.Processes = slices.DeleteFunc(ids.Processes, func(p namedIdentity) bool { return p.Run == id.Run })
		if !id.Ended {
			ids.Processes = append(ids.Processes, id)
		}
	}
	for _, p := range ids.Processes {
		if p.PID < 0 || p.PID == 1 || p.Run == "" {
			return identities{}, fmt.Errorf("process %q has pid %d and run %q", p.Name, p.PID, p.Run)
		}
	}
	return ids, nil
}

func (k *Keeper) removeIdentities() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.ledger.close()
	for _, r := range k.records {
		if r.exit == nil || len(r.exit.Survivors) > 0 {
			k.saveLocked() // something could not be killed: the next keeper tries again
			return nil
		}
	}
	k.ledger.over = true
	err := os.Remove(identitiesPath(k.cfg.State))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
