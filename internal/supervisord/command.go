//go:build linux

package supervisord

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// command is a program ready to be executed.
type command struct {
	file string
	argv []string
}

// commandError says why a command cannot be run, in Supervisor's words; missing tells NO_FILE from NOT_EXECUTABLE.
type commandError struct {
	text    string
	missing bool
}

func (e *commandError) Error() string { return e.text }

// findCommand splits the command of a program and finds the file that it names, through PATH if it has no slash.
func findCommand(p *conf.Program) (command, *commandError) {
	argv, err := conf.Split(p.Command)
	if err != nil {
		return command{}, &commandError{text: "can't parse command " + quote(p.Command) + ": " + err.Error()}
	}
	if len(argv) == 0 {
		return command{}, &commandError{text: "command is empty"}
	}
	file := argv[0]
	if !strings.Contains(file, "/") {
		for _, dir := range searchPath(p) {
			found := filepath.Join(dir, file)
			if dir == "" || dir == "." {
				found = "./" + file // a name without a slash would be looked for in PATH again
			}
			if _, err := os.Stat(found); err == nil {
				file = found
				break
			}
		}
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return command{}, &commandError{text: "can't find command " + quote(file), missing: true}
	case info.IsDir():
		return command{}, &commandError{text: "command at " + quote(file) + " is a directory"}
	case info.Mode().Perm()&0o111 == 0:
		return command{}, &commandError{text: "command at " + quote(file) + " is not executable"}
	case unix.Access(file, unix.X_OK) != nil:
		return command{}, &commandError{text: "no permission to run command " + quote(file)}
	}
	return command{file: file, argv: argv}, nil
}

// searchPath is PATH of the program's own environment, else the daemon's, else Supervisor's default.
func searchPath(p *conf.Program) []string {
	if path, ok := p.Environment["PATH"]; ok {
		return strings.Split(path, ":")
	}
	if path := os.Getenv("PATH"); path != "" {
		return strings.Split(path, ":")
	}
	return []string{"/bin", "/usr/bin", "/usr/local/bin"}
}
