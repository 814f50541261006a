package node

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/wire"
)

// brokerName is the instance and the service of the broker. A manifest cannot name a service so.
const brokerName = "broker"

// brokerGrace is how long a broker may take to flush its store and to recover it.
const brokerGrace = 2 * time.Minute

// brokerRetry is the longest pause before a broker that fails is started again, however often it has failed: everybody
// waits for it, and what kept it from starting, a full disk for example, may be gone at any moment.
const brokerRetry = 2 * time.Second

// brokerSpec is the broker as an instance that the supervisor keeps.
func (n *Node) brokerSpec(m *manifest.Manifest, port int) plan.Spec {
	argv := []string{n.cfg.Executable, "broker", "--state", n.cfg.State, "--port", strconv.Itoa(port)}
	if m.Broker.Memory > 0 {
		argv = append(argv, "--memory", strconv.FormatInt(int64(m.Broker.Memory), 10))
	}
	if m.Broker.Store > 0 {
		argv = append(argv, "--store", strconv.FormatInt(int64(m.Broker.Store), 10))
	}
	if slices.ContainsFunc(m.Streams, func(s manifest.Stream) bool { return s.Durability == manifest.DurabilityPower && !s.GroupCommit() }) {
		argv = append(argv, "--sync-always")
	}
	argv = append(argv, doorArgs(m.Broker)...)
	return plan.Spec{
		Name: brokerName, Service: brokerName, Argv: argv, Env: n.environment(nil), Dir: n.cfg.State, Notify: true,
		Health:  &plan.Health{Notify: true, Grace: brokerGrace},
		Restart: plan.Restart{Max: brokerRetry, RetryAfter: brokerRetry},
		Stop:    plan.Stop{Grace: brokerGrace},
		Log:     plan.Log{Path: n.state.log(brokerName), MaxBytes: 16 << 20, Keep: 4},
	}
}

