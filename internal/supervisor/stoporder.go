package supervisor

import (
	"errors"
	"sync"

	"github.com/hozo-dev/hozo/internal/plan"
)

// inOrder calls f for the instance names of specs, those of a service once all that need it are done, and everything
// else at the same time.
func inOrder(specs []plan.Spec, f func(name string) error) error {
	dependents := plan.Dependents(specs)
	services := byService(specs)
	done := make(map[string]chan struct{}, len(services))
	for service := range services {
		done[service] = make(chan struct{})
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards errs
	var errs []error
	for service, of := range services {
		wg.Go(func() {
			defer close(done[service])
			for _, d := range dependents[service] {
				if c, ok := done[d]; ok {
					<-c
				}
			}
			var instances sync.WaitGroup
			for _, spec := range of {
				instances.Go(func() {
					if err := f(spec.Name); err != nil {
						mu.Lock()
						defer mu.Unlock()
						errs = append(errs, err)
					}
				})
			}
			instances.Wait()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func byService(specs []plan.Spec) map[string][]plan.Spec {
	of := make(map[string][]plan.Spec)
	for _, w := range specs {
		of[w.Service] = append(of[w.Service], w)
	}
	return of
}
