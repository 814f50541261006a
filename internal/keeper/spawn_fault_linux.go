package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
)

// noRoom is the fix when the keeper cannot have another process or descriptor.
const noRoom = "raise the limits of Hozo (ulimit -u, ulimit -n), or stop something"

// checkProgram finds what the errno of a failed start would not tell, or would tell only inside the shim.
func checkProgram(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return at(path, failure("no-binary", "there is no such program", "build it, or correct the path", nil))
	case err != nil:
		return at(path, failure("not-executable", "the program cannot be looked at", "", err))
	case info.IsDir():
		return at(path, failure("not-executable", "the program is a folder", "name the program in it", nil))
	case info.Mode().Perm()&0o111 == 0:
		return at(path, failure("not-executable", "the program is not marked executable", "chmod +x "+path, nil))
	}
	return nil
}

// spawnFault explains a failed fork or exec.
func spawnFault(s Spawn, err error) error {
	program := s.Argv[0]
	if s.Dir != "" {
		if info, dirErr := os.Stat(s.Dir); dirErr != nil || !info.IsDir() {
			return at(s.Dir, failure("no-dir", fmt.Sprintf("the folder of %s is missing or not a folder", s.Name),
				"make it, or correct dir", err))
		}
	}
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return at(program, failure("busy-binary", "the program is being written",
			"end the copy; deploy by writing a new file and renaming it over the old one", err))
	case errors.Is(err, syscall.ENOENT):
		return at(program, failure("no-binary", "the program, or the interpreter that it names, is missing",
			"correct its #! line, or install the interpreter", err))
	case errors.Is(err, syscall.ENOEXEC):
		return at(program, failure("not-executable", "the program is not for this machine, or a script without #!",
			"build it for this machine, or add a #! line", err))
	case errors.Is(err, syscall.EACCES):
		return at(program, failure("not-executable", fmt.Sprintf("%s may not execute the program or enter its folder",
			s.Name), "check the rights of the program, its folder and dir", err))
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL) && s.UID != nil:
		return at(program, failure("not-permitted", fmt.Sprintf("the keeper may not start %s as another user", s.Name),
			"run Hozo as root, or leave user out", err))
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE),
		errors.Is(err, syscall.ENFILE):
		return at(program, failure("no-resources", fmt.Sprintf("the machine has no room to start %s", s.Name),
			noRoom, err))
	default:
		return at(program, failure("spawn", fmt.Sprintf("%s cannot be started", s.Name), "", err))
	}
}

func at(where string, e *fault.Error) *fault.Error {
	e.Where = where
	return e
}

// transient says whether an error of a log may pass by itself, so that it must not keep a process from starting.
func transient(err error) bool {
	for _, errno := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
