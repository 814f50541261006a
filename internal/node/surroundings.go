package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/envfile"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
)

// envFiles reads the env_files of a service; later ones win. Every mistake in any of them comes back. The values become
// part of a Spec's environment, so a changed value restarts the service, and only a hash of them is ever written down.
func envFiles(s manifest.Service) (map[string]string, error) {
	all := map[string]string{}
	var errs []error
	for _, f := range s.EnvFile {
		values, err := envfile.Load(f.Path, f.Optional)
		errs = append(errs, err)
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if reservedVariable(name) {
				errs = append(errs, &fault.Error{
					Code: "node/reserved-name", Kind: fault.Misuse, Where: f.Path,
					What: fmt.Sprintf("an env_file of service %q sets %s, which the platform sets itself", s.Name, name), Fix: "remove it",
				})
			}
		}
		maps.Copy(all, values)
	}
	return all, errors.Join(errs...)
}

// reservedVariable says whether the platform alone may set a variable.
func reservedVariable(name string) bool {
	return strings.HasPrefix(name, "HOZO_") || slices.Contains([]string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"}, name)
}

func scheduleOf(s manifest.Service) *plan.Schedule {
	if s.Schedule == nil {
		return nil
	}
	return &plan.Schedule{
		Cron: s.Schedule.Cron, Every: s.Schedule.Every, Zone: s.Schedule.Zone,
		Overlap: s.Schedule.Overlap, Missed: s.Schedule.Missed, Jitter: s.Schedule.Jitter,
	}
}

func hooksOf(s manifest.Service) []plan.Hook {
	var all []plan.Hook
	for _, h := range []struct {
		moment string
		hook   *manifest.Hook
	}{
		{plan.BeforeStart, s.Hooks.BeforeStart},
		{plan.AfterReady, s.Hooks.AfterReady},
		{plan.BeforeStop, s.Hooks.BeforeStop},
		{plan.AfterStop, s.Hooks.AfterStop},
	} {
		if h.hook != nil {
			all = append(all, plan.Hook{Moment: h.moment, Argv: program(h.hook.Run, s.Dir), Timeout: h.hook.Timeout})
		}
	}
	return all
}