// specsOf turns the services of m into instances. With fresh it looks at the files of their programs. Mistakes that only this host can show (an unknown user) are faults.
func (n *Node) specsOf(m *manifest.Manifest, grants []wire.Grant, port int, fresh bool) ([]plan.Spec, error) {
	specs := []plan.Spec{n.brokerSpec(m, port)}
	var bad []error // of files, which are reported all together
	for _, s := range m.Services {
		fromFiles, err := envFiles(s)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		var who account
		if s.User != "" {
			if who, err = accountOf(s); err != nil {
				return nil, err
			}
		}
		for i := 1; i <= s.Scale; i++ {
			name := instanceName(s.Name, i)
			spec := plan.Spec{
				Name: name, Service: s.Name, Argv: n.argv(s), Dir: s.Dir, Notify: true,
				Watchdog: s.Watchdog, Health: health(s, s.Health), Liveness: health(s, s.Liveness),
				Restart: plan.Restart(s.Restart),
				Node:    own(s),
				Rolling: plan.Rolling(s.Rolling),
				Stop:    plan.Stop{Signal: unix.SignalNum("SIG" + strings.TrimPrefix(s.Stop.Signal, "SIG")), Grace: s.Stop.Grace},
				Log:     logOf(n.state.log(name), s.Log),
			}
			if spec.Limits, err = limitsOf(s); err != nil {
				return nil, err
			}
			if s.User != "" {
				spec.UID, spec.GID, spec.Groups = &who.uid, &who.gid, who.groups
			}
			for _, l := range s.Listen {
				spec.Listen = append(spec.Listen, plan.Listen{Name: l.Name, Network: l.Network, Address: l.Address})
			}
			for _, need := range s.Needs {
				spec.Needs = append(spec.Needs, plan.Need(need))
			}
			spec.Schedule, spec.Hooks, spec.Essential = scheduleOf(s), hooksOf(s), s.Essential
			env := map[string]string{wire.EnvProject: m.Project, wire.EnvService: s.Name, wire.EnvInstance: strconv.Itoa(i)}
			if s.User != "" {
				env["HOME"], env["USER"], env["LOGNAME"] = who.home, who.name, who.name
			}
			maps.Copy(env, fromFiles)
			maps.Copy(env, s.Env)
			if usesBus(s) {
				spec.Needs = append(spec.Needs, plan.Need{Service: brokerName, Condition: plan.Ready})
				env[wire.EnvBus] = fmt.Sprintf("nats://127.0.0.1:%d", port)
				env[wire.EnvGrant] = n.state.grant(name)
				// Programs read their grant once: changed wiring must be a change to the plan.
				spec.Wiring = wiring(grants, name)
			}
			spec.Env = n.environment(env)
			specs = append(specs, spec)
		}
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	for i := range specs {
		specs[i].Binary = n.binaries.digest(specs[i].Argv[0], fresh)
	}
	return specs, nil
}

func logOf(path string, l manifest.Log) plan.Log {
	return plan.Log{Path: path, MaxBytes: int64(l.MaxBytes), Keep: l.Keep, Age: l.Age, Compress: l.Compress, Full: l.Full}
}

// own are the settings of a service that the node, or the command line, acts on. They take part in the difference.
func own(s manifest.Service) map[string]string {
	settings := map[string]string{}
	if len(s.Build) > 0 {
		settings["build"] = strings.Join(s.Build, "\x00")
	}
	if a := s.Autoscale; a != nil {
		for name, value := range map[string]any{
			"min": a.Min, "max": a.Max, "on": a.On, "target": a.Target, "grow_after": a.GrowAfter, "shrink_after": a.ShrinkAfter,
		} {
			settings["scale."+name] = fmt.Sprint(value)
		}
	}
	return settings
}

func (n *Node) argv(s manifest.Service) []string {
	if s.Builtin != "" {
		return []string{n.cfg.Executable, "service", s.Builtin}
	}
	return program(s.Run, s.Dir)
}

// program returns a command with the absolute path of its program.
func program(command []string, dir string) []string {
	argv := slices.Clone(command)
	switch {
	case filepath.IsAbs(argv[0]):
	case strings.Contains(argv[0], "/"):
		argv[0] = filepath.Join(dir, argv[0])
	default:
		found, err := exec.LookPath(argv[0])
		if err != nil {
			// The start will fail with this path in its reason, which names what is missing.
			found = filepath.Join(dir, argv[0])
		}
		argv[0] = found
	}
	return argv
}

// environment is what an instance sees: the node's own environment without the platform's variables, and extra over it.
func (n *Node) environment(extra map[string]string) []string {
	all := map[string]string{}
	for _, kv := range n.cfg.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "HOZO_") || strings.HasPrefix(name, "LISTEN_") || name == "NOTIFY_SOCKET" || name == "PORT" {
			continue
		}
		all[name] = value
	}
	maps.Copy(all, extra)
	env := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}

// health resolves a check of a service to addresses and programs.
func health(s manifest.Service, h *manifest.Health) *plan.Health {
	if h == nil {
		return nil
	}
	resolved := &plan.Health{
		Notify: h.Notify, Log: h.Log,
		Interval: h.Interval, Timeout: h.Timeout, Grace: h.Grace, Failures: h.Failures, Successes: h.Successes,
	}
	listener := func(name string) (manifest.Listen, bool) {
		i := slices.IndexFunc(s.Listen, func(l manifest.Listen) bool { return l.Name == name })
		if i < 0 {
			return manifest.Listen{}, false
		}
		return s.Listen[i], true
	}
	switch {
	case strings.HasPrefix(h.HTTP, "http://") || strings.HasPrefix(h.HTTP, "https://"):
		resolved.HTTP = h.HTTP
	case h.HTTP != "" && len(s.Listen) > 0:
		l := s.Listen[0]
		if l.Network == "unix" {
			resolved.HTTP, resolved.Unix = "http://unix"+h.HTTP, l.Address
		} else {
			resolved.HTTP = "http://" + l.Address + h.HTTP
		}
	case h.TCP != "":
		resolved.TCP = h.TCP
		if l, ok := listener(h.TCP); ok {
			resolved.TCP = l.Address
		}
	case h.GRPC != "":
		resolved.GRPC, resolved.Service, _ = strings.Cut(h.GRPC, "/")
		if l, ok := listener(resolved.GRPC); ok && l.Network == "unix" {
			resolved.Unix = l.Address
		} else if ok {
			resolved.GRPC = l.Address
		}
	case len(h.Exec) > 0:
		resolved.Exec = program(h.Exec, s.Dir)
	}
	return resolved
}
