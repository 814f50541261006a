package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
)

// socket is a listening socket that processes inherit. The keeper never accepts on it.
type socket struct {
	asked   Listen
	network string
	address string   // as bound
	file    *os.File // blocking, as a program expects of an inherited socket
}

func (s *socket) describe() Socket {
	return Socket{Name: s.asked.Name, Network: s.network, Address: s.address}
}

func (s *socket) held() heldSocket {
	return heldSocket{Asked: s.asked, Network: s.network, Address: s.address}
}

// listen opens a socket, or returns the one that is open already.
func (k *Keeper) listen(ctx context.Context, l Listen) (Socket, error) {
	if !goodName(l.Name) {
		return Socket{}, misuse("bad-request", fmt.Sprintf("socket name %q is empty, too long or not printable", l.Name), "")
	}
	if l.Network != "tcp" && l.Network != "unix" {
		return Socket{}, misuse("bad-request", fmt.Sprintf("socket %s is of network %q", l.Name, l.Network), "tcp or unix")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return Socket{}, failure("stopping", "the keeper is stopping", "", nil)
	}
	if s := k.sockets[l.Name]; s != nil {
		if s.asked != l && s.describe() != Socket(l) {
			return Socket{}, at(s.address, failure("socket-exists",
				fmt.Sprintf("socket %q is open at another address", l.Name), "unlisten it first", nil))
		}
		return s.describe(), nil
	}
	s, err := openSocket(ctx, l)
	if err != nil {
		return Socket{}, err
	}
	if err := k.deposit(opPut, keySocket+l.Name, s.held(), int(s.file.Fd())); err != nil {
		return Socket{}, errors.Join(err, s.close())
	}
	k.sockets[l.Name] = s
	k.log.Info("socket open", "socket", l.Name, "address", s.address)
	return s.describe(), nil
}

// openSocket listens. TCP addresses are numbers: resolving a name could hold up the keeper.
func openSocket(ctx context.Context, l Listen) (*socket, error) {
	listener, err := bind(ctx, l)
	if errors.Is(err, unix.EADDRINUSE) && l.Network == "unix" && stale(l.Address) {
		if err = os.Remove(l.Address); err == nil {
			listener, err = bind(ctx, l)
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		what := "address is in use"
		if who := holder(l); who != "" {
			what += " by " + who
		}
		return nil, at(l.Address, failure("address-in-use", what, "end that program, or listen elsewhere", nil))
	}
	if err != nil {
		return nil, at(l.Address, failure("listen", fmt.Sprintf("socket %s cannot be opened", l.Name), "", err))
	}
	s := &socket{asked: l, network: l.Network, address: listener.Addr().String()}
	s.file, err = inheritable(listener)
	if err != nil {
		return nil, fmt.Errorf("keep socket %s: %w", l.Name, err)
	}
	return s, nil
}

func bind(ctx context.Context, l Listen) (net.Listener, error) {
	if l.Network == "unix" {
		if len(l.Address) > maxSocketPath {
			return nil, &fault.Error{
				Code: "keeper/path-too-long",
				Kind: fault.Misuse,
				What: fmt.Sprintf("socket path is %d bytes long; a unix socket allows %d", len(l.Address), maxSocketPath),
				Fix:  "choose a shorter path",
			}
		}
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.Address, Net: "unix"})
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(l.Address, 0o600); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		return listener, nil
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return nil, err
	}
	if host == "localhost" {
		l.Address = strings.Replace(l.Address, host, "127.0.0.1", 1)
	} else if host != "" && net.ParseIP(host) == nil {
		return nil, fmt.Errorf("host %q is not an IP address", host)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // a program that inherits the socket expects plain TCP
	return lc.Listen(ctx, "tcp", l.Address)
}

// inheritable turns a listener into the bare socket, out of the runtime's poller.
func inheritable(listener net.Listener) (*os.File, error) {
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	source, ok := listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T has no file", listener), listener.Close())
	}
	file, err := source.File()
	err = errors.Join(err, listener.Close()) // the duplicate in file keeps it open
	if err == nil {
		err = unix.SetNonblock(int(file.Fd()), false)
	}
	if err != nil && file != nil {
		err = errors.Join(err, file.Close())
	}
	return file, err
}

// stale says whether a unix socket has no listener any more.
func stale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return false
	}
	conn, err := net.DialTimeout("unix", path, time.Second) // a full backlog is an answer too
	if err == nil {
		_ = conn.Close() // it was only a question
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// inheritedLocked returns sockets by name.
func (k *Keeper) inheritedLocked(names []string) ([]*socket, error) {
	list := make([]*socket, 0, len(names))
	for _, name := range names {
		s := k.sockets[name]
		if s == nil {
			return nil, noSocket(name, slices.Sorted(maps.Keys(k.sockets)))
		}
		list = append(list, s)
	}
	return list, nil
}

func (k *Keeper) unlisten(name string) error {
	k.mu.Lock()
	s := k.sockets[name]
	if s == nil {
		defer k.mu.Unlock()
		return noSocket(name, slices.Sorted(maps.Keys(k.sockets)))
	}
	delete(k.sockets, name)
	gone := make(chan struct{})
	if k.link == nil {
		close(gone)
	} else {
		k.awaited.Store(keySocket+name, gone)
	}
	k.withdraw(keySocket + name)
	k.log.Info("socket closed", "socket", name, "address", s.address)
	err := s.close()
	k.mu.Unlock()
	k.awaitGone(gone)
	return err
}

func (k *Keeper) closeSockets() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for name, s := range k.sockets {
		delete(k.sockets, name)
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

func (s *socket) close() error {
	err := s.file.Close()
	if s.network == "unix" {
		if gone := os.Remove(s.address); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

func noSocket(name string, known []string) error {
	return misuse("no-socket", fmt.Sprintf("no socket %q is open", name), "one of: "+strings.Join(known, ", "))
}
