package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// cold is the part of a Spec that is fixed when its process starts. Field names are part of the hash, and hashes are
// kept beside processes that outlive an upgrade: rename or reorder a field and every service restarts once.
// Lists are omitted when empty: nil and empty mean the same.
type cold struct {
	Name    string
	Service string
	Argv    []string `json:",omitempty"`
	Env     []string `json:",omitempty"`
	Dir     string
	UID     *uint32
	GID     *uint32
	Groups  []uint32 `json:",omitempty"`
	Listen  []Listen `json:",omitempty"`
	Notify  bool

	Watchdog time.Duration     `json:",omitempty"` // it is in the environment
	Binary   string            `json:",omitempty"`
	Wiring   map[string]string `json:",omitempty"`
}

// hot is the part of a Spec that can change under a running process.
type hot struct {
	Health   *Health
	Liveness *Health
	Restart  Restart
	Stop     Stop
	Needs    []Need `json:",omitempty"`
	Log      Log
	Rolling  Rolling
	Node     map[string]string `json:",omitempty"`
	Limits   Limits

	Schedule  *Schedule `json:",omitempty"`
	Hooks     []Hook    `json:",omitempty"`
	Essential bool      `json:",omitempty"`
}

// Hash names the cold part of s. Two Specs of equal Hash can be served by the same process. Defaults have no part in
// it, and neither has the order of different keys in Env.
func (s Spec) Hash() string { return digest(s.cold()) }

func (s Spec) cold() cold {
	env := slices.Clone(s.Env)
	// Stable: of two lines with one key the later one counts, so their order means something.
	slices.SortStableFunc(env, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	return cold{
		Name: s.Name, Service: s.Service, Argv: s.Argv, Env: env, Dir: s.Dir,
		UID: s.UID, GID: s.GID, Groups: s.Groups, Listen: s.Listen, Notify: s.Notify, Watchdog: s.Watchdog,
		Binary: s.Binary, Wiring: s.Wiring,
	}
}

// HotHash names the hot part of s.
func (s Spec) HotHash() string { return digest(s.hot()) }

func (s Spec) hot() hot {
	s = s.WithDefaults()
	return hot{
		Health: s.Health, Liveness: s.Liveness, Restart: s.Restart, Stop: s.Stop, Needs: s.Needs, Log: s.Log, Limits: s.Limits, Rolling: s.Rolling, Node: s.Node,
		Schedule: s.Schedule, Hooks: s.Hooks, Essential: s.Essential,
	}
}

func key(line string) string {
	k, _, _ := strings.Cut(line, "=")
	return k
}

func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("plan: internal error: a spec that JSON cannot hold: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]) // 128 bits: no two specs of a project meet by chance
}
