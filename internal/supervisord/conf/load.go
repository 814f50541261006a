package conf

import "errors"

// Options is what Load knows of the daemon. The zero Options is an empty environment on a host without a name.
type Options struct {
	// Environ is the daemon's environment, as os.Environ gives it: %(ENV_X)s.
	Environ []string
	// NodeName is %(host_node_name)s.
	NodeName string
}

// Warning is something in the file that does not stop the daemon.
type Warning struct {
	Code     string // stable: supervisord/what
	Text     string // Supervisor's own words where it has some
	Fix      string
	Position Position
}

// Load reads the configuration at path and the files it includes.
//
// The error joins one *fault.Error of Kind Misuse for each mistake; Message gives Supervisor's words for it. Nothing is
// created or changed on disk, so Load may be called on a running daemon to see what would change.
func Load(path string, opts Options) (*Config, []Warning, error) {
	return nil, nil, errors.New("supervisord/conf: Load is not written yet")
}
