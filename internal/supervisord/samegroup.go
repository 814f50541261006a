//go:build linux

package supervisord

import (
	"reflect"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// sameGroup says whether a group that was read anew is the one that runs. As in Supervisor, whatever the new one leaves
// to the daemon (an AUTO log or server) counts as equal, and so do fcgi sockets of one URL. Every other field counts:
// what is compared are copies without what does not.
func sameGroup(running, read *conf.Group) bool {
	if len(running.Programs) != len(read.Programs) {
		return false
	}
	a, b := *running, *read
	a.Position, b.Position = conf.Position{}, conf.Position{}
	a.Programs, b.Programs = nil, nil
	if a.Socket != nil && b.Socket != nil && a.Socket.URL() == b.Socket.URL() {
		a.Socket, b.Socket = nil, nil
	}
	if !reflect.DeepEqual(a, b) {
		return false
	}
	for i := range running.Programs {
		if !sameProgram(running.Programs[i], read.Programs[i]) {
			return false
		}
	}
	return true
}

func sameProgram(running, read conf.Program) bool {
	for _, p := range []*conf.Program{&running, &read} {
		p.Position, p.Section, p.Number, p.Count, p.User = conf.Position{}, "", 0, 0, "" // UID says who the user is
		if len(p.Environment) == 0 {
			p.Environment = nil
		}
	}
	if running.ServerURL == "" || read.ServerURL == "" {
		running.ServerURL, read.ServerURL = "", ""
	}
	for _, l := range [][2]*conf.Log{{&running.Stdout, &read.Stdout}, {&running.Stderr, &read.Stderr}} {
		if l[1].Kind == conf.LogAuto {
			l[0].Kind, l[0].Path, l[1].Path = conf.LogAuto, "", ""
		}
	}
	return reflect.DeepEqual(running, read)
}
