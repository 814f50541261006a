package web

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"golang.org/x/sys/unix"
)

// The environment of socket activation, as systemd and Hozo's keeper set it.
const (
	envFDs   = "LISTEN_FDS"
	envNames = "LISTEN_FDNAMES"
	envPID   = "LISTEN_PID"
	envPort  = "PORT"

	firstFD = 3  // SD_LISTEN_FDS_START
	mostFDs = 64 // more is a broken environment, not a service
)

// inherited is one socket that the parent passed on.
type inherited struct {
	name string
	fd   int
}

// Listeners opens the sockets that this process inherited, by name; a socket without a name is called by its place,
// "0" onwards. The map is empty when there are none. The inherited descriptors themselves stay as they are, so that
// Listeners can be called again, except that they are no longer passed on to children. A closed Listener leaves the
// socket listening in the parent: connections that arrive meanwhile wait for the next process.
func Listeners() (map[string]net.Listener, error) {
	sockets, err := inheritedSockets()
	if err != nil {
		return nil, err
	}
	all := make(map[string]net.Listener, len(sockets))
	for _, s := range sockets {
		ln, err := s.open()
		if err != nil {
			for _, opened := range all {
				_ = opened.Close() // a copy: nothing is lost with it
			}
			return nil, err
		}
		all[s.name] = ln
	}
	return all, nil
}

// inheritedSockets reads the environment.
func inheritedSockets() ([]inherited, error) {
	count := os.Getenv(envFDs)
	if count == "" {
		return nil, nil
	}
	if pid := os.Getenv(envPID); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // meant for a process that this one descends from: its descriptors are not ours
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > mostFDs {
		return nil, &fault.Error{
			Code: "web/listen-fds", Kind: fault.Misuse, Where: envFDs,
			What: fmt.Sprintf("%q is not a number of sockets from 0 to %d", count, mostFDs),
			Fix:  "unset it, or let the platform start the program",
		}
	}
	names := strings.Split(os.Getenv(envNames), ":")
	sockets := make([]inherited, n)
	for i := range sockets {
		sockets[i] = inherited{strconv.Itoa(i), firstFD + i}
		if i < len(names) && names[i] != "" {
			sockets[i].name = names[i]
		}
	}
	return sockets, nil
}

// goesBy reports whether a Config that asks for name means this socket. The platform puts the service's name in front
// of the manifest's: "ingest.http" goes by "http", too.
func (s inherited) goesBy(name string) bool {
	return name == "" || s.name == name || strings.HasSuffix(s.name, "."+name)
}

// open makes a listener from a copy of the descriptor.
func (s inherited) open() (net.Listener, error) {
	broken := func(err error) error {
		return &fault.Error{
			Code: "web/bad-socket", Where: fmt.Sprintf("descriptor %d (%s)", s.fd, s.name),
			What: "the inherited socket cannot be listened on", Err: err,
			Fix: "check that " + envFDs + " and " + envPID + " describe this process",
		}
	}
	unix.CloseOnExec(s.fd)
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, firstFD)
	if err != nil {
		return nil, broken(err)
	}
	file := os.NewFile(uintptr(fd), s.name)
	defer file.Close() // FileListener works on its own copy
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, broken(err)
	}
	return ln, nil
}

// listen finds the listener of a Config that brings none.
func listen(name string) (net.Listener, error) {
	sockets, err := inheritedSockets()
	if err != nil {
		return nil, err
	}
	known := make([]string, 0, len(sockets))
	for _, s := range sockets {
		if s.goesBy(name) {
			return s.open()
		}
		known = append(known, s.name)
	}
	if len(sockets) > 0 {
		return nil, &fault.Error{
			Code: "web/no-socket", Kind: fault.Misuse, Where: name,
			What: fmt.Sprintf("no inherited socket is called %q; there is %s", name, strings.Join(known, ", ")),
			Fix:  "name it under listen of the service in hozo.yaml",
		}
	}
	port := os.Getenv(envPort)
	if port == "" {
		return nil, &fault.Error{
			Code: "web/no-listener", Kind: fault.Misuse,
			What: "no inherited socket and no PORT: nowhere to listen",
			Fix:  "add listen to the service in hozo.yaml, or set PORT=8080 to run it by hand",
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, &fault.Error{
			Code: "web/bad-port", Kind: fault.Misuse, Where: envPort,
			What: fmt.Sprintf("%q is not a port", port), Fix: "set PORT to a number from 0 to 65535, 0 for any free one",
		}
	} else {
		port = strconv.FormatUint(n, 10)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, &fault.Error{
			Code: "web/listen", Where: "127.0.0.1:" + port, What: "cannot listen", Err: err,
			Fix: "stop the program that uses the port, or set another PORT",
		}
	}
	return ln, nil
}
