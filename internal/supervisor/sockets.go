package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
)

// sockets knows which sockets the keeper holds. Opening and closing are serialised by the caller; reading is not.
type sockets struct {
	keeper Keeper

	mu   sync.Mutex // guards held
	held map[string]keeper.Socket
}

func (s *sockets) adopt(held []keeper.Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range held {
		s.held[k.Name] = k
	}
}

func (s *sockets) addresses() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]string, len(s.held))
	for name, k := range s.held {
		all[name] = k.Address
	}
	return all
}

// open makes the keeper hold every socket of a service: all of them or, with an error, those that it held before.
//
// A socket whose address changes is opened under a second name first. Only when all addresses are known to be free are
// the old ones let go: they cannot be opened again while instances that inherited them run.
func (s *sockets) open(ctx context.Context, spec plan.Spec) error {
	var fresh, moved []keeper.Listen
	for _, l := range spec.Listen {
		want := keeper.Listen{Name: spec.Socket(l), Network: l.Network, Address: l.Address}
		have, ok := s.get(want.Name)
		switch {
		case !ok:
			fresh = append(fresh, want)
		case !same(want, have):
			moved = append(moved, want)
		}
	}
	var opened []string
	undo := func(err error) error {
		errs := []error{err}
		for _, name := range opened {
			errs = append(errs, s.close(ctx, name))
		}
		return errors.Join(errs...)
	}
	for _, l := range fresh {
		if err := s.listen(ctx, l); err != nil {
			return undo(err)
		}
		opened = append(opened, l.Name)
	}
	for _, l := range moved {
		trial := l
		trial.Name += ".next"
		if err := s.listen(ctx, trial); err != nil {
			return undo(err)
		}
		if err := s.close(ctx, trial.Name); err != nil {
			return undo(err)
		}
	}
	for _, l := range moved {
		if err := s.close(ctx, l.Name); err != nil {
			return err
		}
		if err := s.listen(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// keep closes every socket that is not wanted. All sockets that the keeper holds are the supervisor's.
func (s *sockets) keep(ctx context.Context, wanted map[string]bool) error {
	var errs []error
	for name := range s.addresses() {
		if !wanted[name] {
			errs = append(errs, s.close(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (s *sockets) listen(ctx context.Context, l keeper.Listen) error {
	k, err := s.keeper.Listen(ctx, l)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", l.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[l.Name] = k
	return nil
}

func (s *sockets) close(ctx context.Context, name string) error {
	if err := s.keeper.Unlisten(ctx, name); err != nil {
		return fmt.Errorf("close socket %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, name)
	return nil
}

func (s *sockets) get(name string) (keeper.Socket, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.held[name]
	return k, ok
}

// socketNames returns the names of the sockets that specs want.
func socketNames(specs []plan.Spec) map[string]bool {
	wanted := make(map[string]bool)
	for _, s := range specs {
		for _, l := range s.Listen {
			wanted[s.Socket(l)] = true
		}
	}
	return wanted
}

// same says whether the held socket is what is wanted. A wanted port 0 is met by any port of the same host, and a
// wanted localhost by what it resolved to.
func same(want keeper.Listen, have keeper.Socket) bool {
	if want.Network != have.Network {
		return false
	}
	if want.Address == have.Address {
		return true
	}
	if want.Network != "tcp" {
		return false
	}
	wantHost, wantPort, err1 := net.SplitHostPort(want.Address)
	haveHost, havePort, err2 := net.SplitHostPort(have.Address)
	if err1 != nil || err2 != nil {
		return false
	}
	if wantPort != havePort && wantPort != "0" {
		return false
	}
	if wantHost == haveHost {
		return true
	}
	ip := net.ParseIP(haveHost)
	if wantHost == "" {
		return ip != nil && ip.IsUnspecified()
	}
	return wantHost == "localhost" && ip != nil && ip.IsLoopback()
}
