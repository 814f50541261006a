//go:build linux

package supervisord

import (
	"os"
	"path/filepath"
	"regexp"
)

// clearAutoLogs removes the AUTO logs of earlier runs of this daemon, which have its identifier in their names.
func (d *Daemon) clearAutoLogs() {
	s := d.conf.Supervisord
	// The identifier goes into the pattern as it is in Supervisor; here it stands for itself alone.
	pattern, err := regexp.Compile(`^.+?---` + regexp.QuoteMeta(s.Identifier) + `-\S+\.log\.?\d{0,4}`)
	if err != nil {
		d.log.warn("Could not clear childlog dir")
		return
	}
	entries, err := os.ReadDir(s.ChildLogDir)
	if err != nil {
		d.log.warn("Could not clear childlog dir")
		return
	}
	for _, e := range entries {
		if !pattern.MatchString(e.Name()) || e.IsDir() {
			continue
		}
		path := filepath.Join(s.ChildLogDir, e.Name())
		if err := os.Remove(path); err != nil {
			d.log.warn("Failed to clean up %s", quote(path))
		}
	}
}
