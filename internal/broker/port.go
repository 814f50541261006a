package broker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below Linux's ephemeral range (32768 and up). In it, a client that tries again and again while the
// broker is down can be given the broker's own port as its source and connect to itself.
const (
	firstPort = 20000
	lastPort  = 32000
)

// ChoosePort returns a port on the loopback that nobody listens on now. Choose it once for a project and keep it, so
// that programs find the broker again after it was restarted.
func ChoosePort() (int, error) {
	var errs []error
	for range 100 { // a host with hundreds of listeners still leaves 97 % of the range free
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("try port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("find a free port in %d..%d: %w", firstPort, lastPort, errors.Join(errs...))
}
