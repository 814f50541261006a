package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/status"
)

// scaling is how many instances services have where that is not the manifest's own number: set by hand, or chosen by
// load. It is kept in scale.json, so that a node that starts again leaves services as they are.
type scaling struct {
	path string

	mu    sync.Mutex // guards what follows
	kept  scaleFile
	notes map[string]status.Scaling // what automatic scaling says of each service
}

type scaleFile struct {
	Hand map[string]handScale `json:"hand"`
	Load map[string]int       `json:"load"`
}

// handScale is a number set by hand. It counts as long as the manifest says what it said then: the last word holds.
type handScale struct {
	Count    int    `json:"count"`
	Declared string `json:"declared"`
}

func newScaling(path string) *scaling {
	return &scaling{path: path, kept: scaleFile{map[string]handScale{}, map[string]int{}}, notes: map[string]status.Scaling{}}
}

func (s *scaling) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept scaleFile
	err := read(s.path, &kept)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, h := range kept.Hand {
		if h.Count > 0 {
			s.kept.Hand[name] = h
		}
	}
	maps.Copy(s.kept.Load, kept.Load)
	return nil
}

// declared is what the manifest says of a service's number of instances.
func declared(service manifest.Service) string {
	if a := service.Autoscale; a != nil {
		return fmt.Sprintf("%d to %d on %s", a.Min, a.Max, a.On)
	}
	return strconv.Itoa(service.Scale)
}

// count is how many instances a declared service is to have now.
func (s *scaling) countLocked(service manifest.Service) int {
	if h, ok := s.kept.Hand[service.Name]; ok && h.Declared == declared(service) {
		return h.Count
	}
	if a := service.Autoscale; a != nil {
		return min(max(s.kept.Load[service.Name], a.Min), a.Max)
	}
	return service.Scale
}

// scaled returns m with the numbers of instances that hold now.
func (s *scaling) scaled(m *manifest.Manifest) *manifest.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := *m
	out.Services = append([]manifest.Service(nil), m.Services...)
	for i := range out.Services {
		out.Services[i].Scale = s.countLocked(m.Services[i])
	}
	return &out
}

// settle drops what m has overtaken and writes the rest.
func (s *scaling) settle(m *manifest.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := scaleFile{map[string]handScale{}, map[string]int{}}
	notes := map[string]status.Scaling{}
	for _, service := range m.Services {
		if h, ok := s.kept.Hand[service.Name]; ok && h.Declared == declared(service) {
			kept.Hand[service.Name] = h
		}
		if n, ok := s.kept.Load[service.Name]; ok && service.Autoscale != nil {
			kept.Load[service.Name] = n
			notes[service.Name] = s.notes[service.Name]
		}
	}
	s.kept, s.notes = kept, notes
	if len(kept.Hand)+len(kept.Load) == 0 {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return write(s.path, kept)
}

// byHand sets or, with 0, takes back a number.
func (s *scaling) byHand(service manifest.Service, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count == 0 {
		delete(s.kept.Hand, service.Name)
		return
	}
	s.kept.Hand[service.Name] = handScale{count, declared(service)}
}

// byLoad sets a number that load has chosen.
func (s *scaling) byLoad(service string, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Load[service] = count
}

// automatic says whether load chooses the number of a service: not while one is set by hand.
func (s *scaling) automatic(service manifest.Service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.kept.Hand[service.Name]
	return service.Autoscale != nil && (!ok || h.Declared != declared(service))
}

// note keeps what was decided; changed is the change that was made, if any.
func (s *scaling) note(service, reason, changed string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes[service]
	n.Reason = reason
	if changed != "" {
		n.Last, n.Since = changed, time.Now()
	}
	s.notes[service] = n
}

// status says why a service has its number of instances; nil when the manifest is all there is to say. The service is as
// it runs now: its Scale is what holds.
func (s *scaling) status(service manifest.Service) *status.Scaling {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes[service.Name]
	n.Wanted = service.Scale
	if h, ok := s.kept.Hand[service.Name]; ok {
		n.Declared, n.By, n.Reason = h.Declared, "hand", "set by hozo scale"
		return &n
	}
	if service.Autoscale == nil {
		return nil
	}
	n.Declared, n.By = declared(service), "load"
	return &n
}
