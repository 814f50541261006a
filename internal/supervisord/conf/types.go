package conf

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// byteSize reads 10, 10KB, 10MB, 10GB; case does not count.
func byteSize(s string) (int64, error) {
	s = strings.ToLower(s)
	unit := int64(1)
	for suffix, size := range map[string]int64{"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30} {
		if rest, found := strings.CutSuffix(s, suffix); found {
			s, unit = rest, size
			break
		}
	}
	n, err := parseInt(s, 10)
	if err != nil {
		return 0, err
	}
	if n*unit/unit != n {
		return 0, errRange
	}
	return n * unit, nil
}

// ParseSignal reads a signal as stopsignal= and supervisorctl give it: a number, or a name with or without SIG. The
// error is in Supervisor's words.
func ParseSignal(s string) (syscall.Signal, error) {
	n, err := parseInt(s, 10)
	if err != nil {
		name := strings.ToUpper(strip(s))
		if !strings.HasPrefix(name, "SIG") {
			name = "SIG" + name
		}
		switch name {
		case "SIGCLD":
			return syscall.SIGCHLD, nil
		case "SIGRTMIN":
			return signalMinRT, nil
		case "SIGRTMAX":
			return signalMaxRT, nil
		}
		if sig := unix.SignalNum(name); sig != 0 {
			return sig, nil
		}
		return 0, fmt.Errorf("value %s is not a valid signal name", repr(s))
	}
	// Python's module also has a SIG_DFL of 0, so Supervisor takes that for a signal; it only asks whether a process
	// is there. Of the real-time signals the module names the ends alone.
	if n >= 0 && n <= 31 || n == int64(signalMinRT) || n == int64(signalMaxRT) {
		return syscall.Signal(n), nil
	}
	return 0, fmt.Errorf("value %s is not a valid signal number", repr(s))
}

// The ends of the real-time signals as glibc gives them to programs.
const (
	signalMinRT syscall.Signal = 34
	signalMaxRT syscall.Signal = 64
)

// lookupUser finds the uid of a user's name or number.
func lookupUser(name string) (*user.User, error) {
	if n, err := parseInt(name, 10); err == nil {
		if u, err := user.LookupId(strconv.FormatInt(n, 10)); err == nil {
			return u, nil
		}
		return nil, fmt.Errorf("Invalid user id %s", name) //nolint:staticcheck // Supervisor's words
	}
	u, err := user.Lookup(name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("Invalid user name %s", name) //nolint:staticcheck // Supervisor's words
	}
	return u, nil
}

func lookupGroup(name string) (int, error) {
	find := user.LookupGroup
	if n, err := parseInt(name, 10); err == nil {
		find, name = user.LookupGroupId, strconv.FormatInt(n, 10)
	}
	g, err := find(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// owner reads user or user:group; a missing group is -1.
func owner(s string) (uid, gid int, err error) {
	name, group, hasGroup := strings.Cut(s, ":")
	u, err := lookupUser(name)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	if !hasGroup {
		return uid, -1, nil
	}
	gid, err = lookupGroup(group)
	return uid, gid, err
}

// checkName refuses the characters that would break the event protocol or the URLs of the web interface.
func checkName(name string) (string, error) {
	name = strip(name)
	for _, c := range " :/" {
		if strings.ContainsRune(name, c) {
			return name, fmt.Errorf("Invalid name: %s because of character: %s", repr(name), repr(string(c))) //nolint:staticcheck // Supervisor's words
		}
	}
	return name, nil
}

// list splits at commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	all := strings.Split(s, ",")
	for i := range all {
		all[i] = strip(all[i])
	}
	return all
}

var errExitCode = errors.New("exit codes go from 0 to 255")

func exitCodes(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	var codes []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := parseInt(part, 10)
		if err != nil {
			return nil, err
		}
		if n < 0 || n > 255 {
			return nil, errExitCode
		}
		codes = append(codes, int(n))
	}
	return codes, nil
}

// inetAddress reads port, *:port or host:port. The error is in Supervisor's words.
func inetAddress(s string) (host string, port int, err error) {
	cut := strings.LastIndexByte(s, ':')
	number := s
	if cut >= 0 {
		host, number = strings.ToLower(s[:cut]), s[cut+1:]
		if number == "" {
			return "", 0, errors.New("no port number specified in ''")
		}
	}
	n, err := portNumber(number)
	if err != nil && cut < 0 {
		err = fmt.Errorf("not a valid port number: %s ", repr(s))
	}
	if host == "*" {
		host = ""
	}
	return host, n, err
}

func portNumber(s string) (int, error) {
	n, err := parseInt(s, 10)
	switch {
	case err != nil:
		return 0, errors.New(notInt(s))
	case n < 1:
		return 0, fmt.Errorf("%d is below lower bound (1)", n)
	case n > 65535:
		return 0, fmt.Errorf("%d is above upper bound (65535)", n)
	}
	return int(n), nil
}

// eventTypes are the names that events= may hold; a name stands for every name that begins with it and an underscore,
// and EVENT for all.
var eventTypes = []string{
	"EVENT",
	"PROCESS_STATE", "PROCESS_STATE_STOPPED", "PROCESS_STATE_EXITED", "PROCESS_STATE_STARTING", "PROCESS_STATE_STOPPING",
	"PROCESS_STATE_BACKOFF", "PROCESS_STATE_FATAL", "PROCESS_STATE_RUNNING", "PROCESS_STATE_UNKNOWN",
	"PROCESS_COMMUNICATION", "PROCESS_COMMUNICATION_STDOUT", "PROCESS_COMMUNICATION_STDERR",
	"PROCESS_LOG", "PROCESS_LOG_STDOUT", "PROCESS_LOG_STDERR", "REMOTE_COMMUNICATION",
	"SUPERVISOR_STATE_CHANGE", "SUPERVISOR_STATE_CHANGE_RUNNING", "SUPERVISOR_STATE_CHANGE_STOPPING",
	"TICK", "TICK_5", "TICK_60", "TICK_3600", "PROCESS_GROUP", "PROCESS_GROUP_ADDED", "PROCESS_GROUP_REMOVED",
}
